"""Recomputation of the leave-one-out figures of a run from its records."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from wemem.metrics.over_targets import TargetsResult, metrics_over_targets, reference_accuracy
from wemem.results.target_records import RunTargets

#: Largest difference between a stored and a recomputed number that is attributed to rounding, and
#: the same for pseudo-values relative to their size, which are stored to six digits.
ROUNDING, PSEUDO_ROUNDING = 1e-9, 1e-5
#: The name by which the accuracy of the targets is chosen among metrics.
ACCURACY = "reference_accuracy"
#: Everything that can be recomputed.
EVERY_FIGURE = (ACCURACY, *(metric.name for metric in metrics_over_targets()))


def target_differences(
    run: Mapping[str, Any], targets: RunTargets, figures: Collection[str] = EVERY_FIGURE
) -> Iterator[str]:
    """Find leave-one-out figures of a run that do not follow from its records.

    Args:
        run: the run in ``results.json``.
        targets: its records.
        figures: the names of the metrics to recompute, and :data:`ACCURACY`.
    """
    metrics = [metric for metric in metrics_over_targets() if metric.name in figures]
    stored = run.get("leave_one_out", {})
    for name in sorted(targets.ranks.keys() ^ stored.keys()):
        missing = "figures" if name in targets.ranks else "records"
        yield f"the leave-one-out attack {name} has no {missing}"
    for name, audit in stored.items():
        if name in targets.ranks:
            result = TargetsResult(name, targets.ranks[name], targets.member, run["seed"])
            known = [metric for metric in metrics if metric.name in audit]
            computed = result.summary(known)
            yield from (f"leave-one-out {name} {one}" for one in _compared(audit, computed))
    if ACCURACY in figures and ACCURACY in run:
        accuracy = reference_accuracy(targets.correct, targets.member, seed=run["seed"])
        computed = {"targets": accuracy.targets, ACCURACY: accuracy.as_comparable_json()}
        yield from _compared({"targets": run[ACCURACY]["targets"], ACCURACY: run[ACCURACY]}, computed)


def _compared(stored: Mapping[str, Any], computed: Mapping[str, Any]) -> Iterator[str]:
    for name, value in computed.items():
        if not isinstance(value, Mapping):
            if stored[name] != value:
                yield f"{name} is {stored[name]}, its records give {value}"
            continue
        given, recomputed = ([one["value"], *one["ci"]] for one in (stored[name], value))
        if not np.allclose(given, recomputed, rtol=0, atol=ROUNDING):
            yield f"{name} is {given[0]:.6g} [{given[1]:.6g}, {given[2]:.6g}], its records give {recomputed[0]:.6g}"
        elif "pseudo_values" in stored[name] and not _same_table(stored[name]["pseudo_values"], value["pseudo_values"]):
            yield f"{name} has pseudo-values other than those of its records"


def _same_table(stored: list[list[float]], computed: list[list[float]]) -> bool:
    shapes = [[len(row) for row in table] for table in (stored, computed)]
    return shapes[0] == shapes[1] and np.allclose(stored, computed, rtol=PSEUDO_ROUNDING, atol=ROUNDING)
