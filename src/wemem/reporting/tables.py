"""The tables of a report: the same rows for the page, in per cent, and for CSV, where nothing is
rounded.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.metrics.registry import LOW_FPR, METRICS, metrics_for
from wemem.reporting.csv_tables import Cell

#: Of a share the page shows value and interval in per cent, of a gap points; times are seconds.
UNITS = ("name", "text", "settings", "count", "share", "gap", "time", "plain")


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        key: its key in the rows and in CSV.
        heading: on the page, with the unit.
        unit: one of :data:`UNITS`.
    """

    key: str
    heading: str
    unit: str

    def __post_init__(self) -> None:
        assert self.unit in UNITS


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table of a report.

    Args:
        name: the stem of its file.
        part: the part of the page to which it belongs.
        title: over it.
        columns: the columns in order; those of which no row has a value are left out.
        rows: cells by column; a share or a gap is an estimate with ``value``, ``low`` and ``high``.
    """

    name: str
    part: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Any]]

    def csv_rows(self) -> Iterator[dict[str, Cell]]:
        """The rows for a spreadsheet: estimates in three columns, as fractions."""
        for row in self.rows:
            cells: dict[str, Cell] = {}
            for column in self.columns:
                cells |= _spread(column.key, row.get(column.key))
            yield cells


ARM = (
    Column("label", "Defense", "name"),
    Column("sparsity", "Sparsity (%)", "share"),
    Column("seeds", "Seeds", "count"),
)


def sheets(content: Mapping[str, Any]) -> list[Sheet]:
    """Every table that a report's content has rows for."""
    arms = [_headline(row) for row in content["headline"]]
    pairs = [_pair(one) for one in content["comparisons"]["pairs"]]
    tables = [
        Sheet("headline", "headline", "Every arm", _headline_columns(), arms),
        Sheet("canaries", "headline", "Canaries", CANARIES, _canaries(content.get("canaries", {}).get("rows", ()))),
        Sheet("plane", "plane", "Points and fronts", PLANE, _points(content["plane"])),
        Sheet("roc", "roc", "Points of the curves", ROC, _flat(content["roc"], "points")),
        Sheet("rounds", "rounds", "Round by round", ROUNDS, _flat(content["rounds"], "rounds")),
        Sheet("deciles", "groups", "By decile of memorization", GROUPS, _flat(content["deciles"], "groups")),
        Sheet("classes", "groups", "By class", GROUPS, _flat(content["classes"], "groups")),
        Sheet("time", "time", "Cost of a run", TIME, content["time"]),
        Sheet("selection", "selection", "Candidates", SELECTION, _candidates(content["selection"])),
        Sheet("pairs", "pairs", "Differences", _pair_columns(), pairs),
    ]
    return [sheet for sheet in tables if sheet.rows]


PLANE = (
    Column("measure", "Measure", "text"), *ARM, Column("accuracy", "Test accuracy (%)", "share"),
    Column("leakage", "Leakage (%)", "share"), Column("attack", "Attack", "name"),
    Column("front", "On the front", "text"), Column("front_of_kind", "On the front of its kind", "text"),
)  # fmt: skip
CANARIES = (
    *ARM, Column("kind", "Canaries", "text"),
    *(
        column
        for metric in METRICS.values() if not metric.needs_threshold
        for column in (
            Column(metric.name, f"{metric.label} (%)", "share"), Column(f"{metric.name}_attack", "by", "name")
        )
    ),
    Column("targets", "Targets", "count"), Column("canaries", "Canaries of a target", "count"),
)  # fmt: skip
ROC = (
    *ARM, Column("attack", "Attack", "name"), Column("false_positives", "False positives", "count"),
    Column("fpr", "FPR (%)", "share"), Column("tpr", "TPR (%)", "share"),
)  # fmt: skip
ROUNDS = (
    *(column for column in ARM if column.key != "sparsity"), Column("round", "Round", "count"),
    Column("sparsity", "Sparsity (%)", "share"), Column("test_accuracy", "Test accuracy (%)", "share"),
    Column("confidence_auc", "AUC of the confidence attack (%)", "share"),
)  # fmt: skip
TIME = (
    *ARM, Column("finetune_seconds", "Fine-tuning (s)", "time"),
    Column("defense_overhead_seconds", "More than undefended (s)", "time"),
    Column("scores_seconds", "Memorization scores (s)", "time"), Column("teachers_seconds", "Teachers (s)", "time"),
    Column("attacks_seconds", "Attacks (s)", "time"), Column("records_seen", "Records seen", "time"),
    Column("peak_memory_mib", "Peak memory (MiB)", "time"),
)  # fmt: skip
SELECTION = (
    Column("folder", "Folder", "name"), Column("label", "Defense", "name"), Column("settings", "Settings", "settings"),
    Column("seeds", "Seeds", "count"), Column("dev_accuracy", "Dev accuracy (%)", "share"),
    Column("dev_auc", "Dev AUC (%)", "share"), Column("qualified", "Keeps the accuracy", "text"),
    Column("chosen", "Chosen", "text"),
)  # fmt: skip
GROUPS = (
    *ARM, Column("attack", "Attack", "name"), Column("group", "Group", "plain"), Column("members", "Members", "count"),
    Column("nonmembers", "Non-members", "count"), Column("tpr", f"{METRICS[LOW_FPR].label} (%)", "share"),
    Column("auc", "AUC (%)", "share"),
)  # fmt: skip


