"""One file out of a ``.tgz`` archive that nobody vouches for, without unpacking it to disk."""

import gzip
import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from wemem.errors import InputError


def read_tgz_member(path: Path, name: str, *, size_limit: int) -> bytes:
    """The content of the regular file ``name`` in a gzip-compressed tar archive.

    The archive is unfolded in memory, and no further than ``size_limit``: tar headers can announce sizes that tarfile
    would allocate, and here it finds nothing behind them. An archive that would write outside its folder is refused
    as a whole, although nothing is written here.

    Args:
        path: the archive.
        name: the member, such as ``"bangkok"``; a leading ``./`` in the archive does not matter.
        size_limit: bytes of the unfolded archive.

    Raises:
        InputError: no such file, a damaged archive, one that is too large, one that holds links, devices or paths
            that leave it, or no such member.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(size_limit + 1)
        if len(content) > size_limit:
            raise InputError(f"{path}: expected an archive of at most {size_limit} bytes, got more; get it again")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = {require_harmless(path, member): member for member in archive.getmembers()}
            wanted = members.get(PurePosixPath(name))
            stream = archive.extractfile(wanted) if wanted is not None else None
            if wanted is None or stream is None or wanted.size > size_limit:
                raise InputError(f"{path}: expected a file {name!r} in it, got {sorted(map(str, members))}")
            data = stream.read(wanted.size)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"expected a .tgz archive at {path}, got no such file; give the path of one") from error
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: expected a .tgz archive, got a damaged one ({reason}); get it again") from error
    if len(data) < wanted.size:
        raise InputError(f"{path}: expected {wanted.size} bytes of {name!r}, got {len(data)}; get the archive again")
    return data


def require_harmless(path: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """The member's place within the archive, if it is a plain file or folder that stays inside."""
    place = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()) or member.issparse() or place.is_absolute() or ".." in place.parts:
        raise InputError(
            f"{path}: expected plain files within the archive, got {member.name!r}, which is a link, a device or "
            "outside of it; do not use this archive"
        )
    return place
