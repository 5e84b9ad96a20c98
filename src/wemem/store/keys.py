"""Keys: the fingerprint of everything that determines a stored result."""

import re
from collections.abc import Mapping
from typing import Any

from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.store.canonical import environment, plain

TMP = "tmp"


class Key(str):
    """The SHA-256, in hexadecimal, of everything that determines a result; it remembers what that was."""

    origin: Mapping[str, Any]

    def __new__(cls, origin: Mapping[str, Any]) -> "Key":
        made = super().__new__(cls, sha256_of(origin))
        made.origin = origin
        return made


def key(stage: str, /, **determinants: object) -> Key:
    """The key of what this program computes, with these versions of its libraries, on this kind of processor.

    Args:
        stage: what is computed; lower-case letters, digits and ``_``.
        determinants: settings, fingerprints, keys of other stages. 1, 1.0 and True differ, the order of a mapping does
            not count, a tuple is as good as a list.

    Raises:
        InputError: what has no JSON: NaN, an array, a path (what is found there may change: give its fingerprint).

    >>> key("dense", rate=0.1, seeds=(0, 1)) == key("dense", seeds=[0, 1], rate=0.1)
    True
    >>> key("dense", rate=1) == key("dense", rate=1.0)
    False
    """
    if not re.fullmatch("[a-z0-9_]+", stage) or stage == TMP:
        raise InputError(f"expected a stage named by lower-case letters, digits and _, not {TMP!r}, got {stage!r}")
    given = plain(determinants, stage)
    return Key({"stage": stage, "determinants": given, "environment": environment()})
