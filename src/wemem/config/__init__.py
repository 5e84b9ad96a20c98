"""A study file and its overrides, read into frozen settings, and written back as a table."""
