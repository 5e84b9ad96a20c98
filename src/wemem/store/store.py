"""The store of results by key, which survives kills and serves many processes.

A killed run continues from its last stored stage, and studies share the stages that they have in
common. An entry is verified at every look-up; a damaged entry is removed and computed again, and
never used.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from wemem.errors import InputError
from wemem.store.backend import Address, Backend, Listed
from wemem.store.entry import DamagedError, Entry, writable
from wemem.store.folder import FolderBackend
from wemem.store.key import Key
from wemem.store.location import BucketUrl, store_location


class Store:
    """Entries by key, in a folder or a bucket that any number of processes may use at once.

    Args:
        location: a folder, or a URL that begins with ``s3://``, ``gs://``, ``az://`` or
            ``file://``. A folder is created if missing; incomplete entries of killed processes are
            removed.
        warn: called with one line for every damaged entry.

    Raises:
        InputError: the place cannot be written. Every method may raise this.
    """

    def __init__(self, location: str | Path, warn: Callable[[str], object] = warnings.warn) -> None:
        place = store_location(location)
        self._warn = warn
        self.backend: Backend = _folder(place) if isinstance(place, Path) else _bucket(place)

    def get(self, key: Key) -> Entry | None:
        """The entry of a key; None if there is none, or if it is damaged and was removed."""
        with _one_line(self.backend.place, self.backend.remedy):
            try:
                return self.backend.read(key)
            except DamagedError as error:
                address = Address.of(key)
                if self.backend.exists(address):  # if not, another process has just deleted it
                    where = f"{self.backend.place}/{address.path}"
                    self._warn(f"removed a damaged entry from the store, it is computed again: {where} ({error})")
                    self.backend.remove(address)
                return None

    def put(self, key: Key, arrays: Mapping[str, np.ndarray | Tensor], meta: Mapping[str, Any]) -> Entry:
        """Store a result, in full or not at all.

        Args:
            key: the key of the result.
            arrays: booleans, integers and floats of at most 64 bits; they are read back bit for
                bit.
            meta: JSON-able values.

        Returns:
            The entry as :meth:`get` reads it, so that a computed result equals a stored one. If
            another process has stored the key meanwhile, it is the entry of that process.
        """
        native = {name: writable(name, array) for name, array in arrays.items()}
        with _one_line(self.backend.place, self.backend.remedy):
            while (entry := self.backend.write(key, native, meta)) is None:
                if (first := self.get(key)) is not None:
                    return first
            return entry

    def present(self, keys: Collection[Key]) -> frozenset[Key]:
        """The keys that have an entry, all looked up at once. Entries are not read, so one of them
        may be damaged.
        """
        with _one_line(self.backend.place, self.backend.remedy):
            return self.backend.present(keys)

    def forget(self, keys: Collection[Key]) -> None:
        """Remove copies on this machine of entries that were removed from the store elsewhere, so that
        whoever needs one computes it for all machines.
        """
        with _one_line(self.backend.place, self.backend.remedy):
            self.backend.forget(keys)

    def get_all(self, keys: Collection[Key]) -> dict[Key, Entry]:
        """The entries of some keys, all read at once; keys without one are missing."""
        stored = list(self.present(keys))
        with ThreadPoolExecutor(self.backend.at_once) as threads:
            entries = threads.map(self.get, stored)
            return {key: entry for key, entry in zip(stored, entries, strict=True) if entry is not None}

    @contextmanager
    def claimed(self, job: Key, numbers: Sequence[int]) -> Iterator[int | None]:
        """Hold one of some pieces of work that no other process holds; None if there is none."""
        with ExitStack() as claim:
            with _one_line(self.backend.place, self.backend.remedy):
                number = claim.enter_context(self.backend.claimed(job, numbers))
            yield number

    def delete(self, key: Key) -> None:
        """Remove the entry of a key, if there is one. A process that has read it keeps its arrays."""
        self.remove(Address.of(key))

    def remove(self, address: Address) -> None:
        """Remove the entry at an address, as :meth:`delete` does."""
        with _one_line(self.backend.place, self.backend.remedy):
            self.backend.remove(address)

    def listed(self) -> list[Listed]:
        """All entries, unread, and remnants of entries that were never finished."""
        with _one_line(self.backend.place, self.backend.remedy):
            return list(self.backend.listed())

    def check(self, address: Address) -> None:
        """Read and verify the entry at an address.

        Raises:
            DamagedError: it is not as it was written.
        """
        with _one_line(self.backend.place, self.backend.remedy, DamagedError):
            self.backend.check(address)

    def size(self) -> int:
        """Bytes that are stored."""
        with _one_line(self.backend.place, self.backend.remedy):
            return self.backend.size()


def _folder(root: Path) -> Backend:
    with _one_line(str(root), FolderBackend.remedy):
        return FolderBackend(root)


def _bucket(url: BucketUrl) -> Backend:
    try:
        from wemem.store.bucket_backend import BucketBackend
    except ImportError:
        raise InputError(f"a store at {url} needs obstore, got no such library; pip install 'wemem[cloud]'") from None
    with _one_line(str(url), BucketBackend.remedy):
        return BucketBackend.open(url)


@contextmanager
def _one_line(place: str, remedy: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn errors of a disk into an :class:`InputError` of one line; some kinds pass as they are."""
    try:
        yield
    except passed:
        raise
    except (OSError, SafetensorError, DamagedError) as error:
        raise InputError(
            f"expected a store at {place} that can be read and written, got: {' '.join(str(error).split())}; {remedy}"
        ) from error
