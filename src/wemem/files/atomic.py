"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from wemem.errors import InputError
from wemem.files.input_files import is_folder, shown, user_path

#: Bytes of a file name that common file systems allow.
NAME_LIMIT = 255


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file and rename, so that a reader sees the old file or the new one.

    Args:
        path: the path of the file; its folder is created if missing.
        write: a function that writes the content to the path that it is given.

    Raises:
        InputError: the folder cannot be written, the disk is full, or the path is that of a folder,
            a pipe or a device.
    """
    if _is_no_file(path):  # renaming would replace even a device
        raise InputError(f"cannot write {shown(path)}: it is no plain file; choose another path")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"cannot write {shown(path)}: {reason}; free some space or choose another --out") from error


def _is_no_file(path: Path) -> bool:
    with suppress(OSError):  # it shows when the file is written
        return path.exists() and not path.is_file()
    return False


def require_folder(out: str | Path) -> Path:
    """Refuse an output directory that cannot be written, before anything is computed for it. It is
    not created yet.

    Returns:
        The path of the directory, with ``~`` expanded.

    Raises:
        InputError: a path that cannot be used, a file, a path through a file, or a folder that may
            not be written.
    """
    folder = user_path(out)
    out = folder.absolute()
    if len(os.fsencode(out.name)) > NAME_LIMIT:
        raise InputError(f"cannot write {shown(out)}: the name is too long; choose a shorter --out")
    there = next(place for place in (out, *out.parents) if os.path.lexists(place))
    if not (is_folder(there, "a folder to write to") and os.access(there, os.W_OK | os.X_OK)):
        raise InputError(
            f"cannot write {shown(out)}: {shown(there)} is no folder that may be written; choose another --out"
        )
    return folder
