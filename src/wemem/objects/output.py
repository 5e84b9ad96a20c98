"""Output directories and progress of a call: temporary ones that results keep, and lines or a live
display.
"""

import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    @contextmanager
    def inputs(self) -> Iterator[Path]:
        """The folder for what was given in memory, so that the audit can be repeated from its
        files.

        A call that fails leaves the folder as it was: that of an earlier call stays beside the
        results of that call, and no new one stays.
        """
        folder, before = self.folder / "inputs", self.folder / ".inputs.before"
        shutil.rmtree(before, ignore_errors=True)  # left by a call that was killed
        if folder.is_dir():
            shutil.copytree(folder, before)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            if before.is_dir():
                before.replace(folder)
            with suppress(OSError):
                self.folder.rmdir()  # empty, since it was made for these files
            raise
        shutil.rmtree(before, ignore_errors=True)


@contextmanager
def shown_progress(progress: bool | Progress) -> Iterator[Progress]:
    """Show progress: live on a terminal, as plain lines in a notebook or a file."""
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        # the stream of a notebook says that it is a terminal, and shows control characters as text
        own_stream = sys.stdout is sys.__stdout__
        with LiveProgress(Console(force_jupyter=False, force_terminal=None if own_stream else False)) as live:
            yield live
    else:
        yield Silent()
