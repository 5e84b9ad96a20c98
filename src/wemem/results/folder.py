"""The output folder of a study or an audit; ``results.json`` holds the SHA-256 of its other files."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from wemem.errors import DivergedError, InputError
from wemem.files.atomic import write_atomically
from wemem.files.documents import read_json
from wemem.files.hashing import file_sha256
from wemem.pipeline.progress import Progress, WatchedProgress

RESULTS, SAMPLES, TARGETS, GATE = "results.json", "per_sample.parquet", "leave_one_out.parquet", "gate.json"


@contextmanager
def no_results_of_before(
    folder: Path, progress: Progress, remove: Callable[[Path], object] | None = None
) -> Iterator[Progress]:
    """Remove earlier results where a command fails after its first stage has begun, so that nobody
    takes them for those of the command that failed.

    A command that is refused before leaves them as they are. So does a process that the system
    kills.

    Args:
        folder: the output folder.
        progress: receives every stage.
        remove: removes the earlier results; :func:`remove_old_results` if None.

    Yields:
        The receiver that the command must report to.
    """
    watched = WatchedProgress(progress)
    try:
        yield watched
    except BaseException as error:
        if watched.begun or isinstance(error, DivergedError):
            (remove or remove_old_results)(folder)
        raise


def remove_old_results(out: Path) -> None:
    """Remove the results of an earlier run from a folder.

    Call it before the first file of a new run is written. ``results.json`` is removed first and the
    files that it lists after it. So even a killed process never leaves results beside files of
    another run. Other files stay.

    Raises:
        InputError: a file cannot be removed.
    """
    listed: dict[str, Any] = {}
    with suppress(InputError, AttributeError, TypeError):  # unreadable results list no files
        listed = dict(read_json(out / RESULTS, "results").get("files", {}))
    for name in (RESULTS, GATE, SAMPLES, TARGETS, *listed):
        path = out / name
        if is_inside(name):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(f"cannot remove {path}: {error.strerror}; choose another --out") from error


def is_inside(name: str) -> bool:
    """True if a path from ``results.json`` lies inside the folder.

    >>> [is_inside(name) for name in ("models/a.safetensors", "../a", "/etc/passwd", "a/../../b")]
    [True, False, False, False]
    """
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def write_results(
    out: Path, results: Mapping[str, Any], samples: pa.Table, others: Iterable[Path] = ()
) -> dict[str, Any]:  # fmt: skip
    """Write ``per_sample.parquet`` and then ``results.json``, so that its presence marks a complete
    folder.

    Args:
        out: the output folder.
        results: the content of ``results.json``; ``files`` is filled in.
        samples: the table of all runs and audited records.
        others: the paths of the other files of the results that were already written into the
            folder: models, and the records of leave-one-out audits.

    Returns:
        The content of ``results.json``.
    """
    write_atomically(out / SAMPLES, lambda part: pyarrow.parquet.write_table(samples, part))
    files = {path.relative_to(out).as_posix(): file_sha256(path) for path in (out / SAMPLES, *others)}
    bound = {**results, "files": files}
    text = json.dumps(bound, indent=1, allow_nan=False) + "\n"
    write_atomically(out / RESULTS, lambda part: part.write_text(text, encoding="utf-8"))
    return bound