def _pair_columns() -> tuple[Column, ...]:
    """The differences of every compared metric, then of accuracy."""
    return (
        Column("label", "Defense", "name"), Column("rival", "Less", "name"),
        Column("sparsity", "Sparsity (%)", "share"), Column("seeds", "Seeds", "count"),
        *(Column(metric.name, f"{metric.label} (points)", "gap") for metric in metrics_for("headline")),
        Column("accuracy", "Test accuracy (points)", "gap"),
    )  # fmt: skip


def _headline_columns() -> tuple[Column, ...]:
    """Accuracy, and for every metric the strongest attack on the victim and on all targets."""
    metrics = metrics_for("table")
    return (
        *ARM,
        Column("whole_model_sparsity", "Of all parameters (%)", "share"),
        Column("accuracy", "Test accuracy (%)", "share"),
        *(
            column
            for metric in metrics
            for column in (
                Column(metric.name, f"{metric.label} (%)", "share"), Column(f"{metric.name}_attack", "by", "name"),
            )
        ),
        *(
            Column(f"leave_one_out_{metric.name}", f"{metric.label}, leave-one-out (%)", "share")
            for metric in metrics
            if not metric.needs_threshold
        ),
        Column("test_records", "Test records", "count"),
        Column("members", "Members", "count"),
        Column("nonmembers", "Non-members", "count"),
        Column("targets", "Leave-one-out targets", "count"),
    )  # fmt: skip


def _headline(row: Mapping[str, Any]) -> dict[str, Any]:
    leave_one_out = row.get("leave_one_out", {})
    return {
        **row,
        **{f"{metric}_attack": row[metric]["attack"] for metric in METRICS if metric in row},
        **{f"leave_one_out_{metric}": over_targets for metric, over_targets in leave_one_out.items()},
        **({"targets": max(one["targets"] for one in leave_one_out.values())} if leave_one_out else {}),
    }


def _canaries(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, **{f"{name}_attack": row[name]["attack"] for name in METRICS if name in row}} for row in rows]


def _points(panels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **point, "measure": METRICS[panel["measure"]].label, "attack": point["leakage"]["attack"],
            "front": _yes(point["front"]), "front_of_kind": _yes(point["front_of_kind"]),
        }
        for panel in panels for point in panel["points"]
    ]  # fmt: skip


def _flat(arms: Sequence[Mapping[str, Any]], part: str) -> list[dict[str, Any]]:
    """One row for each thing that each arm has several of."""
    return [{**arm, **one} for arm in arms for one in arm[part]]


def _candidates(selections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **one, "folder": selection["folder"], "seeds": len(one["seeds"]), "chosen": _yes(one["chosen"]),
            "qualified": _yes(one["qualified"]),
            "dev_accuracy": _exact(one["dev_accuracy"]), "dev_auc": _exact(one["dev_auc"]),
        }
        for selection in selections for one in selection["candidates"]
    ]  # fmt: skip


def _pair(one: Mapping[str, Any]) -> dict[str, Any]:
    return {**one, "label": one["defense"], "seeds": len(one["seeds"]), **one["leakage"]}


def _exact(value: float) -> dict[str, float | None]:
    return {"value": value, "low": None, "high": None}


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _spread(key: str, cell: Any) -> dict[str, Cell]:
    """An estimate, a span of runs, or one number, as columns."""
    match cell:
        case {"mean": mean, "least": least, "most": most}:
            return {key: mean, f"{key}_least": least, f"{key}_most": most}
        case {"value": value, "low": low, "high": high}:
            return {key: value, f"{key}_low": low, f"{key}_high": high}
        case Mapping():
            return {key: json.dumps(cell, sort_keys=True)}
    return {key: cell}
