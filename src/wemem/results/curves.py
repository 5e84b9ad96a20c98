"""ROC curves of attacks, and true positive rates by group of members, from stored scores.

Rates are defined in :mod:`wemem.metrics.rates`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from wemem.metrics.intervals import Estimate, auc_interval, corrected_level, proportion, tpr_at_fpr
from wemem.metrics.rates import true_positive_rate
from wemem.metrics.registry import LOW_RATE, fprs
from wemem.results.arms import over_seeds
from wemem.results.per_record import RunScores

#: Largest number of points of a curve, spaced evenly in the logarithm of the false positives.
POINTS = 40
#: Smallest number of members, over all seeds, for a useful rate of a group: the interval of 30
#: members spans up to 37 points.
FEW = 30


@dataclass(frozen=True)
class CurvePoint:
    """A point of a ROC curve.

    Args:
        false_positives: the number of false positives in the run with the fewest non-members.
        fpr: the false positive rate of that number.
        tpr: the true positive rate at this false positive rate, as a mean over seeds.
        by_seed: the true positive rate of each seed.
    """

    false_positives: int
    fpr: float
    tpr: Estimate
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """Leakage of a group of members.

    Args:
        group: the decile from 1 to 10, or the class.
        members: the number of members in the group, summed over seeds.
        nonmembers: the number of non-members of the class, or of all non-members for a decile,
            summed over seeds.
        tpr: the true positive rate of the group's members at 1 % FPR, pooled over seeds, with
            Clopper and Pearson's interval. The threshold of a run is set on *all* of its
            non-members. The interval takes it as fixed. So it serves to compare groups of one arm,
            which share the threshold, and not to compare arms.
        auc: the AUC of the group's members against these non-members, as a mean over seeds; None
            where a side has fewer than two records.
    """

    group: int
    members: int
    nonmembers: int
    tpr: Estimate
    auc: Estimate | None


def roc_points(runs: Sequence[RunScores], attack: str) -> list[CurvePoint]:
    """TPR at false positive rates from ``1 / n`` on, where n is the smallest number of non-members
    of a run.

    Over several seeds, values and interval ends are means of those of the seeds
    (:func:`~wemem.metrics.intervals.tpr_at_fpr`). The intervals of the seeds hold simultaneously
    with 95 % (Bonferroni). They cover the sampling of records, with the error of the threshold.
    They do not cover other training runs; the spread of the seeds shows that variation.
    """
    pairs = [(run.members(attack), run.nonmembers(attack)) for run in runs]
    n = min(len(others) for _, others in pairs)
    level, points = corrected_level(0.95, len(pairs)), []
    for k in _false_positives(n):
        each = [tpr_at_fpr(members, others, k / n, level) for members, others in pairs]
        ends = (float(np.mean([getattr(one, end) for one in each])) for end in ("value", "low", "high"))
        points.append(CurvePoint(k, k / n, Estimate(*ends), tuple(one.value for one in each)))
    return points


def by_decile(runs: Sequence[RunScores], attack: str) -> list[Group]:
    """Group members by decile of the defender's memorization score, from the lowest to the highest.

    The m members of a run are sorted by score; equal scores keep the stored order. The member at
    position r, counted from 0, is in decile ``floor(10 r / m) + 1``. Members without a score are
    left out.

    Returns:
        Ten groups, or none where a run has no scores for ten members.
    """
    parts = [_deciles(run) for run in runs]
    if any(part is None for part in parts):
        return []
    return [
        _group(
            d + 1,
            runs,
            attack,
            [part == d for part in parts if part is not None],
            [np.ones(len(r.nonmembers(attack)), bool) for r in runs],
        )
        for d in range(10)
    ]


def by_class(runs: Sequence[RunScores], attack: str) -> list[Group]:
    """Group members by class; classes that have no member in one of the runs are left out."""
    classes = sorted(set.intersection(*(set(run.classes[run.member].tolist()) for run in runs)))
    return [
        _group(
            c, runs, attack,
            [run.classes[run.member] == c for run in runs], [run.classes[~run.member] == c for run in runs],
        )
        for c in classes
    ]  # fmt: skip


def at_rate(points: Sequence[Mapping[str, Any]], fpr: float) -> Mapping[str, Any] | None:
    """The point of a curve with the largest rate that does not exceed ``fpr``; None below ``1 /
    n``.
    """
    return max((point for point in points if point["fpr"] <= fpr), key=lambda point: point["fpr"], default=None)


def _false_positives(n: int) -> list[int]:
    """Numbers of false positives at the points of a curve, from 1 to ``n - 1``."""
    if n < 2:
        return []
    spaced = np.rint(np.geomspace(1, n - 1, POINTS)).astype(int)
    marked = [int(np.floor(fpr * n + 1e-9)) for fpr in fprs()]
    return sorted({*spaced.tolist(), *(k for k in marked if k >= 1)})


def _deciles(run: RunScores) -> np.ndarray | None:
    """The decile of each member from 0 to 9, or -1 without a score; None for fewer than ten scores."""
    if run.memorization is None:
        return None
    scores = run.memorization[run.member]
    known = np.flatnonzero(~np.isnan(scores))
    if len(known) < 10:
        return None
    deciles = np.full(len(scores), -1)
    deciles[known[np.argsort(scores[known], kind="stable")]] = 10 * np.arange(len(known)) // len(known)
    return deciles


def _group(
    name: int, runs: Sequence[RunScores], attack: str,
    chosen: Sequence[Bool[np.ndarray, " m"]], against: Sequence[Bool[np.ndarray, " k"]],
) -> Group:  # fmt: skip
    detected, areas = 0, []
    for run, mine, other in zip(runs, chosen, against, strict=True):
        members, nonmembers = run.members(attack)[mine], run.nonmembers(attack)
        detected += round(true_positive_rate(members, nonmembers, LOW_RATE) * len(members))
        if min(len(members), int(other.sum())) >= 2:
            areas.append(auc_interval(members, nonmembers[other]))
    m, k = (int(sum(part.sum() for part in parts)) for parts in (chosen, against))
    return Group(name, m, k, proportion(detected, m), over_seeds(areas) if len(areas) == len(runs) else None)


def front(accuracy: Sequence[float], leakage: Sequence[float]) -> list[int]:
    """The Pareto front: settings that no other setting dominates.

    A setting dominates another if it is at least as accurate, leaks at most as much, and is better
    in one of the two. Equal settings do not dominate each other.

    Returns:
        Indices, from the lowest accuracy to the highest.

    >>> front([0.6, 0.5, 0.7, 0.6], [0.3, 0.4, 0.5, 0.3])
    [0, 3, 2]
    """
    points = list(zip(accuracy, leakage, strict=True))
    undominated = [
        i for i, (a, b) in enumerate(points)
        if not any(x >= a and y <= b and (x, y) != (a, b) for x, y in points)
    ]  # fmt: skip
    return sorted(undominated, key=lambda i: points[i])
