"""The worst case in tables: the strongest attack on each kind of canary."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from wemem.data.canaries import KINDS
from wemem.metrics.registry import LOW_FPR, METRICS
from wemem.reporting.breakable import Name
from wemem.results.arms import Arm
from wemem.results.canaries import canary_rates, worst_case
from wemem.results.wording import interval, per_cent

#: The sentence below a table of canaries.
READING = (
    "Canaries are records made to be memorized, of which every model trains on half: mislabelled records, mislabelled "
    "twins of records on which every model trains, and records out of distribution. All models are attacked by the "
    "others at one threshold for all."
)


def canary_table(rows: Sequence[Arm]) -> Table | None:
    """The console's table, one row an arm; None without canaries."""
    found = {arm: {rate.kind: rate for rate in canary_rates(arm, LOW_FPR)} for arm in rows}
    if not any(found.values()):
        return None
    table = Table(
        title=f"Worst case: {METRICS[LOW_FPR].label} on canaries", title_justify="left", title_style="bold",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for heading in ("Defense", *(_words(kind) for kind in KINDS)):
        table.add_column(heading, overflow="fold")
    for arm, rates in found.items():
        cells = [
            Group(Text(interval(rates[kind].estimate)), Name(rates[kind].attack, "dim")) if kind in rates else Text("-")
            for kind in KINDS
        ]
        table.add_row(Group(Name(arm.label, "bold"), Text(per_cent(arm.sparsity))), *cells)
    return table


def canary_rows(rows: Sequence[Arm]) -> list[dict[str, Any]]:
    """Rows of the report: for each arm and kind, the strongest attack by each metric."""
    metrics = [metric.name for metric in METRICS.values() if not metric.needs_threshold]
    found = []
    for arm in rows:
        worst = worst_case(arm, LOW_FPR)
        by_metric = {metric: {rate.kind: rate for rate in canary_rates(arm, metric)} for metric in metrics}
        for kind, rate in by_metric[LOW_FPR].items():
            measured = {
                metric: {**asdict(rates[kind].estimate), "attack": rates[kind].attack}
                for metric, rates in by_metric.items()
                if kind in rates
            }
            found.append(
                {
                    "label": arm.label, "defense": arm.defense, "sparsity": arm.sparsity, "seeds": len(arm.runs),
                    "kind": _words(kind), **measured, "targets": rate.targets, "canaries": rate.records,
                    "worst": worst is not None and worst.kind == kind,
                }
            )  # fmt: skip
    return found


def _words(kind: str) -> str:
    return kind.replace("_", " ").capitalize()
