"""Measurements of a study as tables for spreadsheets and statistics programs."""

import csv
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wemem.files.atomic import write_atomically
from wemem.metrics.registry import metrics_for

Cell = str | int | float | None
#: A spreadsheet takes a text for a formula if it begins with one of these.
_ACTIVE = frozenset("=+-@|%")


def write_runs_csv(results: Mapping[str, Any], path: Path) -> None:
    """Write one row per run and attack; a run without attacks has one row, without cells on
    attacks.

    Shares and rates are fractions, times seconds, intervals two columns, ``_low`` and ``_high``.
    Text that a spreadsheet would take for a formula is preceded by an apostrophe.

    Args:
        results: the content of ``results.json``.
        path: UTF-8, with a heading.

    Raises:
        InputError: the file cannot be written.
    """
    write_csv(run_rows(results), path)


def run_rows(results: Mapping[str, Any]) -> list[dict[str, Cell]]:
    """Return the rows of :func:`write_runs_csv`."""
    return [row for run in results["runs"] for row in _rows(run)]


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
            writer.writerow([_inert(name) for name in names])
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
        if (value := metric.read(audit)) is not None:
            cells |= _with_ends(metric.name, value.value, (value.low, value.high))
    return {**cells, **{count: audit[count] for count in ("smallest_fpr", "members", "nonmembers", "reference_models")}}


def _with_ends(name: str, value: float, ends: tuple[float, float]) -> dict[str, Cell]:
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _inert(cell: Cell) -> Cell:
    """Text that stays text in a spreadsheet, after an apostrophe if need be; numbers as they are,
    negative ones too.

    Spreadsheets skip spaces and characters without a shape before a formula, and read full-width
    signs as plain ones. A quote or an apostrophe first would be taken off on import.

    >>> _inert("=1+1"), _inert("  ＝1+1"), _inert("rsw"), _inert(-1.5)
    ("'=1+1", "'  ＝1+1", 'rsw', -1.5)
    """
    if not isinstance(cell, str) or not cell:
        return cell
    plain = unicodedata.normalize("NFKC", cell)
    visible = next((c for c in plain if c.isprintable() and not c.isspace() and unicodedata.category(c) != "Mn"), "")
    hidden = not plain or not plain[0].isprintable() or plain[0] in "'\""
    return f"'{cell}" if hidden or visible in _ACTIVE else cell
