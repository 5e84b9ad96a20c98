"""A folder of entries that were read from a bucket or written to it, with a limit on its size."""

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from wemem.errors import InputError
from wemem.files.input_files import user_path
from wemem.store.backend import Address
from wemem.store.entry import DamagedError, Entry
from wemem.store.folder import FolderBackend
from wemem.store.key import Key

T = TypeVar("T")
#: Environment variables with the folder of all caches and with the size of each.
FOLDER, SIZE = "WEMEM_CACHE", "WEMEM_CACHE_SIZE"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
#: Errors of a system whose disk or quota is full.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: Share of the limit that is left after a trim, and that a process may write before it counts
#: again what others have written.
TRIMMED, UNCOUNTED = 0.9, 1 / 16


class LocalCache:
    """Entries of one bucket on the disk of this machine, verified whenever they are read.

    Where it grows above its limit, entries go that have not been used for the longest time. A
    process that has read an entry keeps its arrays.

    Args:
        folder: the folder, used by any number of processes.
        limit: the largest number of bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit, self._entries, self._new = limit, FolderBackend(folder), 0
        self._trim()

    @classmethod
    def of(cls, identity: str) -> "LocalCache":
        """The cache of one bucket, where the environment says.

        Raises:
            InputError: a variable of the environment that makes no sense.
        """
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = os.environ.get(FOLDER) or str(Path(base, "wemem", "stores"))
        return cls(user_path(folder) / identity, _limit())

    @property
    def place(self) -> str:
        """The folder, for messages."""
        return self._entries.place

    def read(self, key: Key) -> Entry | None:
        """The verified entry of a key, which counts as used now; None if there is none, or a
        damaged one, which is removed.
        """
        address = Address.of(key)
        try:
            entry = self._entries.read(key)
        except DamagedError:
            self._entries.remove(address)
            return None
        if entry is not None:
            with suppress(OSError):  # another process has removed it
                os.utime(self._entries.folder(address))
        return entry

    def keep(self, complete: Path, address: Address) -> None:
        """Move a complete entry from a scratch folder into the cache."""
        size = sum(path.stat().st_size for path in complete.iterdir())
        if self._entries.keep(complete, address):
            self._new += size
            if self._new > UNCOUNTED * self.limit or self._counted + self._new > self.limit:
                self._trim()

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty folder for one call, removed afterwards."""
        return self._entries.scratch()

    def remove(self, address: Address) -> None:
        """Remove an entry, if there is one."""
        self._entries.remove(address)

    def claimed(self, job: Key, numbers: Sequence[int]) -> AbstractContextManager[int | None]:
        """Hold a piece of work, as :meth:`~wemem.store.backend.Backend.claimed` on one machine."""
        return self._entries.claimed(job, numbers)

    def with_space(self, action: Callable[[], T]) -> T:
        """The result of a call that writes; where the disk is full, the cache is emptied first."""
        try:
            return action()
        except (OSError, SafetensorError) as error:
            if not _is_full(error) or not self._by_use():
                raise
            self._trim(to=0)
            return action()

    def _trim(self, to: float | None = None) -> None:
        """Remove what has not been used for the longest time, where the limit is passed."""
        entries = self._by_use()
        self._counted, self._new = sum(size for _, size, _ in entries), 0
        goal = self.limit if to is None else to
        if self._counted <= goal:
            return
        for _, size, address in entries:
            if self._counted <= TRIMMED * goal:
                return
            self._entries.remove(address)
            self._counted -= size

    def _by_use(self) -> list[tuple[int, int, Address]]:
        """Time of the last use, bytes and address of every entry, the oldest use first."""
        return sorted(self._used())

    def _used(self) -> Iterator[tuple[int, int, Address]]:
        for one in self._entries.listed():
            with suppress(FileNotFoundError):
                yield self._entries.folder(one.address).stat().st_mtime_ns, one.bytes, one.address


def _is_full(error: OSError | SafetensorError) -> bool:
    """True for a disk or a quota that is full; the library for weights wraps the system's error."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(f"os error {code})" in str(error) for code in FULL)


def _limit() -> int:
    text = os.environ.get(SIZE, "20GB")
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([KMGT]B)?", text.strip())
    if match is None:
        raise InputError(
            f"expected a size such as 20GB in {SIZE}, got {text[:40]!r}; write a number and KB, MB, GB or TB"
        )
    return int(float(match[1]) * UNITS[match[2] or ""])
