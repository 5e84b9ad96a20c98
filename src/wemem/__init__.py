"""WeMem: prune a neural network iteratively, without making it memorize, and measure what it leaks."""

__version__ = "0.1.0"
