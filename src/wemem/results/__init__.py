"""Files that a study writes, and all that is computed from them: comparison, curves, gate."""
