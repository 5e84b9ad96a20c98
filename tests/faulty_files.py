"""A layer that lets one file operation fail, as a full disk or a missing permission would have it."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from safetensors import SafetensorError

from wemem.exporting import checkpoint
from wemem.store import entry

#: Operations that change files, each as an object and its attribute.
OPERATIONS: tuple[tuple[Any, str], ...] = (
    (Path, "write_text"), (Path, "write_bytes"), (Path, "replace"), (Path, "rename"), (Path, "mkdir"),
    (os, "replace"), (os, "rename"), (os, "fsync"), (pyarrow.parquet, "write_table"), (checkpoint, "save_file"),
    (entry, "save_file"),
)  # fmt: skip
FULL, FORBIDDEN = errno.ENOSPC, errno.EACCES


class Faults:
    """Counts operations, and lets one of them fail.

    Args:
        at: number of the operation that fails, from 1; 0 for none.
        code: the error of the system.
    """

    def __init__(self, at: int, code: int) -> None:
        self.at, self.code, self.count, self.last = at, code, 0, ""

    def around(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                self.last = name
                error = OSError(self.code, os.strerror(self.code))
                # the library for weights wraps the system's error in its own
                raise SafetensorError(str(error)) if name == "save_file" else error
            return operation(*args, **kwargs)

        return failing


@contextmanager
def failing_at(at: int, code: int) -> Iterator[Faults]:
    """Let the ``at``-th file operation of the body fail."""
    faults = Faults(at, code)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            if hasattr(owner, name):
                patch.setattr(owner, name, faults.around(name, getattr(owner, name)))
        yield faults
