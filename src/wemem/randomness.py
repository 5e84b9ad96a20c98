"""Randomness as an argument: every random choice is a pure function of (study seed, purpose, member, ...).

Nothing in the package reads or writes global generator state to make a choice, so that the order in which
things run, what was found in the store, and how many members an ensemble has cannot change a result.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, *parts: int | str) -> int:
    """A 63-bit seed for one purpose.

    Args:
        seed: the study's seed.
        purpose: what the randomness is for, e.g. ``"split"`` or ``"order"``.
        parts: member, round, epoch, ... that tell this draw from its siblings.

    >>> derive_seed(0, "init", 1) == derive_seed(0, "init", 1)
    True
    >>> derive_seed(0, "init", 1) == derive_seed(0, "init", 2)
    False
    """
    text = "\x1f".join([str(int(seed)), purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *parts: int | str) -> np.random.Generator:
    """A NumPy generator (Philox) for one purpose; same arguments, same stream."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose, *parts)))
