"""SHA-256 of files and of plain values."""

import hashlib
import json
from pathlib import Path

from wemem.files.input_files import open_file


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: no such file, or one that is no plain file or may not be read.
    """
    with open_file(path, "a file") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: object) -> str:
    """SHA-256, in hexadecimal, over canonical JSON: names sorted, floats by their shortest exact
    spelling.

    >>> sha256_of({"a": 1, "b": 0.5}) == hashlib.sha256(b'{"a":1,"b":0.5}').hexdigest()
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
