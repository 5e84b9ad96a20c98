"""Defenses against each other, in numbers: every pair of arms at equal sparsity.

Intervals are at 95 % for one difference alone. Whether a difference is shown is decided for all pairs of a list at
once, by Holm's rule, so that a list of equal arms shows any difference with a probability of at most 5 % a metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from wemem.metrics.registry import LOW_FPR, PAPER, metrics_for
from wemem.results.arms import Arm, arms, audits_of, require_labels
from wemem.results.differences import Difference, accuracy_difference, holm, leakage_difference

#: The key of accuracy beside the names of metrics.
ACCURACY = "accuracy"


@dataclass(frozen=True, eq=False)
class Comparison:
    """A defense against a rival at equal sparsity.

    Args:
        defense: its label.
        rival: its label.
        sparsity: the sparsity of both.
        seeds: the seeds that both were run with, at least one.
        differences: the defense less the rival, by metric, of the strongest of the attacks that both have; and of
            test accuracy, under :data:`ACCURACY`.
        shown: the keys of those differences that hold beside all others of the list.
    """

    defense: str
    rival: str
    sparsity: float
    seeds: tuple[int, ...]
    differences: Mapping[str, Difference]
    shown: frozenset[str] = frozenset()

    @property
    def leakage(self) -> dict[str, Difference]:
        """The differences of leakage alone; empty if no attack was run on both."""
        return {name: gap for name, gap in self.differences.items() if name != ACCURACY}

    @property
    def accuracy(self) -> Difference:
        """The difference of test accuracy."""
        return self.differences[ACCURACY]


def pairwise(results: Mapping[str, Any]) -> list[Comparison]:
    """Every arm against every other of its sparsity with which it shares a seed, both ways round.

    Args:
        results: the content of ``results.json``.
    """
    pairs = permutations(arms(results), 2)
    compared = (_compare(ours, theirs) for ours, theirs in pairs if ours.sparsity == theirs.sparsity)
    return [comparison for comparison in compared if comparison is not None]


def against_rivals(results: Mapping[str, Any], labels: Sequence[str]) -> list[Comparison]:
    """The defenses of some labels against their rivals; a pair of two of them stands once, first label first.

    Raises:
        InputError: an unknown label.
    """
    require_labels(arms(results), labels)
    compared, order = pairwise(results), list(dict.fromkeys(labels))
    chosen = [
        one for i, label in enumerate(order) for one in compared if one.defense == label and one.rival not in order[:i]
    ]
    return _decide(chosen)


def leaders(results: Mapping[str, Any]) -> list[str]:
    """The labels that leak least by the paper's metric and by TPR at a low FPR, on average over their runs.

    Controls are none of them: they are measured to tell causes apart, not to be released. The leaders were chosen by
    the very figures that :func:`against_rivals` compares, which flatters them a little;
    :func:`~wemem.results.differences.may_leak_least` allows for that.
    """
    defended = [arm for arm in arms(results) if not arm.is_control and arm.attacks]
    least = [min(defended, key=lambda arm: arm.strongest(metric)[1].value) for metric in (PAPER, LOW_FPR) if defended]
    return list(dict.fromkeys(arm.label for arm in least))


def _compare(ours: Arm, theirs: Arm) -> Comparison | None:
    """Two arms; None without a seed in common."""
    seeds = {run["seed"] for run in ours.runs} & {run["seed"] for run in theirs.runs}
    if not seeds:
        return None
    common = any(attack in theirs.attacks for attack in ours.attacks)
    metrics = metrics_for("headline", audits_of((ours, theirs))) if common else []
    found = {metric.name: leakage_difference(ours, theirs, metric.name) for metric in metrics}
    found[ACCURACY] = accuracy_difference(ours, theirs)  # there, for they have a seed in common
    differences = {name: gap for name, gap in found.items() if gap is not None}
    return Comparison(ours.label, theirs.label, ours.sparsity, tuple(sorted(seeds)), differences)


def _decide(compared: Sequence[Comparison]) -> list[Comparison]:
    """The list with what is shown, by Holm's rule for each metric over all of it."""
    shown: list[set[str]] = [set() for _ in compared]
    for name in dict.fromkeys(name for one in compared for name in one.differences):
        p_values = [one.differences[name].p_value if name in one.differences else None for one in compared]
        for names, rejected in zip(shown, holm(p_values), strict=True):
            if rejected:
                names.add(name)
    return [replace(one, shown=frozenset(names)) for one, names in zip(compared, shown, strict=True)]
