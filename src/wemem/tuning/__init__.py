"""The search for a defense and its settings from a stated budget."""
