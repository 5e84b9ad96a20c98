"""The place behind a store: a folder, or a bucket of an object storage."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import numpy as np

from wemem.store.entry import Entry
from wemem.store.key import Key


class Address(NamedTuple):
    """The place of an entry within a store.

    Attributes:
        stage: name of the stage that computed it.
        key: its key, in hexadecimal.
    """

    stage: str
    key: str

    @classmethod
    def of(cls, key: Key) -> "Address":
        """The address of a key's entry."""
        return cls(key.origin["stage"], str(key))

    @property
    def path(self) -> str:
        """The path of the entry below the root of a store."""
        return f"{self.stage}/{self.key[:2]}/{self.key}"


@dataclass(frozen=True)
class Listed:
    """An entry as a listing shows it, unread.

    Args:
        address: its place.
        bytes: bytes of all its files.
        modified: the time at which its last file was written.
        complete: False for remnants of an entry that was never finished.
    """

    address: Address
    bytes: int
    modified: datetime
    complete: bool


class Backend(ABC):
    """The operations that a store is made of.

    An entry is written in full or not at all, and verified whenever it is read. Errors of the local
    disk come out as ``OSError`` or ``SafetensorError``, all others as ``InputError``.

    Class attributes:
        patience: seconds between two checks for work that other processes have finished.
        at_once: entries that are worth reading at the same time.
        remedy: advice for a local disk that cannot be read or written.
    """

    patience: ClassVar[float]
    at_once: ClassVar[int]
    remedy: ClassVar[str]

    @property
    @abstractmethod
    def place(self) -> str:
        """The place, for messages."""

    @abstractmethod
    def read(self, key: Key) -> Entry | None:
        """The verified entry of a key, or None if there is none.

        Raises:
            DamagedError: the entry is not as it was written.
        """

    @abstractmethod
    def write(self, key: Key, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Entry | None:
        """Write an entry; None if there is one of that key, which stays."""

    @abstractmethod
    def exists(self, address: Address) -> bool:
        """True if there is an entry, whole or damaged."""

    @abstractmethod
    def remove(self, address: Address) -> None:
        """Remove an entry, if there is one. A process that has read it keeps its arrays."""

    @abstractmethod
    def present(self, keys: Collection[Key]) -> frozenset[Key]:
        """The keys that have an entry, which is not read."""

    @abstractmethod
    def forget(self, keys: Collection[Key]) -> None:
        """Remove copies on this machine of entries that the place itself does not have any more."""

    @abstractmethod
    def check(self, address: Address) -> None:
        """Read and verify an entry.

        Raises:
            DamagedError: the entry is not as it was written.
        """

    @abstractmethod
    def listed(self) -> Iterator[Listed]:
        """All entries, and remnants of entries."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of all files."""

    @abstractmethod
    def claimed(self, job: Key, numbers: Sequence[int]) -> AbstractContextManager[int | None]:
        """Hold one of some pieces of work that no other process holds; None if there is none.

        A piece is free again when the process ends, in whatever way.
        """
