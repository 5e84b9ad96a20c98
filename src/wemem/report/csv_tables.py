"""What a study measured as a table for spreadsheets and statistics programs."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wemem.files.atomic import write_atomically
from wemem.metrics.registry import metrics_for

Cell = str | int | float | None
#: With these a spreadsheet takes a text for a formula.
_ACTIVE = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_runs_csv(results: Mapping[str, Any], path: Path) -> None:
    """Write one row per run and attack; a run without attacks has one row, without cells on attacks.

    Shares and rates are fractions, times seconds, intervals two columns, ``_low`` and ``_high``. Text that a
    spreadsheet would take for a formula is preceded by an apostrophe.

    Args:
        results: the content of ``results.json``.
        path: UTF-8, with a heading.

    Raises:
        InputError: the file cannot be written.
    """
    write_csv([row for run in results["runs"] for row in _rows(run)], path)


def write_csv(rows: Sequence[Mapping[str, Cell]], path: Path) -> None:
    """Write rows, one line each, under the names of the columns that any of them has.

    Args:
        rows: at least one.
        path: UTF-8, with a heading.

    Raises:
        InputError: the file cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([_inert(row.get(name)) for name in names] for row in rows)

    write_atomically(path, write)


def _rows(run: Mapping[str, Any]) -> Iterator[dict[str, Cell]]:
    accuracy = run["accuracy"]
    shared: dict[str, Cell] = {
        "label": run["label"],
        "defense": run["defense"],
        "settings": json.dumps(run["settings"], sort_keys=True),
        "seed": run["seed"],
        "sparsity": run["sparsity"],
        "train_accuracy": accuracy["train"],
        "dev_accuracy": accuracy["dev"],
        **_with_ends("test_accuracy", accuracy["test"], accuracy["test_ci"]),
        "test_records": accuracy["test_records"],
        **{f"{name}_seconds": seconds for name, seconds in run["seconds"].items()},
    }
    if not run["attacks"]:
        yield shared
    for name, audit in run["attacks"].items():
        yield {**shared, **_attack_cells(name, audit)}


def _attack_cells(name: str, audit: Mapping[str, Any]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"attack": name, "adaptive": "true" if audit["adaptive"] else "false"}
    for metric in metrics_for("file", [audit]):
        if (found := metric.read(audit)) is not None:
            cells |= _with_ends(metric.name, found.value, (found.low, found.high))
    return {**cells, **{count: audit[count] for count in ("smallest_fpr", "members", "nonmembers", "reference_models")}}


def _with_ends(name: str, value: float, ends: tuple[float, float]) -> dict[str, Cell]:
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _inert(cell: Cell) -> Cell:
    """Text that stays text in a spreadsheet; numbers as they are, negative ones too.

    >>> _inert("=1+1"), _inert("rsw"), _inert(-1.5)
    ("'=1+1", 'rsw', -1.5)
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_ACTIVE) else cell
