"""Pairwise comparison of defenses at equal sparsity.

Every interval is at 95 % for its difference alone. Significance is decided by Holm's rule over all
pairs of a list and one metric. If all arms of the list are equal, the probability that any
difference is called significant is at most 5 % for each metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from wemem.metrics.registry import LOW_FPR, PAPER, metrics_for
from wemem.results.arms import Arm, arms, audits_of, require_labels
from wemem.results.differences import Difference, accuracy_difference, holm, leakage_difference

#: The key of test accuracy in the differences, beside the names of the metrics.
ACCURACY = "accuracy"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Differences between a defense and a rival at equal sparsity.

    Args:
        defense: the label of the defense.
        rival: the label of the rival.
        sparsity: the sparsity of both.
        seeds: the seeds that both were run with, at least one.
        differences: the defense minus the rival, by metric, for the strongest of the attacks that
            both have. Test accuracy is under :data:`ACCURACY`.
        shown: the keys of the differences that are significant by Holm's rule over the list.
    """

    defense: str
    rival: str
    sparsity: float
    seeds: tuple[int, ...]
    differences: Mapping[str, Difference]
    shown: frozenset[str] = frozenset()

    @property
    def leakage(self) -> dict[str, Difference]:
        """The differences in leakage; empty if the arms have no attack in common."""
        return {name: gap for name, gap in self.differences.items() if name != ACCURACY}

    @property
    def accuracy(self) -> Difference:
        """The difference in test accuracy."""
        return self.differences[ACCURACY]


def pairwise(results: Mapping[str, Any]) -> list[Comparison]:
    """Compare every ordered pair of arms that have equal sparsity and a seed in common.

    Args:
        results: the content of ``results.json``.
    """
    pairs = permutations(arms(results), 2)
    compared = (_compare(ours, theirs) for ours, theirs in pairs if ours.sparsity == theirs.sparsity)
    return [comparison for comparison in compared if comparison is not None]


def against_rivals(results: Mapping[str, Any], labels: Sequence[str]) -> list[Comparison]:
    """Compare the arms of some labels with all others; a pair of two of these labels occurs once.

    Args:
        results: the content of ``results.json``.
        labels: the labels, in the order in which the comparisons are listed.

    Raises:
        InputError: a label is unknown.
    """
    require_labels(arms(results), labels)
    compared, order = pairwise(results), list(dict.fromkeys(labels))
    chosen = [
        one for i, label in enumerate(order) for one in compared if one.defense == label and one.rival not in order[:i]
    ]
    return _decide(chosen)


def leaders(results: Mapping[str, Any]) -> list[str]:
    """Labels that leak least on average, by the paper's metric and by TPR at a low FPR.

    Controls are left out, since they serve to separate causes and are not released. The leaders are
    selected by the figures that :func:`against_rivals` compares, which favours them slightly.
    :func:`~wemem.results.differences.may_leak_least` corrects for that selection.
    """
    defended = [arm for arm in arms(results) if not arm.is_control and arm.attacks]
    least = [min(defended, key=lambda arm: arm.strongest(metric)[1].value) for metric in (PAPER, LOW_FPR) if defended]
    return list(dict.fromkeys(arm.label for arm in least))


def _compare(ours: Arm, theirs: Arm) -> Comparison | None:
    """Compare two arms; None if they have no seed in common."""
    seeds = {run["seed"] for run in ours.runs} & {run["seed"] for run in theirs.runs}
    if not seeds:
        return None
    common = any(attack in theirs.attacks for attack in ours.attacks)
    metrics = metrics_for("headline", audits_of((ours, theirs))) if common else []
    gaps = {metric.name: leakage_difference(ours, theirs, metric.name) for metric in metrics}
    gaps[ACCURACY] = accuracy_difference(ours, theirs)  # never None: they have a seed in common
    differences = {name: gap for name, gap in gaps.items() if gap is not None}
    return Comparison(ours.label, theirs.label, ours.sparsity, tuple(sorted(seeds)), differences)


def _decide(compared: Sequence[Comparison]) -> list[Comparison]:
    """Mark the significant differences of a list, by Holm's rule for each metric."""
    shown: list[set[str]] = [set() for _ in compared]
    for name in dict.fromkeys(name for one in compared for name in one.differences):
        p_values = [one.differences[name].p_value if name in one.differences else None for one in compared]
        for names, rejected in zip(shown, holm(p_values), strict=True):
            if rejected:
                names.add(name)
    return [replace(one, shown=frozenset(names)) for one, names in zip(compared, shown, strict=True)]
