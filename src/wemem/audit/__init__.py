"""Attacks applied to signals, and the audit report they give."""
