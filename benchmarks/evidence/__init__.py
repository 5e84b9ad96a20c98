"""The comparisons of the evidence page of the documentation."""
