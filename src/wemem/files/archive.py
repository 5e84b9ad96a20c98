"""Files out of a ``.tgz`` archive that nobody vouches for, without unpacking it to disk."""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from wemem.errors import InputError

Visit = Callable[[PurePosixPath, IO[bytes]], None]

#: Bytes of a header that holds a long name or further attributes; tarfile reads one whole.
HEADER_LIMIT = 2**16


def walk_tgz(path: Path, visit: Visit, *, size_limit: int) -> None:
    """Call ``visit`` with the place and the content of every file in a gzip-compressed tar archive, in its order.

    The archive is read once from front to back, and no further than ``size_limit``; nothing but what ``visit`` keeps
    stays in memory. An archive that would write outside its folder is refused, although nothing is written here.

    Args:
        path: the archive.
        visit: gets a place such as ``cifar-10-batches-bin/test_batch.bin`` (a leading ``./`` does not matter) and a
            stream that is good until it returns.
        size_limit: bytes of the unfolded archive.

    Raises:
        InputError: no such file, a damaged archive, one that is too large, or one that holds links, devices or paths
            that leave it; and what ``visit`` raises.
    """
    try:
        with gzip.open(path) as file:
            bounded = _Bounded(file, path, size_limit)
            # a stream: tarfile asks for nothing but read()
            with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_Header) as archive:  # type: ignore[call-overload]
                for member in archive:
                    place = require_harmless(path, member)
                    stream = archive.extractfile(member)
                    if stream is not None:
                        visit(place, stream)
            while bounded.read(HEADER_LIMIT):  # to the very end, where gzip's checksum stands
                pass
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"expected a .tgz archive at {path}, got no such file; give the path of one") from error
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: expected a .tgz archive, got a damaged one ({reason}); get it again") from error


def read_tgz_member(path: Path, name: str, *, size_limit: int) -> bytes:
    """The content of the regular file ``name`` in an archive; see :func:`walk_tgz`.

    Raises:
        InputError: what :func:`walk_tgz` refuses, or no such member.
    """
    found: list[bytes] = []
    others: list[str] = []

    def visit(place: PurePosixPath, stream: IO[bytes]) -> None:
        if place == PurePosixPath(name):
            found.append(stream.read())
        else:
            others.append(str(place))

    walk_tgz(path, visit, size_limit=size_limit)
    if not found:
        raise InputError(f"{path}: expected a file {name!r} in it, got {sorted(others)}")
    return found[-1]


def require_harmless(path: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """The member's place within the archive, if it is a plain file or folder that stays inside."""
    place = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()) or member.issparse() or place.is_absolute() or ".." in place.parts:
        raise InputError(
            f"{path}: expected plain files within the archive, got {member.name!r}, which is a link, a device or "
            "outside of it; do not use this archive"
        )
    return place


class _Header(tarfile.TarInfo):
    """A header whose announced size cannot make tarfile hold it in memory: only files may be long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if not header.isreg() and header.size > HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class _Bounded:
    """The unfolded archive, which ends with an error where it is longer than it may be."""

    def __init__(self, file: gzip.GzipFile, path: Path, limit: int) -> None:
        self.file, self.path, self.limit, self.left = file, path, limit, limit

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise InputError(f"{self.path}: expected an archive of at most {self.limit} bytes, got more; get it again")
        return content
