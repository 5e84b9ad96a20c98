"""A stored result on disk: a folder of ``data.safetensors``, the arrays, and ``meta.json``, all else.

It is verified to the byte before anything in it is believed, and nothing is unpickled.
"""

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from wemem.errors import InputError
from wemem.files.hashing import file_sha256, sha256_of

META_LIMIT = 2**25  # bytes; more than any stage has to tell
#: What reading files that are not as they were written can raise. Other failures are the disk's.
DAMAGE = (
    FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
    SafetensorError,
)  # fmt: skip


class DamagedError(Exception):
    """An entry is not what was written."""


class StoredArrays(Mapping[str, np.ndarray]):
    """Arrays of a file, each read when it is asked for. The file may be removed meanwhile."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, "np")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in set(self):
            raise KeyError(name)
        return np.asarray(self._file.get_tensor(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


@dataclass(frozen=True, eq=False)
class Entry:
    """A stored result.

    Args:
        arrays: by name, equal to the bit to what was written.
        meta: what JSON made of the rest; a tuple is a list now.
    """

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]


def writable(name: str, array: np.ndarray | Tensor) -> np.ndarray:
    """An array as safetensors must have it: in native byte order, and contiguous, or it would silently write another.

    Raises:
        InputError: neither booleans nor numbers of at most 64 bits.
    """
    own = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if own.dtype.kind not in "biuf" or own.dtype.itemsize > 8:
        raise InputError(f"expected booleans or numbers of at most 64 bits in {name!r}, got {own.dtype}; convert it")
    return own.astype(own.dtype.newbyteorder("="), order="C", copy=False)


def write_entry(
    folder: Path, origin: Mapping[str, Any], arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Make the folder, safe from a power cut on return.

    Args:
        folder: where nothing is yet.
        origin: everything that determines the result.
        arrays: as :func:`writable` gives them.
        meta: JSON-able values.

    Raises:
        OSError, SafetensorError: the disk is full, or the folder cannot be written.
    """
    data, text = folder / "data.safetensors", folder / "meta.json"
    folder.mkdir()
    save_file(dict(arrays), data)
    told = {
        "origin": origin,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {"bytes": data.stat().st_size, "sha256": file_sha256(data)},
        "meta": json.loads(json.dumps(meta)),
    }
    text.write_text(json.dumps({"sha256": sha256_of(told), **told}, indent=1), "utf-8")
    shutil.copymode(text, data)  # safetensors lets nobody else read its files
    for path in (data, text, folder):
        sync(path)


def read_entry(folder: Path, origin: Mapping[str, Any]) -> Entry:
    """What :func:`write_entry` wrote for that origin.

    Raises:
        DamagedError: it wrote something else.
        OSError: the disk cannot be read.
    """
    data, text = folder / "data.safetensors", folder / "meta.json"
    try:
        if _plain_size(text) > META_LIMIT:
            raise ValueError("meta.json is too large")
        told = json.loads(text.read_bytes())
        if told.pop("sha256") != sha256_of(told):
            raise ValueError("meta.json was changed")
        if sha256_of(told["origin"]) != sha256_of(origin):
            raise ValueError("it belongs to another key")
        if told["data"] != {"bytes": _plain_size(data), "sha256": file_sha256(data)}:
            raise ValueError("data.safetensors was changed")
        return Entry(StoredArrays(data), told["meta"])
    except DAMAGE as error:
        raise DamagedError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def sync(path: Path) -> None:
    """Wait until the disk has the file, or the names in the folder."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain_size(path: Path) -> int:
    """Bytes of a plain file; nobody wrote a link or a device there."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a plain file")
    return status.st_size
