"""The folder of a study or an audit: its files are bound to ``results.json`` by their SHA-256."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from wemem.errors import InputError
from wemem.files.atomic import write_atomically
from wemem.files.documents import read_json
from wemem.files.hashing import file_sha256

RESULTS, SAMPLES, GATE = "results.json", "per_sample.parquet", "gate.json"


def remove_old_results(out: Path) -> None:
    """Remove the results of an earlier run from a folder, before the first file of a new one is written.

    ``results.json`` goes first, so that results never stand beside files of another run, wherever the process is
    killed; then the files that it lists. Other files of the folder stay.

    Raises:
        InputError: a file that may not be removed.
    """
    listed: dict[str, Any] = {}
    with suppress(InputError, AttributeError, TypeError):  # broken results list nothing
        listed = dict(read_json(out / RESULTS, "results").get("files", {}))
    for name in (RESULTS, GATE, SAMPLES, *listed):
        path = out / name
        if is_inside(name):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(f"cannot remove {path}: {error.strerror}; choose another --out") from error


def is_inside(name: str) -> bool:
    """True if a name from ``results.json`` is that of a file in the folder or in one of its folders.

    >>> [is_inside(name) for name in ("models/a.safetensors", "../a", "/etc/passwd", "a/../../b")]
    [True, False, False, False]
    """
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def write_results(
    out: Path, results: Mapping[str, Any], samples: pa.Table, models: Iterable[Path] = ()
) -> dict[str, Any]:  # fmt: skip
    """Write ``per_sample.parquet`` and, last of all, ``results.json`` into a folder: where it is, all is.

    Args:
        out: the folder.
        results: the content, whose ``files`` are filled in.
        samples: a row for each run and audited record.
        models: the files of models that are in the folder already.

    Returns:
        The content of ``results.json``.
    """
    write_atomically(out / SAMPLES, lambda part: pyarrow.parquet.write_table(samples, part))
    files = {path.relative_to(out).as_posix(): file_sha256(path) for path in (out / SAMPLES, *models)}
    bound = {**results, "files": files}
    text = json.dumps(bound, indent=1, allow_nan=False) + "\n"
    write_atomically(out / RESULTS, lambda part: part.write_text(text, encoding="utf-8"))
    return bound
