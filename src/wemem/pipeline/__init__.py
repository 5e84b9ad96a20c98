"""The stages of a study, each computed or looked up in the store: train, score, prune, query."""
