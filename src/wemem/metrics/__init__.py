"""Privacy metrics of score arrays, with their confidence intervals. Knows arrays and nothing else."""
