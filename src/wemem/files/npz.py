"""Arrays out of a ``.npz`` file that nobody vouches for."""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from wemem.errors import InputError
from wemem.files.memory_limit import require_memory

Array = np.ndarray[Any, np.dtype[Any]]

HEADER_BYTES = 16_384
HEADER = re.compile(
    r"\{ ?'descr': ?'(?P<type>[^']{1,20})', ?'fortran_order': ?(?:True|False), ?'shape': ?"
    r"\((?P<shape>(?:\d{1,18}, ?){0,64}(?:\d{1,18})?)\),? ?\}\s*",
    re.ASCII,
)
NUMBERS = re.compile(r"[<>|=]?([iu][1248]|f[248]|b1)")
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path, names: Sequence[str], *, limit: int) -> list[Array]:
    """The arrays ``names`` of a file that ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

    Nothing is unpickled. Every array's declared shape and type are held against the declared size of its zip entry,
    and their sum against ``limit``, before any array is allocated: a small file that unfolds to a huge one costs
    nothing but the error.

    Args:
        path: the file.
        names: which arrays.
        limit: bytes that the arrays may take together, each as it is stored and once more as float32.

    Raises:
        InputError: no such file or array, a damaged file, arrays that are not numbers or do not fit.
    """
    try:
        if not path.is_file():
            raise InputError(f"expected a .npz file at {path}, got no such file; give the path of one")
        with zipfile.ZipFile(path) as archive:
            need = 0
            for name in names:
                shape, dtype = declared(archive, name, str(path))
                need += math.prod(shape) * (dtype.itemsize + 4)
            require_memory(need, limit, str(path))
            return [read_member(archive, name) for name in names]
    except InputError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: expected a whole .npz file, got a damaged one ({reason}); write it again") from error


def declared(archive: zipfile.ZipFile, name: str, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one array, from its header alone, once they agree with the size of its zip entry."""
    arrays = sorted(file.removesuffix(".npy") for file in archive.namelist() if file.endswith(".npy"))
    if name not in arrays:
        raise InputError(
            f"{path}: expected an array {name!r}, got {arrays[:20]}; name the arrays to read with features and label"
        )
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: expected arrays as numpy.savez writes them, got another compression; write it again")
    with archive.open(entry) as stream:
        start, header = npy_header(stream.read(HEADER_BYTES))
    stated = HEADER.fullmatch(header)
    if stated is None or not NUMBERS.fullmatch(stated["type"]):
        raise InputError(
            f"{path}: expected plain numbers in {name!r}, got {stated['type'] if stated else header[:60].strip()!r}; "
            "convert them first, nothing is unpickled"
        )
    dtype, shape = np.dtype(stated["type"]), tuple(int(n) for n in re.findall(r"\d+", stated["shape"]))
    if start + len(header) + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise InputError(
            f"{path}: expected {name!r} to hold the {shape} {dtype} that it declares, got {entry.file_size} bytes; "
            "the file is damaged, write it again"
        )
    return shape, dtype


def npy_header(content: bytes) -> tuple[int, str]:
    """Where the header of an .npy file starts, and its text (NumPy enhancement proposal 1).

    It is taken apart here because NumPy's own reader evaluates it as Python, and allocates its declared length first.

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
    """One array whose header has been checked."""
    with archive.open(f"{name}.npy") as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        stream.read(1)  # reaching the end is what makes zipfile check the CRC
        return array
