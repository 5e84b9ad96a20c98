"""The controlled experiment that explains why a pruned model leaks."""
