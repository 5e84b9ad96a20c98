"""Write files whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from wemem.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file and rename, so that a reader sees the old file or the new one.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        if path.parent.is_dir():
            part.unlink(missing_ok=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"cannot write {path}: {reason}; free some space or choose another --out") from error


def require_folder(out: Path) -> None:
    """Refuse a folder that cannot be written, before anything is computed for it. It is not made yet.

    Raises:
        InputError: it is a file, lies in one, or nobody may write there.
    """
    there = next(place for place in (out.absolute(), *out.absolute().parents) if os.path.lexists(place))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise InputError(f"cannot write {out}: {there} is no folder that may be written; choose another --out")
