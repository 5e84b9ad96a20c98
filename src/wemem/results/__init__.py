"""The files a study leaves, and everything computed from them: comparison, curves, gate."""
