"""The content-addressed store: results of expensive stages under the hash of all that determines them."""
