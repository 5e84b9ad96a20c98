"""A folder of entries, which any number of processes may use at once.

An entry is the folder ``<root>/<stage>/<two digits>/<key>``. It is written in ``<root>/tmp`` and
renamed when it is complete, so that it exists in full or not at all. A piece of work that a process
holds is a locked byte of a file in ``<root>/claims``. The operating system releases the lock when
the process ends, in whatever way.
"""

import errno
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from glob import iglob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wemem.files.locks import LOCKS, share_lock, try_lock, try_lock_byte
from wemem.store.backend import Address, Backend, Listed
from wemem.store.entry import META, Entry, check_entry, read_entry, sync, write_entry
from wemem.store.key import TMP, Key

CLAIMS = "claims"


class FolderBackend(Backend):
    """A folder of entries.

    Args:
        root: the folder. It is created if missing; remnants of killed processes are removed.

    Raises:
        OSError: the folder cannot be written.
    """

    patience = 0.2
    at_once = 1
    remedy = "free space there, or keep the store elsewhere with --store"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sweep()

    @property
    def place(self) -> str:
        return str(self.root)

    def read(self, key: Key) -> Entry | None:
        address = Address.of(key)
        return read_entry(self.folder(address), key.origin) if self.exists(address) else None

    def write(self, key: Key, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Entry | None:
        with self.scratch() as scratch:
            write_entry(scratch / key, key.origin, arrays, meta)
            entry = read_entry(scratch / key, key.origin)
            return entry if self.keep(scratch / key, Address.of(key)) else None

    def keep(self, complete: Path, address: Address) -> bool:
        """Move a complete entry to its place; False if there is one, which stays."""
        folder = self.folder(address)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not _moved(complete, folder):
            return False
        sync(folder.parent)
        return True

    def exists(self, address: Address) -> bool:
        return os.path.lexists(self.folder(address))

    def remove(self, address: Address) -> None:
        with self.scratch() as scratch, suppress(FileNotFoundError, NotADirectoryError):
            self.folder(address).rename(scratch / address.key)

    def present(self, keys: Collection[Key]) -> frozenset[Key]:
        return frozenset(key for key in keys if (self.folder(Address.of(key)) / META).is_file())

    def forget(self, keys: Collection[Key]) -> None:
        """A folder has no copies."""

    def check(self, address: Address) -> None:
        check_entry(self.folder(address), address.key)

    def listed(self) -> Iterator[Listed]:
        for name in iglob("*/*/*", root_dir=self.root):  # noqa: PTH207 (Path.glob fails where a folder vanishes)
            folder = self.root / name
            address = Address(folder.parts[-3], folder.name)
            if folder == self.folder(address) and address.stage not in (TMP, CLAIMS):
                with suppress(FileNotFoundError, NotADirectoryError):  # another process has removed it
                    files = {path.name: path.lstat() for path in folder.iterdir()}
                    latest = max((one.st_mtime for one in files.values()), default=folder.lstat().st_mtime)
                    size = sum(one.st_size for one in files.values())
                    yield Listed(address, size, datetime.fromtimestamp(latest, UTC), META in files)

    def size(self) -> int:
        total = 0
        for folder, _, files in os.walk(self.root):
            for name in files:
                with suppress(FileNotFoundError):  # another process is at work
                    total += Path(folder, name).lstat().st_size
        return total

    @contextmanager
    def claimed(self, job: Key, numbers: Sequence[int]) -> Iterator[int | None]:
        folder = self.root / CLAIMS
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / job, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield next((number for number in numbers if _locked(descriptor, number)), None)
        finally:
            os.close(descriptor)

    def folder(self, address: Address) -> Path:
        """The folder of an entry."""
        return self.root / address.path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for one call, safe from sweeps and removed afterwards."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            with suppress(OSError):  # a file system without locks has no sweeps either
                share_lock(lock.fileno())
            (self.root / TMP).mkdir(exist_ok=True)
            with TemporaryDirectory(dir=self.root / TMP, ignore_cleanup_errors=True) as scratch:
                yield Path(scratch)

    def _sweep(self) -> None:
        """Remove remnants of killed calls, unless a call holds the lock; killed ones do not."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock, suppress(OSError):
            if LOCKS:
                try_lock(lock.fileno())
                shutil.rmtree(self.root / TMP, ignore_errors=True)


def _moved(source: Path, target: Path) -> bool:
    """Rename a folder; False if the target exists."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False
    return True


def _locked(descriptor: int, number: int) -> bool:
    try:
        try_lock_byte(
            descriptor, number
        )  # without locks processes may compute a piece twice; the store keeps one result
    except OSError:
        return False
    return True
