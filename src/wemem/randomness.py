"""Randomness as an argument: every random choice is a pure function of (study seed, purpose, model,
...).

Nothing in the package reads or writes global generator state to make a choice. The order in which
stages run, the results that the store has already, and the number of models of an ensemble
therefore cannot change a result.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, *parts: int | str) -> int:
    """Derive a 63-bit seed for one purpose.

    Args:
        seed: the study's seed.
        purpose: the name of the purpose, such as ``"split"`` or ``"order"``.
        parts: the model, round, epoch, ... that distinguish this draw from others of the same
            purpose.

    >>> derive_seed(0, "init", 1) == derive_seed(0, "init", 1)
    True
    >>> derive_seed(0, "init", 1) == derive_seed(0, "init", 2)
    False
    """
    text = "\x1f".join([str(int(seed)), purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *parts: int | str) -> np.random.Generator:
    """Create a NumPy generator (Philox) for one purpose; the same arguments give the same stream."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose, *parts)))
