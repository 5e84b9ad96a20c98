"""Data sets, who trains on which record, batches, views and teacher splits."""
