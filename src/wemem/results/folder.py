"""The output folder of a study or an audit; ``results.json`` holds the SHA-256 of its other files."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from wemem.errors import DivergedError, InputError
from wemem.files.atomic import write_atomically
from wemem.files.documents import read_json
from wemem.files.hashing import file_sha256
from wemem.files.input_files import shown
from wemem.pipeline.progress import Progress, WatchedProgress
from wemem.results.content_hash import CONTENT_SHA256, content_sha256

RESULTS, GATE = "results.json", "gate.json"
SAMPLES, TARGETS, CANARIES = "per_sample.parquet", "leave_one_out.parquet", "canaries.parquet"
#: The files of records from which rates are recomputed.
RECORDS = (SAMPLES, TARGETS, CANARIES)
#: What is rendered from results into their folder.
RENDERED = ("report.html", "report.json", "runs.csv")
#: The folder of the model files.
MODELS = "models"


@contextmanager
def no_results_of_before(
    folder: Path, progress: Progress, inputs: Iterable[Path | None] = (),
    remove: Callable[[Path], object] | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Remove earlier results when the first stage begins, so that nobody takes them for those of a
    command that failed or was killed.

    A command that is refused before leaves them as they are.

    Args:
        folder: the output folder.
        progress: receives every stage.
        inputs: the files that the command reads, none of which may be among the earlier results
            (:func:`require_elsewhere`).
        remove: removes the earlier results; :func:`remove_old_results` if None.

    Yields:
        The receiver that the command must report to.

    Raises:
        InputError: an input is one of the earlier results.
    """
    require_elsewhere(folder, *inputs)
    clear = partial(remove or remove_old_results, folder)
    try:
        yield WatchedProgress(progress, clear)
    except DivergedError:  # the stages of workers may not have been reported
        clear()
        raise


def remove_old_results(out: Path) -> None:
    """Remove the results of an earlier run from a folder.

    Call it before the first file of a new run is written. ``results.json`` is removed first, and
    after it its report, the records and the files in ``models/`` that it lists. So even a killed process never
    leaves results beside files of another run. Other files stay, whatever the results list.

    Raises:
        InputError: a file cannot be removed.
    """
    models = [name for name in _listed(out) if is_inside(name) and Path(name).parts[0] == MODELS]
    beside = (out / MODELS).is_symlink()  # the files of a linked folder are elsewhere
    for name in (RESULTS, GATE, *RENDERED, *RECORDS, *(() if beside else models)):
        path = out / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot remove {path}: {error.strerror}; choose another --out") from error


def require_elsewhere(out: Path, *paths: Path | None) -> None:
    """Refuse a file that is one of the results in a folder.

    Args:
        out: the folder.
        paths: files that a command reads while the results are removed, or that it writes; None for
            one that it does not have.

    Raises:
        InputError: a path is that of a file of the results in the folder.
    """
    old = [out / name for name in (RESULTS, *RECORDS, *_listed(out)) if is_inside(name)]
    for path in paths:
        if path is not None and any(_same_file(path, other) for other in old):
            raise InputError(
                f"expected a file outside of the results in {shown(out)}, got {shown(path)}, which is one of them; "
                "choose another --out or another file"
            )


def _listed(out: Path) -> list[str]:
    """The files that the results in a folder list; none where they are unreadable."""
    with suppress(InputError, AttributeError, TypeError):
        return [*dict(read_json(out / RESULTS, "results").get("files", {}))]
    return []


def _same_file(path: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.samefile(other)
    return False


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
        results: the content of ``results.json``; ``files`` and ``content_sha256`` are filled in.
        samples: the table of all runs and audited records.
        others: the paths of the other files of the results that were already written into the
            folder: models, and the records of leave-one-out audits.

    Returns:
        The content of ``results.json``.
    """
    write_atomically(out / SAMPLES, lambda part: pyarrow.parquet.write_table(samples, part))
    files = {path.relative_to(out).as_posix(): file_sha256(path) for path in (out / SAMPLES, *others)}
    bound = {**results, "files": files}
    bound[CONTENT_SHA256] = content_sha256(bound)
    text = json.dumps(bound, indent=1, allow_nan=False) + "\n"
    write_atomically(out / RESULTS, lambda part: part.write_text(text, encoding="utf-8"))
    return bound
