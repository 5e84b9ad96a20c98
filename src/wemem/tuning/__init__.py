"""Search for a defense and its settings within a budget of accuracy and leakage."""
