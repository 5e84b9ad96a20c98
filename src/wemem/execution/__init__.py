"""Executors that run the task graph of a study."""
