"""The record of measurements: one JSON file and one Markdown table, written after every measurement."""

import json
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

#: Columns of the Markdown tables, by the kind of measurement.
COLUMNS: Mapping[str, Sequence[str]] = {
    "machine": ("measure", "value"),
    "correctness": ("measure", "value", "bound", "passed"),
    "speed": (
        "case", "models", "method", "precision", "models x records/s", "with start", "x plain", "x tuned", "TFLOP/s",
        "of peak", "GiB", "seconds",
    ),
    "jobs": ("study", "jobs", "seconds", "same results"),
    "study": ("study", "device", "seconds", "shown", "planned", "records/s", "forecast", "finished"),
}  # fmt: skip


class Record:
    """Rows of one group of measurements, saved after each.

    Args:
        path: the JSON file.
        deadline: the time after which no measurement begins, in seconds of the epoch.
        only: a regular expression; measurements whose names do not match are not made.
    """

    def __init__(self, path: Path, deadline: float, only: str = "") -> None:
        self.path, self.deadline, self.only, self.rows = path, deadline, re.compile(only), list[Row]()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def measure(self, kind: str, name: str, call: Callable[[], Sequence[Row]], needs: float = 5.0) -> list[Row]:
        """Measure, keep the rows or the traceback, and save.

        Args:
            kind: a key of :data:`COLUMNS`.
            name: the name of the measurement, for rows without one.
            call: the measurement.
            needs: the seconds that must be left; otherwise the measurement is left out, and its row says so.
        """
        if not self.only.search(name):
            return []
        if self.left < needs:
            rows: list[Row] = [{"measure": name, "left out": f"{self.left:.0f} s were left, {needs:.0f} s expected"}]
        else:
            began = time.perf_counter()
            try:
                rows = list(call())
            except Exception as error:  # one failure must not lose the other measurements
                traceback.print_exc()
                text = traceback.format_exc()
                rows = [{"measure": name, "error": f"{type(error).__name__}: {error}", "traceback": text}]
            rows = [{**row, "took": round(time.perf_counter() - began, 2)} for row in rows]
        rows = [{"kind": kind, **row} for row in rows]
        for row in rows:
            shown = {k: v for k, v in row.items() if k not in ("kind", "traceback", "stages", "epochs")}
            print(f"[{self.left:5.0f} s left] {shown}", flush=True)
        self.rows += rows
        self.path.write_text(json.dumps(self.rows, indent=1, default=str))
        return rows


def markdown(rows: Sequence[Row]) -> str:
    """Render tables of all rows, and lists of the failures."""
    parts = []
    for kind, columns in COLUMNS.items():
        own = [row for row in rows if row["kind"] == kind and "error" not in row and "left out" not in row]
        if own:
            lines = [f"## {kind}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(_shown(row.get(column)) for column in columns) + " |" for row in own]
            parts.append("\n".join(lines))
    failed = [row for row in rows if "error" in row or "left out" in row]
    if failed:
        lines = [f"- {row['measure']}: {row.get('error') or 'left out, ' + row['left out']}" for row in failed]
        parts.append("\n".join(["## not measured", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value).replace("|", "/")
