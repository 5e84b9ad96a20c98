"""Every expensive stage of a study, kept under a hash of all that determines it.

A run that was killed goes on where it was, and studies share the stages they have in common. An entry is a folder
``<root>/<stage>/<two digits>/<key>`` of two files: ``data.safetensors``, the arrays, and ``meta.json``, all else. It is
written in ``<root>/tmp`` and renamed when it is whole, so that it is there or not; it is verified whenever it is looked
up, so that a damaged one is removed and computed again. Nothing is unpickled.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from wemem.errors import InputError
from wemem.study.canonical import environment, plain

if sys.platform != "win32":
    import fcntl

Arrays = Mapping[str, np.ndarray | Tensor]
Meta = Mapping[str, Any]
TMP = "tmp"
META_LIMIT = 2**26  # bytes; more than any stage has to tell
#: What reading files that are not as they were written can raise. Other failures are the disk's.
_DAMAGE = (
    FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
    SafetensorError,
)  # fmt: skip


class Key(str):
    """The SHA-256, in hexadecimal, of everything that determines a result; it remembers what that was."""

    origin: Mapping[str, Any]

    def __new__(cls, origin: Mapping[str, Any]) -> "Key":
        made = super().__new__(cls, _seal(origin))
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


class StoredArrays(Mapping[str, np.ndarray]):
    """Arrays of a file, each read when it is asked for. They outlive the file, as long as this does."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, "np")
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return np.asarray(self._file.get_tensor(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, eq=False)
class Entry:
    """A stored result: arrays by name, and what JSON made of the rest (a tuple is a list now)."""

    arrays: Mapping[str, np.ndarray]
    meta: Meta


class DamagedError(Exception):
    """An entry is not what was put."""


class Store:
    """A folder of entries that any number of processes may use at once.

    Args:
        root: the folder. It is made if it is not there; what killed processes left half-written is removed.
        warn: called with one line for every damaged entry.

    Raises:
        InputError: the folder cannot be written; every method may raise that.
    """

    def __init__(self, root: Path, warn: Callable[[str], object] = warnings.warn) -> None:
        self.root, self._warn = root, warn
        with self._failing_on_one_line():
            self._sweep()

    def get(self, key: Key) -> Entry | None:
        """The entry of that key, or None if there is none. A damaged one is removed, with a warning."""
        folder = self._folder(key)
        with self._failing_on_one_line():
            try:
                return _read(folder, key) if folder.exists() else None
            except DamagedError as error:
                self._warn(f"removed a damaged entry from the store, it will be computed again: {folder} ({error})")
                self.delete(key)
                return None

    def put(self, key: Key, arrays: Arrays, meta: Meta) -> Entry:
        """Store a result, whole or not at all. Where another process was faster, its entry stays and is returned.

        Args:
            key: of all that determines the result.
            arrays: booleans, integers and floats of at most 64 bits; they come back equal to the bit.
            meta: JSON-able values.
        """
        native = {name: _native(array, name) for name, array in arrays.items()}
        folder = self._folder(key)
        with self._failing_on_one_line(), self._scratch() as scratch:
            _write(scratch / key, key, native, meta)
            entry = _read(scratch / key, key)
            folder.parent.mkdir(parents=True, exist_ok=True)
            while not _moved(scratch / key, folder):
                if (first := self.get(key)) is not None:
                    return first
            _sync(folder.parent)
            return entry

    def delete(self, key: Key) -> None:
        """Remove the entry of that key, if there is one, all at once. Who holds it can still read it."""
        with self._failing_on_one_line(), self._scratch() as scratch, suppress(FileNotFoundError):
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
        """An empty folder for one call, which no sweep touches and which is gone afterwards."""
        (self.root / TMP).mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            if sys.platform != "win32":
                with suppress(OSError):  # a file system without locks, where nobody sweeps either
                    fcntl.flock(lock, fcntl.LOCK_SH)
            with TemporaryDirectory(dir=self.root / TMP, ignore_cleanup_errors=True) as scratch:
                yield Path(scratch)

    def _sweep(self) -> None:
        """Remove what is left of killed calls, unless another is under way: the killed have let go of the lock."""
        (self.root / TMP).mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock, suppress(OSError):
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for leftover in (self.root / TMP).iterdir():
                    shutil.rmtree(leftover)

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
    """Rename a folder; False if there is something in that place already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False
    return True


def _native(array: np.ndarray | Tensor, name: str) -> np.ndarray:
    """An array as safetensors must have it: contiguous, or it would silently write another; in native byte order."""
    plain = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
    if plain.dtype.kind not in "biuf" or plain.dtype.itemsize > 8:
        raise InputError(f"expected booleans or numbers of at most 64 bits in {name!r}, got {plain.dtype}; convert it")
    return plain.astype(plain.dtype.newbyteorder("="), order="C", copy=False)


def _write(folder: Path, key: Key, arrays: Mapping[str, np.ndarray], meta: Meta) -> None:
    """An entry, safe from a power cut on return."""
    folder.mkdir()
    data, text = folder / "data.safetensors", folder / "meta.json"
    save_file(dict(arrays), data)
    told = {
        "origin": key.origin,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {"bytes": data.stat().st_size, "sha256": _digest(data)},
        "meta": json.loads(json.dumps(meta)),
    }
    text.write_text(json.dumps({"sha256": _seal(told), **told}, indent=1), "utf-8")
    shutil.copymode(text, data)  # safetensors lets nobody else read its files
    for path in (data, text, folder):
        _sync(path)


def _read(folder: Path, key: Key) -> Entry:
    """An entry, if it is what was written for that key.

    Raises:
        DamagedError: it is not.
    """
    data, text = folder / "data.safetensors", folder / "meta.json"
    try:
        if not _plain_size(text) < META_LIMIT:
            raise ValueError("meta.json is too large")
        told = json.loads(text.read_bytes())
        if told.pop("sha256") != _seal(told) or Key(told["origin"]) != key:
            raise ValueError("meta.json was changed or belongs elsewhere")
        if told["data"] != {"bytes": _plain_size(data), "sha256": _digest(data)}:
            raise ValueError("data.safetensors was changed")
        return Entry(StoredArrays(data), told["meta"])
    except _DAMAGE as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def _plain_size(path: Path) -> int:
    """Bytes of a plain file; nobody put a link or a device there."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a plain file")
    return status.st_size


def _seal(told: Mapping[str, Any]) -> str:
    """SHA-256 over canonical JSON: keys sorted, floats by their shortest exact spelling."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until the disk has it."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
