"""Output directories and progress of a call: temporary ones that results keep, and lines or a live
display.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wemem.pipeline.progress import Progress, Silent
from wemem.reporting.progress import LiveProgress


class _Keeper:
    """An object whose end removes a temporary directory."""


@dataclass(frozen=True)
class OutputPlace:
    """The output directory, and the temporary one that it is in, if it is."""

    folder: Path
    keeper: object

    @classmethod
    def of(cls, out: str | Path | None) -> "OutputPlace":
        """Return the directory that a user named, or a new temporary one."""
        if out is not None:
            return cls(Path(out).expanduser(), None)
        keeper, folder = _Keeper(), tempfile.mkdtemp(prefix="wemem-")
        weakref.finalize(keeper, shutil.rmtree, folder, ignore_errors=True)
        return cls(Path(folder) / "out", keeper)

    @property
    def inputs(self) -> Path:
        """The folder for what was given in memory, so that the audit can be repeated from its
        files.
        """
        return self.folder / "inputs"


@contextmanager
def shown_progress(progress: bool | Progress) -> Iterator[Progress]:
    """Show progress: live on a terminal, as plain lines in a notebook or a file."""
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with LiveProgress(Console(force_jupyter=False)) as live:
            yield live
    else:
        yield Silent()
