"""The store of results: each under a key made of everything that determines it.

It also makes the keys, and the fingerprints of settings, of code and of the user's own sources.
"""
