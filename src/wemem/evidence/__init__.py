"""Evidence that can be handed over: one bundle, bound by hashes, of what was measured and what not."""
