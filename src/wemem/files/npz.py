"""Arrays out of a ``.npz`` file from outside."""

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from wemem.errors import InputError
from wemem.files.input_files import open_file
from wemem.files.memory_limit import require_memory

Array = np.ndarray[Any, np.dtype[Any]]

HEADER_BYTES = 16_384
#: Bytes of a zip file's list of entries, and from its end where that list is announced.
DIRECTORY_BYTES, END_BYTES = 2**20, 22 + 2**16
HEADER = re.compile(
    r"\{ ?'descr': ?'(?P<type>[^']{1,20})', ?'fortran_order': ?(?:True|False), ?'shape': ?"
    r"\((?P<shape>(?:\d{1,18}, ?){0,64}(?:\d{1,18})?)\),? ?\}\s*",
    re.ASCII,
)
NUMBERS = re.compile(r"[<>|=]?([iu][1248]|f[248]|b1)")
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path, names: Sequence[str], *, limit: int) -> list[Array]:
    """Read arrays from a file of ``numpy.savez`` or ``numpy.savez_compressed``.

    Nothing is unpickled. Every array's declared shape and type are checked against the declared
    size of its zip entry, and their sum against ``limit``, before any array is allocated. A small
    file that unfolds to a huge one therefore costs no memory.

    Args:
        path: the path of the file.
        names: the names of the arrays to read.
        limit: the largest number of bytes for all arrays, each as it is stored and once more as
            float32.

    Raises:
        InputError: no such file or array, a damaged file, arrays that are not numbers or do not
            fit.
    """
    try:
        with open_file(path, "a .npz file") as file:
            require_short_directory(file)
            archive = zipfile.ZipFile(file)
            need = 0
            for name in names:
                shape, dtype = declared(archive, name, str(path))
                need += math.prod(shape) * (dtype.itemsize + 4)
            require_memory(need, limit, str(path))
            return [read_member(archive, name) for name in names]
    except InputError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: expected a whole .npz file, got a damaged one ({reason}); write it again") from error


def larger_than(path: Path, names: Sequence[str], limit: int) -> bool:
    """True if arrays take more than ``limit`` bytes and stand in the file uncompressed.

    Raises:
        InputError: no such file or array, or a damaged file.
    """
    try:
        with open_file(path, "a .npz file") as file:
            require_short_directory(file)
            archive = zipfile.ZipFile(file)
            sizes = [declared(archive, name, str(path)) for name in names]
            stored = archive.getinfo(f"{names[0]}.npy").compress_type == zipfile.ZIP_STORED
    except InputError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: expected a whole .npz file, got a damaged one ({reason}); write it again") from error
    return stored and sum(math.prod(shape) * (dtype.itemsize + 4) for shape, dtype in sizes) > limit


def require_short_directory(file: BinaryIO) -> None:
    """Refuse a zip file whose list of entries is longer than any set of arrays; zipfile reads it
    whole.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - END_BYTES))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    sizes = [int.from_bytes(tail[at + 12 : at + 16], "little")] if at >= 0 else []
    if tail[max(0, at - 20) :][:4] == b"PK\x06\x07":  # the locator of a zip64 record, which counts instead
        file.seek(min(length, int.from_bytes(tail[at - 12 : at - 4], "little")))
        sizes.append(int.from_bytes(file.read(48)[40:], "little"))
    if any(DIRECTORY_BYTES < size != 0xFFFFFFFF for size in sizes):
        raise ValueError("more entries than arrays need")


def declared(archive: zipfile.ZipFile, name: str, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one array from its header alone, checked against the size of its zip entry."""
    arrays = sorted(file.removesuffix(".npy") for file in archive.namelist() if file.endswith(".npy"))
    if name not in arrays:
        raise InputError(
            f"{path}: expected an array {name!r}, got {arrays[:20]}; name the arrays to read with features and label"
        )
    if arrays.count(name) > 1:
        raise InputError(f"{path}: expected one array {name!r}, got {arrays.count(name)} of that name; write it again")
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: expected arrays as numpy.savez writes them, got another compression; write it again")
    with archive.open(entry) as stream:
        start, header = npy_header(stream.read(HEADER_BYTES))
    shape, dtype = _stated(header, name, path)
    if start + len(header) + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise InputError(
            f"{path}: expected {name!r} to hold the {shape} {dtype} that it declares, got {entry.file_size} bytes; "
            "the file is damaged, write it again"
        )
    return shape, dtype


def declared_npy(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype[Any], str, int]:
    """Shape, type, header and start of the array of an ``.npy`` file, checked against its size.

    Raises:
        InputError: a damaged file, or an array of other things than numbers.
    """
    try:
        start, header = npy_header(file.read(HEADER_BYTES))
    except (ValueError, struct.error) as error:
        raise InputError(
            f"{path}: expected a .npy file, got another one ({error}); write it with numpy.save"
        ) from error
    shape, dtype = _stated(header, path.name, str(path))
    size = file.seek(0, os.SEEK_END)
    if start + len(header) + math.prod(shape) * dtype.itemsize != size:
        raise InputError(f"{path}: expected the {shape} {dtype} that it declares, got {size} bytes; write it again")
    return shape, dtype, header, start + len(header)


def read_npy(path: Path, *, limit: int) -> Array:
    """Read the array of an ``.npy`` file.

    Raises:
        InputError: a damaged file, other things than numbers, or more than ``limit`` bytes.
    """
    with open_file(path, "a .npy file") as file:
        shape, dtype, _, _ = declared_npy(file, path)
        require_memory(math.prod(shape) * (dtype.itemsize + 4), limit, str(path))
        file.seek(0)
        array: Array = npy.read_array(file, allow_pickle=False)
        return array


def _stated(header: str, name: str, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type in the header of an .npy file, which must be those of plain numbers."""
    stated = HEADER.fullmatch(header)
    if stated is None or not NUMBERS.fullmatch(stated["type"]):
        raise InputError(
            f"{path}: expected plain numbers in {name!r}, got {stated['type'] if stated else header[:60].strip()!r}; "
            "convert them first, nothing is unpickled"
        )
    return tuple(int(n) for n in re.findall(r"\d+", stated["shape"])), np.dtype(stated["type"])


def npy_header(content: bytes) -> tuple[int, str]:
    """Start and text of the header of an .npy file (NumPy enhancement proposal 1).

    It is parsed here because NumPy's own reader evaluates it as Python, and allocates its declared
    length first.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.zeros((3, 4), np.float32))
    >>> start, header = npy_header(file.getvalue())
    >>> start, header.strip()
    (10, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }")
    """
    start, length = (10, "<H") if content[6:7] == b"\x01" else (12, "<I")
    if content[:6] != b"\x93NUMPY" or len(content) < start:
        raise ValueError("no .npy header")
    (size,) = struct.unpack(length, content[8:start])
    return start, content[start : start + size].decode("latin-1")


def read_member(archive: zipfile.ZipFile, name: str) -> Array:
    """Read one array whose header has been checked."""
    with archive.open(f"{name}.npy") as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        stream.read(1)  # reaching the end is what makes zipfile check the CRC
        return array
