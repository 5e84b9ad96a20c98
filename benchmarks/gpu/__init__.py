"""Measurements on a GPU: correctness against the CPU, speed of the ensemble backends, and studies."""
