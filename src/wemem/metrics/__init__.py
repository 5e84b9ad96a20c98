"""Privacy metrics of score arrays, with their confidence intervals. Everything here works on arrays
alone.
"""
