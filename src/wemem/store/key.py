"""A key: the SHA-256 of everything that determines a stored result, and the frozen value that it is
made from.
"""

import re
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.store.fingerprint import environment, spelled

TMP = "tmp"


class Key(str):
    """SHA-256, in hexadecimal, of everything that determines a stored result, with what was hashed
    as ``origin``.
    """

    origin: Mapping[str, Any]

    @classmethod
    def of(cls, stage: str, determinants: Mapping[str, object], libraries: Sequence[str] = ()) -> Self:
        """The key of the result that this program computes from some determinants here.

        Args:
            stage: name of what is computed: lower-case letters, digits and ``_``.
            determinants: by name: settings, fingerprints, keys of other stages. 1, 1.0 and True
                differ, the order of a mapping does not count, a tuple is as good as a list.
            libraries: optional distributions that take part.

        Raises:
            InputError: a value without a JSON form: NaN, an array, a path (its content may change:
                give a fingerprint).

        >>> Key.of("dense", {"rate": 0.1, "seeds": (0, 1)}) == Key.of("dense", {"seeds": [0, 1], "rate": 0.1})
        True
        >>> Key.of("dense", {"rate": 1}) == Key.of("dense", {"rate": 1.0})
        False
        """
        if not re.fullmatch("[a-z0-9_]+", stage) or stage == TMP:
            raise InputError(f"expected a stage named by lower-case letters, digits and _, not {TMP!r}, got {stage!r}")
        given = spelled(dict(determinants), stage)
        origin = {"stage": stage, "determinants": given, "environment": environment(libraries)}
        key = cls(sha256_of(origin))
        key.origin = origin
        return key


def bare(key: Key) -> Key:
    """The same key without what was hashed: enough to see if the store has its entry, not to read
    it.
    """
    own = Key(str(key))
    own.origin = {"stage": key.origin["stage"]}
    return own


@dataclass(frozen=True)
class StageKey(ABC):
    """Everything that one stage reads. Subclasses are frozen dataclasses.

    Class attributes:
        stage: name of the stage, and of its folder in a store.
    """

    stage: ClassVar[str]

    @property
    def libraries(self) -> Sequence[str]:
        """Optional distributions that take part in the stage. By default: none."""
        return ()

    def key(self) -> Key:
        """The key of the stage's result on this machine, by this program."""
        return Key.of(self.stage, {f.name: getattr(self, f.name) for f in fields(self)}, self.libraries)


@dataclass(frozen=True)
class PieceKey(StageKey):
    """One numbered piece of a job (:class:`~wemem.store.shared_work.SharedWork`)."""

    stage = "auto_piece"
    job: Key
    number: int
