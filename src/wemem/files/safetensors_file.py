"""Safetensors files from outside, checked before the library opens them by name."""

from pathlib import Path

from wemem.errors import InputError
from wemem.files.input_files import open_file, shown, user_path

#: Bytes of the JSON header, which the library parses whole; a model of 10,000 tensors has about 1
#: MB.
HEADER_LIMIT = 2**24


def require_safetensors(path: str | Path, kind: str) -> Path:
    """The path of a plain file with a header of reasonable length; its content is for the library
    to check.

    Args:
        path: the path as the user gave it.
        kind: a phrase for the file that is expected, such as ``"weights in safetensors format"``.

    Raises:
        InputError: no such file, one that is no plain file or may not be read, or a header that is
            too long.
    """
    file = user_path(path)
    with open_file(file, kind) as stream:
        start = stream.read(8)
        size = stream.seek(0, 2)
    header = int.from_bytes(start, "little")
    if len(start) < 8 or not 0 < header <= min(HEADER_LIMIT, size - 8):
        raise InputError(
            f"expected {kind} at {shown(file)}, got a damaged or foreign file (a header of {header:,} bytes in a file "
            f"of {size:,}); write it again"
        )
    return file
