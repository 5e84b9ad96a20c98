"""A folder of results by key, which survives kills and serves many processes.

A killed run continues from its last stored stage, and studies share the stages that they have in
common. An entry is the folder ``<root>/<stage>/<two digits>/<key>``. It is written in
``<root>/tmp`` and renamed when it is complete, so that it exists in full or not at all. It is
verified at every look-up; a damaged entry is removed and computed again, and never used.
"""

import errno
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from wemem.errors import InputError
from wemem.files.input_files import user_path
from wemem.store.entry import DamagedError, Entry, read_entry, sync, writable, write_entry
from wemem.store.key import TMP, Key

if sys.platform != "win32":
    import fcntl


class Store:
    """A folder of entries that any number of processes may use at once.

    Args:
        root: the folder. It is created if missing; incomplete entries of killed processes are
            removed.
        warn: called with one line for every damaged entry.

    Raises:
        InputError: the folder cannot be written. Every method may raise this.
    """

    def __init__(self, root: Path, warn: Callable[[str], object] = warnings.warn) -> None:
        self.root, self._warn = user_path(root), warn
        with self._failing_on_one_line():
            self._sweep()

    def get(self, key: Key) -> Entry | None:
        """The entry of a key; None if there is none, or if it is damaged and was removed."""
        folder = self._folder(key)
        with self._failing_on_one_line():
            try:
                return read_entry(folder, key.origin) if os.path.lexists(folder) else None
            except DamagedError as error:
                if os.path.lexists(folder):  # if not, another process has just deleted it
                    self._warn(f"removed a damaged entry from the store, it is computed again: {folder} ({error})")
                    self.delete(key)
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
        folder = self._folder(key)
        with self._failing_on_one_line(), self._scratch() as scratch:
            write_entry(scratch / key, key.origin, native, meta)
            entry = read_entry(scratch / key, key.origin)
            folder.parent.mkdir(parents=True, exist_ok=True)
            while not _moved(scratch / key, folder):
                if (first := self.get(key)) is not None:
                    return first
            sync(folder.parent)
            return entry

    def delete(self, key: Key) -> None:
        """Remove the entry of a key, if there is one. A process that has read it keeps its arrays."""
        with self._failing_on_one_line(), self._scratch() as scratch, suppress(FileNotFoundError, NotADirectoryError):
            self._folder(key).rename(scratch / key)

    def size(self) -> int:
        """Bytes on disk."""
        total = 0
        for folder, _, files in os.walk(self.root):
            for name in files:
                with suppress(FileNotFoundError):  # another process is at work
                    total += Path(folder, name).lstat().st_size
        return total

    def _folder(self, key: Key) -> Path:
        return self.root.joinpath(key.origin["stage"], key[:2], key)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """An empty folder for one call, safe from sweeps and removed afterwards."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            if sys.platform != "win32":
                with suppress(OSError):  # a file system without locks has no sweeps either
                    fcntl.flock(lock, fcntl.LOCK_SH)
            (self.root / TMP).mkdir(exist_ok=True)
            with TemporaryDirectory(dir=self.root / TMP, ignore_cleanup_errors=True) as scratch:
                yield Path(scratch)

    def _sweep(self) -> None:
        """Remove remnants of killed calls, unless a call holds the lock; killed ones do not."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock, suppress(OSError):
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.root / TMP, ignore_errors=True)

    @contextmanager
    def _failing_on_one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError, DamagedError) as error:
            raise InputError(
                f"expected a store at {self.root} that can be read and written, got: {' '.join(str(error).split())}; "
                "free space there, or keep the store elsewhere with --store"
            ) from error


def _moved(source: Path, target: Path) -> bool:
    """Rename a folder; False if the target exists."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False
    return True
