"""Callbacks that put pruning under a defense into training frameworks, each an optional extra."""
