"""The one way to files and folders that a user names: their content, or one line that says what is
wrong.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from wemem.errors import InputError

#: Characters of a path that a message shows.
SHOWN = 200
#: Opening a pipe must not wait for a writer, and a terminal must not become the one that controls
#: this process.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def user_path(path: str | Path) -> Path:
    r"""A path as a user writes it, with ``~`` expanded.

    Raises:
        InputError: an empty path, one with a NUL, one that the file system cannot encode, or an
            unknown home folder.

    >>> user_path("data/table.csv").as_posix()
    'data/table.csv'
    >>> user_path("table\0.csv")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected the path of a file or folder, got 'table\x00.csv' with a NUL character; remove it
    """
    text = str(path)
    if not text:
        raise InputError("expected the path of a file or folder, got an empty one; name a file")
    if "\0" in text:
        raise InputError(f"expected the path of a file or folder, got {text[:SHOWN]!r} with a NUL character; remove it")
    try:
        os.fsencode(text)
        return Path(text).expanduser()
    except (UnicodeError, RuntimeError) as error:
        raise InputError(
            f"expected the path of a file or folder, got {text[:SHOWN]!r} ({error}); write it out in full"
        ) from error


def shown(path: str | Path) -> str:
    """A path for a message, shortened in the middle where it is very long.

    >>> shown("a.csv"), len(shown("a" * 10_000))
    ('a.csv', 203)
    """
    text = str(path)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}"


def require_file(path: str | Path, kind: str) -> Path:
    """The path of a plain file that may be read, for libraries that open a file by its name.

    Args:
        path: the path as the user gave it.
        kind: a phrase for the file that is expected, such as ``"a study file"``.

    Raises:
        InputError: a file that :func:`open_file` refuses.
    """
    file = user_path(path)
    with open_file(file, kind):
        return file


@contextmanager
def open_file(path: str | Path, kind: str) -> Iterator[BufferedReader]:
    """Open a plain file for reading; a failure to read it inside the ``with`` block is an
    :class:`InputError` too.

    Args:
        path: the path as the user gave it.
        kind: a phrase for the file that is expected, such as ``"a study file"``.

    Raises:
        InputError: no such file, a folder, a pipe or a device, or a file that may not be read.
    """
    file = user_path(path)
    try:
        _require_plain(file.stat().st_mode, file, kind)
        with os.fdopen(os.open(file, FLAGS), "rb") as stream:
            _require_plain(os.fstat(stream.fileno()).st_mode, file, kind)  # it may have changed in between
            yield stream
    except OSError as error:
        raise unreadable(file, kind, error) from error


def read_bytes(path: str | Path, kind: str, *, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes; no more than that is read, whatever size it
    declares.

    Raises:
        InputError: a file that :func:`open_file` refuses, or a larger one.
    """
    with open_file(path, kind) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"expected {kind} of at most {limit:,} bytes at {shown(path)}, got more; give another file")
    return content


def read_text(path: str | Path, kind: str, *, limit: int) -> str:
    """The content of a UTF-8 file of at most ``limit`` bytes.

    Raises:
        InputError: a file that :func:`read_bytes` refuses, or one in another encoding.
    """
    try:
        return read_bytes(path, kind, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected {kind} in UTF-8 at {shown(path)}, got another encoding (byte {error.start}); save it as UTF-8"
        ) from error


def exists(path: str | Path, kind: str) -> bool:
    """True if there is a file or folder at a path.

    Raises:
        InputError: a path that cannot be looked at, such as one in a folder that may not be
            entered.
    """
    return _mode(path, kind) is not None


def is_folder(path: str | Path, kind: str) -> bool:
    """True if there is a folder at a path.

    Raises:
        InputError: a path that cannot be looked at, such as one in a folder that may not be
            entered.
    """
    mode = _mode(path, kind)
    return mode is not None and stat.S_ISDIR(mode)


def list_folder(path: str | Path, kind: str) -> list[Path]:
    """The entries of a folder, sorted by name.

    Raises:
        InputError: no such folder, or one that may not be read.
    """
    folder = user_path(path)
    try:
        return sorted(folder.iterdir())
    except NotADirectoryError as error:
        raise InputError(f"expected {kind} at {shown(folder)}, got a file; give the path of a folder") from error
    except OSError as error:
        raise unreadable(folder, kind, error) from error


def unreadable(path: Path, kind: str, error: OSError) -> InputError:
    """The one line for a file or folder that the operating system does not give."""
    place = shown(path)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"expected {kind} at {place}, got no such file; give the path of one")
    if isinstance(error, PermissionError):
        return InputError(f"expected {kind} at {place}, got {error.strerror}; allow reading it, or copy it elsewhere")
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return InputError(f"expected {kind} at {place}, got an error ({reason}); check the path")


def _mode(path: str | Path, kind: str) -> int | None:
    place = user_path(path)
    try:
        return place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(place, kind, error) from error


def _require_plain(mode: int, path: Path, kind: str) -> None:
    if stat.S_ISDIR(mode):
        raise InputError(f"expected {kind} at {shown(path)}, got a folder; give the path of a file")
    if not stat.S_ISREG(mode):
        raise InputError(
            f"expected {kind} at {shown(path)}, got a pipe, a device or a socket; copy its content to a plain file"
        )
