"""Whole studies and audits: which stages run for which defense, and what the attacks make of them."""
