"""Arrays out of a MATLAB 5 ``.mat`` file from outside.

Source of the format: The MathWorks, "MAT-File Format", level 5. Real arrays of numbers are read,
plain or compressed, in little-endian order. The file is parsed here because a general reader
believes the sizes that it declares.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from wemem.errors import InputError
from wemem.files.input_files import open_file
from wemem.files.memory_limit import require_memory

Array = np.ndarray[Any, np.dtype[Any]]

NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
MATRIX, COMPRESSED = 14, 15
CHUNK = 2**16


class Readable(Protocol):
    """A stream that returns the next ``size`` bytes, or fewer at its end."""

    def read(self, size: int, /) -> bytes: ...


def read_mat(path: Path, names: Sequence[str], *, limit: int) -> list[Array]:
    """Read arrays from a file.

    An array's declared dimensions are checked against the declared length of its data, and their
    sum against ``limit``, before anything is allocated. A compressed array is unfolded no further
    than that.

    Args:
        path: the path of the file.
        names: the names of the arrays to read.
        limit: the largest number of bytes for all arrays, each as it is stored and once more as
            float32.

    Raises:
        InputError: no such file or array, another or damaged format, or arrays that do not fit.
    """
    arrays: dict[str, Array] = {}
    try:
        with open_file(path, "a .mat file") as file:
            header = file.read(128)
            if len(header) < 128 or header[124:128] != b"\x00\x01IM":
                raise InputError(f"{path}: expected a MATLAB 5 file, got another format; save it with -v6 or -v7")
            while tag := file.read(8):
                kind, length = struct.unpack("<II", tag)
                end = file.tell() + length
                matrix: Readable = _Unfolded(file, length) if kind == COMPRESSED else file
                if kind == COMPRESSED:
                    kind, _ = struct.unpack("<II", _exactly(matrix, 8))
                if kind == MATRIX:
                    name, value = _matrix(matrix, names, path, limit)
                    if value is not None:
                        arrays[name] = value
                        limit -= value.size * (value.dtype.itemsize + 4)
                file.seek(end)
    except InputError:
        raise
    except (EOFError, ValueError, OverflowError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split())[:200] or "it ends too early"
        raise InputError(f"{path}: expected a whole .mat file, got a damaged one ({reason}); get it again") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(
            f"{path}: expected an array {missing[0]!r}, got {sorted(arrays)}; name the arrays of the published file"
        )
    return [arrays[name] for name in names]


def _matrix(stream: Readable, names: Sequence[str], path: Path, limit: int) -> tuple[str, Array | None]:
    """Name and values of one array; None for the values of an array that is not in ``names``."""
    (flags,) = struct.unpack_from("<I", _short(stream, 8))
    dims = np.frombuffer(_short(stream, 4 * 8), "<i4").tolist()
    name = _short(stream, 64).decode("latin-1")
    if name not in names:
        return name, None
    kind, length, small = _tag(stream)
    if flags & 0x0800 or kind not in NUMBERS or min(dims, default=0) < 0:
        raise InputError(f"{path}: expected {name!r} to hold real numbers, got something else; convert it first")
    dtype = np.dtype(NUMBERS[kind])
    if math.prod(dims) * dtype.itemsize != length:
        raise InputError(f"{path}: expected {name!r} to hold the {dims} that it declares, got {length} bytes")
    require_memory(length + 4 * math.prod(dims), limit, str(path))
    content = small if small is not None else _exactly(stream, length)
    return name, np.frombuffer(content, dtype, math.prod(dims)).reshape(dims, order="F")


def _tag(stream: Readable) -> tuple[int, int, bytes | None]:
    """Type and length of an element, and its content where that stands in the tag itself."""
    tag = _exactly(stream, 8)
    kind, length = struct.unpack("<II", tag)
    return (kind & 0xFFFF, kind >> 16, tag[4:]) if kind >> 16 else (kind, length, None)


def _short(stream: Readable, most: int) -> bytes:
    """Content of a small element, which is padded to 8 bytes."""
    _, length, small = _tag(stream)
    if length > most:
        raise EOFError(f"an element of {length} bytes where at most {most} belong")
    return small[:length] if small is not None else _exactly(stream, -(-length // 8) * 8)[:length]


def _exactly(stream: Readable, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        part = stream.read(min(missing, 2**24))
        if not part:
            raise EOFError("it ends too early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


class _Unfolded:
    """A zlib stream of ``length`` bytes that is unfolded only as far as it is read."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file, self.left, self.inflate, self.tail = file, length, zlib.decompressobj(), b""

    def read(self, size: int, /) -> bytes:
        while not self.inflate.eof:
            if not self.tail:
                self.tail = self.file.read(min(CHUNK, self.left))
                self.left -= len(self.tail)
            ended = not self.tail
            content = self.inflate.decompress(self.tail, size)
            self.tail = self.inflate.unconsumed_tail
            if content or ended:
                return content
        return b""
