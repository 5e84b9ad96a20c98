"""Files out of a ``.tgz`` archive from outside, without unpacking it to disk.

Source of the format: POSIX.1-2001, "pax", and the GNU long names. The headers are taken apart here
because a general reader holds what they announce: attributes of thousands of bytes for every file,
or maps of holes without end. Here a file has a path, a size and its content, and everything else is
passed over or refused.
"""

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from wemem.errors import InputError
from wemem.files.input_files import open_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Visit = Callable[[PurePosixPath, IO[bytes]], None]

BLOCK = 512
#: Bytes of a header that holds a long path or further attributes.
HEADER_LIMIT = 2**16
#: Bytes of a path within an archive, and files and folders of one; CINIC-10 has 270,033 of them.
PATH_LIMIT, ENTRY_LIMIT = 255, 2**19

FILE, OLD_FILE, CONTIGUOUS, FOLDER = b"0", b"\0", b"7", b"5"
PAX, GLOBAL_PAX, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"


def walk_tgz(path: Path, visit: Visit, *, size_limit: int) -> None:
    """Call ``visit`` with the path and the content of every file in a gzip-compressed tar archive,
    in its order.

    The archive is read once from front to back, and no further than ``size_limit``; nothing but
    what ``visit`` keeps stays in memory. An archive that would write outside its folder is refused,
    although nothing is written here.

    Args:
        path: the archive.
        visit: gets a path such as ``cifar-10-batches-bin/test_batch.bin`` (a leading ``./`` does
            not matter) and a stream that is good until it returns.
        size_limit: bytes of the unfolded archive.

    Raises:
        InputError: no such file, a damaged archive, one that is too large, or one that holds links,
            devices or paths that leave it; and what ``visit`` raises.
    """
    with open_file(path, "a .tgz archive") as raw, _damage_on_one_line(path), gzip.GzipFile(fileobj=raw) as file:
        unfolded = _Unfolded(file, path, size_limit)
        for place, stream in _files(unfolded, path):
            visit(place, io.BufferedReader(stream))
        while unfolded.read(HEADER_LIMIT):  # to the very end, where gzip's checksum stands
            pass


@contextmanager
def _damage_on_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (EOFError, ValueError, OverflowError, zlib.error, gzip.BadGzipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected a .tgz archive, got a damaged one ({reason}); get it again") from error


def read_tgz_file(path: Path, name: str, *, size_limit: int) -> bytes:
    """The content of the file ``name`` in an archive; see :func:`walk_tgz`.

    Raises:
        InputError: an archive that :func:`walk_tgz` refuses, or no such file in it.
    """
    contents: list[bytes] = []
    others: list[str] = []

    def visit(place: PurePosixPath, stream: IO[bytes]) -> None:
        if place == PurePosixPath(name):
            contents[:] = [stream.read()]
        elif len(others) < 20:
            others.append(str(place))

    walk_tgz(path, visit, size_limit=size_limit)
    if not contents:
        raise InputError(f"{path}: expected a file {name!r} in it, got {sorted(others)}; get the published archive")
    return contents[0]


def _files(unfolded: "_Unfolded", path: Path) -> Iterator[tuple[PurePosixPath, "_Content"]]:
    """Path and content of each file, once its header is known to be harmless."""
    entries, name, size = 0, None, None
    while header := unfolded.block():
        kind, announced = header[156:157], _number(header[124:136])
        if kind in (PAX, GLOBAL_PAX, LONG_NAME, LONG_LINK):
            if announced > HEADER_LIMIT:
                raise ValueError(f"a header of {announced} bytes")
            content = unfolded.content(announced)
            if kind == LONG_NAME:
                name = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif kind == PAX:
                name, size = _attributes(content, name, size)
            continue
        entries += 1
        if entries > ENTRY_LIMIT:
            raise InputError(f"{path}: expected an archive of at most {ENTRY_LIMIT:,} files, got more; get it again")
        place = _harmless(path, kind, _name(header) if name is None else name)
        stream = _Content(unfolded, announced if size is None else size)
        if kind != FOLDER and not _name(header).endswith("/"):
            yield place, stream
        stream.skip()
        name, size = None, None


def _harmless(path: Path, kind: bytes, name: str) -> PurePosixPath:
    """The path of a plain file or folder that stays inside the archive."""
    place = PurePosixPath(name)
    plain = kind in (FILE, OLD_FILE, CONTIGUOUS, FOLDER)
    if not plain or place.is_absolute() or ".." in place.parts or "\0" in name:
        raise InputError(
            f"{path}: expected plain files within the archive, got {name[:PATH_LIMIT]!r}, which is a link, a device or "
            "outside of it; do not use this archive"
        )
    if len(name) > PATH_LIMIT:
        raise ValueError(f"a path of {len(name)} characters")
    return place


def _name(header: bytes) -> str:
    """The path in a header itself, with the prefix that POSIX headers may have."""
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345] != 0:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    r"""An octal number, or one in base 256 where the first bit says so.

    >>> _number(b"00000001750\0"), _number(b"\x80" + bytes(9) + b"\x01\x02")
    (1000, 258)
    """
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.split(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", text):
        raise ValueError("a size that is no number")
    return int(text or b"0", 8)


def _attributes(content: bytes, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    """Path and size out of the lines ``LENGTH KEY=VALUE`` of a pax header, where it has them."""
    while content:
        length, _, _ = content.partition(b" ")
        if not (length.isdigit() and len(length) <= 6 and len(length) < int(length) <= len(content)):
            raise ValueError("a damaged pax header")
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        content = content[int(length) :]
        if key.startswith(b"GNU.sparse"):
            raise ValueError("a file with holes")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        if key == b"size":
            if not (value.isdigit() and len(value) <= 18):
                raise ValueError("a size that is no number")
            size = int(value)
    return name, size


class _Unfolded:
    """The unfolded archive, which ends with an error where it is longer than it may be."""

    def __init__(self, file: gzip.GzipFile, path: Path, limit: int) -> None:
        self.file, self.path, self.limit, self.left = file, path, limit, limit

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise InputError(f"{self.path}: expected an archive of at most {self.limit} bytes, got more; get it again")
        return content

    def block(self) -> bytes:
        """The next header; nothing at the end of the archive."""
        header = self.read(BLOCK)
        if not header.strip(b"\0"):
            return b""
        if len(header) < BLOCK:
            raise EOFError("it ends too early")
        # the checksum counts its own field as spaces
        checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if _number(header[148:156]) != checksum:
            raise ValueError("a header with a wrong checksum")
        return header

    def content(self, size: int) -> bytes:
        """The content of a short entry, which is padded to whole blocks."""
        padded = self.read(-(-size // BLOCK) * BLOCK)
        if len(padded) < size:
            raise EOFError("it ends too early")
        return padded[:size]


class _Content(io.RawIOBase):
    """The content of one file of the archive, as far as it is read."""

    def __init__(self, unfolded: _Unfolded, size: int) -> None:
        self.unfolded, self.left, self.padding = unfolded, size, -size % BLOCK

    def readable(self) -> bool:
        """True: the stream can be read."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill a buffer with what comes next.

        Raises:
            EOFError: the archive ends before the file does.
        """
        view = memoryview(buffer)
        content = self.unfolded.read(min(len(view), self.left))
        if not content and self.left and len(view):
            raise EOFError("it ends too early")
        view[: len(content)] = content
        self.left -= len(content)
        return len(content)

    def skip(self) -> None:
        """Read on to the next header."""
        buffer = bytearray(min(self.left, HEADER_LIMIT))
        while self.left:
            self.readinto(buffer)
        self.unfolded.read(self.padding)
