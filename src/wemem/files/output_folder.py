"""Output directories: one command at a time, and never an old result beside new files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wemem.errors import InputError
from wemem.files.atomic import require_folder
from wemem.files.input_files import shown
from wemem.files.locks import LOCKS, try_lock


@contextmanager
def output_folder(out: str | Path) -> Iterator[Path]:
    """Hold an output directory for one command; it is not created yet.

    The lock is a file beside the directory, so that a command that is refused leaves no directory
    behind. The system lets go of it however the process ends. On Windows, and on a file system
    without locks, nothing is locked.

    Args:
        out: the directory as the user gave it.

    Yields:
        The path of the directory, with ``~`` expanded.

    Raises:
        InputError: a directory that cannot be written (:func:`~wemem.files.atomic.require_folder`),
            or one that another command is writing to.
    """
    folder = require_folder(out)
    place = folder.absolute().with_name(f".{folder.absolute().name}.lock")
    number = _lock(place, folder)
    try:
        yield folder
    finally:
        if number is not None:
            with suppress(OSError):
                place.unlink()
            os.close(number)


def _lock(place: Path, folder: Path) -> int | None:
    """The open and locked file, or None where the system has no locks.

    The holder removes the file when it is done. Whoever has then locked the removed file tries
    again.
    """
    if not LOCKS:
        return None
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError:
            return None  # a fault of the place is reported when the first file is written
        try:
            try_lock(number)
            if _is_file(place, number):
                return number
            os.close(number)
        except BlockingIOError:
            os.close(number)
            raise InputError(
                f"expected an output directory that no other command is writing to, got {shown(folder)}; wait for that "
                "command to end, or choose another --out"
            ) from None
        except OSError:
            os.close(number)
            return None


def _is_file(place: Path, number: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(place.stat(), os.fstat(number))
    return False
