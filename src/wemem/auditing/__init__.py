"""Audits: attacks applied to signals, on the victim and leave-one-out, and the report of their
results.
"""
