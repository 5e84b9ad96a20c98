"""The stages of a study, computed or found in the store: training, scoring, pruning, querying."""
