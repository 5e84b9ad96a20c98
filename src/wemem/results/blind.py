"""The blind baseline over the seeds: an attack on the records of the audit that sees no model."""

from collections.abc import Mapping, Sequence
from typing import Any

from wemem.metrics.intervals import Estimate
from wemem.results.arms import over_seeds

#: The name of its row in tables, where it is never the strongest attack.
ROW = "blind, no model"


def blind_estimate(results: Mapping[str, Any], metric: str) -> Estimate | None:
    """The blind baseline by a metric, over the seeds; None in results without it.

    Args:
        results: the content of ``results.json``.
        metric: the name of a metric; those that need a threshold have no value.
    """
    entries: Sequence[Mapping[str, Any]] = results.get("blind_baseline", ())
    measured = [entry[metric] for entry in entries if metric in entry]
    return over_seeds([Estimate(one["value"], *one["ci"]) for one in measured]) if measured else None


def leaking_splits(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of the seeds in which records alone tell members from non-members."""
    return [entry for entry in results.get("blind_baseline", ()) if entry["above_chance"]]
