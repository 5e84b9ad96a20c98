"""Measurements of speed and of leakage, each a program of its own; README.md beside this file keeps their figures."""
