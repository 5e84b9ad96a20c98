"""Data sets, the roles of their records for each model, batches, views and teacher splits."""
