"""Whole studies and audits: the stages of each defense, their order, and the attacks on the models."""
