"""A stored result on disk: arrays in ``data.safetensors``, all else in ``meta.json``.

Every byte is verified before it is used, and nothing is unpickled.
"""

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from wemem.errors import InputError
from wemem.files.documents import JSON_LIMIT, parse_stored_json
from wemem.files.hashing import file_sha256, sha256_of
from wemem.files.input_files import read_bytes

#: The file of an entry that is written last and read first, and the file of its arrays.
META, DATA = "meta.json", "data.safetensors"
#: Errors from files that are not as they were written. Other errors are failures of the disk.
DAMAGE = (
    FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
    SafetensorError,
)  # fmt: skip


class DamagedError(Exception):
    """An entry differs from what was written."""


class StoredArrays(Mapping[str, np.ndarray]):
    """Arrays of a file, each read on access. The file may be removed meanwhile."""

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
        arrays: arrays by name, bit for bit as they were written.
        meta: other values, as JSON gives them back: a tuple is a list.
    """

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]


def writable(name: str, array: np.ndarray | Tensor) -> np.ndarray:
    """An array in native byte order and contiguous; of any other, safetensors writes wrong values.

    Raises:
        InputError: the values are neither booleans nor numbers of at most 64 bits.
    """
    copy = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if copy.dtype.kind not in "biuf" or copy.dtype.itemsize > 8:
        raise InputError(f"expected booleans or numbers of at most 64 bits in {name!r}, got {copy.dtype}; convert it")
    return copy.astype(copy.dtype.newbyteorder("="), order="C", copy=False)


def write_entry(
    folder: Path, origin: Mapping[str, Any], arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Write an entry, safe from a power cut on return.

    Args:
        folder: the folder of the entry, which does not exist yet.
        origin: everything that determines the result.
        arrays: arrays by name, from :func:`writable`.
        meta: JSON-able values.

    Raises:
        OSError, SafetensorError: the disk is full, or the folder cannot be written.
    """
    data, text = folder / DATA, folder / META
    folder.mkdir()
    save_file(dict(arrays), data)
    content = {
        "origin": origin,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {"bytes": data.stat().st_size, "sha256": file_sha256(data)},
        "meta": json.loads(json.dumps(meta)),
    }
    text.write_text(json.dumps({"sha256": sha256_of(content), **content}, indent=1), "utf-8")
    shutil.copymode(text, data)  # safetensors writes files that only their owner may read
    for path in (data, text, folder):
        sync(path)


def read_entry(folder: Path, origin: Mapping[str, Any]) -> Entry:
    """Read and verify the entry that :func:`write_entry` wrote for an origin.

    Raises:
        DamagedError: the folder holds anything else.
        InputError, OSError: the disk cannot be read.
    """
    data = folder / DATA
    with _damage():
        if _plain_size(folder / META) > JSON_LIMIT:
            raise ValueError(f"{META} is too large")
        content = parse_meta(read_bytes(folder / META, "the description of an entry", limit=JSON_LIMIT))
        if sha256_of(content["origin"]) != sha256_of(origin):
            raise ValueError("it belongs to another key")
        if content["data"] != {"bytes": _plain_size(data), "sha256": file_sha256(data)}:
            raise ValueError(f"{DATA} was changed")
        return Entry(StoredArrays(data), content["meta"])


def parse_meta(text: bytes) -> Mapping[str, Any]:
    """The content of ``meta.json``, without its own hash, which is verified.

    Raises:
        DamagedError: any other text.
    """
    with _damage():
        content = parse_stored_json(text, META)
        if content.pop("sha256") != sha256_of(content):
            raise ValueError(f"{META} was changed")
        return dict(content)


def check_entry(folder: Path, key: str) -> None:
    """Verify an entry of which the key is known and nothing else.

    Raises:
        DamagedError, InputError, OSError: as :func:`read_entry`.
    """
    with _damage():
        if _plain_size(folder / META) > JSON_LIMIT:
            raise ValueError(f"{META} is too large")
        origin = parse_meta(read_bytes(folder / META, "the description of an entry", limit=JSON_LIMIT))["origin"]
        if sha256_of(origin) != key:
            raise ValueError("it belongs to another key")
    read_entry(folder, origin)


@contextmanager
def _damage() -> Iterator[None]:
    """Turn the errors of files that are not as they were written into :class:`DamagedError`."""
    try:
        yield
    except InputError as error:  # a ValueError too
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError | NotADirectoryError):
            raise  # the disk fails; the entry may be whole
        raise DamagedError(" ".join(str(error).split())) from error
    except DAMAGE as error:
        raise DamagedError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain_size(path: Path) -> int:
    """Size of a plain file in bytes; a link or a device is refused."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a plain file")
    return status.st_size
