"""ROC curves of attacks and the shares of members found in groups, from stored scores.

Rates are those of :mod:`wemem.metrics.rates`.
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

#: Points of a curve, at most; spaced evenly in the logarithm of the number of false positives.
POINTS = 40
#: With fewer members than this, over all seeds, a group's share says little: at 30, its interval spans up to 37 points.
FEW = 30


@dataclass(frozen=True)
class CurvePoint:
    """A point of a ROC curve.

    Args:
        false_positives: number of false positives in the run that has fewest non-members.
        fpr: that number as a share.
        tpr: the share of members found at that rate.
        by_seed: the same for each seed.
    """

    false_positives: int
    fpr: float
    tpr: Estimate
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """The share that is found of a group of members.

    Args:
        group: 1 to 10, or the class.
        members, nonmembers: their numbers, summed over seeds; deciles are of members, beside all non-members.
        tpr: share of its members found at the threshold that takes at most 1 % of *all* non-members of the run for
            members, of all seeds together, with Clopper and Pearson's interval. The thresholds are taken as given:
            groups of one arm share them, so that the interval is for comparing these, not one arm with another.
        auc: the AUC of its members against the non-members of its class, or against all of them for a decile, as a
            mean over seeds; None where a side has fewer than two.
    """

    group: int
    members: int
    nonmembers: int
    tpr: Estimate
    auc: Estimate | None


def roc_points(runs: Sequence[RunScores], attack: str) -> list[CurvePoint]:
    """TPR at false positive rates from ``1 / n`` on, n being the non-members of the run that has fewest.

    Over several seeds a mean, with the mean ends of the seeds' own intervals,
    :func:`~wemem.metrics.intervals.tpr_at_fpr`, each at the level at which all of them hold at once with 95 %
    (Bonferroni). They are of the records, the threshold's own error included, and not of another training run: for
    that, see how far the seeds lie apart.
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
    """Members by decile of the defender's memorization score, from the least memorized to the most.

    In each run its members are ordered by score, those of equal score as they are stored; the one at place r of m,
    counted from 0, is in decile ``floor(10 r / m) + 1``. Members without a score are left out.

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
    """Members by class; classes without a member in some run are left out."""
    classes = sorted(set.intersection(*(set(run.classes[run.member].tolist()) for run in runs)))
    return [
        _group(
            c, runs, attack,
            [run.classes[run.member] == c for run in runs], [run.classes[~run.member] == c for run in runs],
        )
        for c in classes
    ]  # fmt: skip


def at_rate(points: Sequence[Mapping[str, Any]], fpr: float) -> Mapping[str, Any] | None:
    """The point of a curve that stands for a rate: that of the largest one not above it; None below ``1 / n``."""
    return max((point for point in points if point["fpr"] <= fpr), key=lambda point: point["fpr"], default=None)


def _false_positives(n: int) -> list[int]:
    """Whole numbers of false positives among ``n``, from 1 to ``n - 1``."""
    if n < 2:
        return []
    spaced = np.rint(np.geomspace(1, n - 1, POINTS)).astype(int)
    marked = [int(np.floor(fpr * n + 1e-9)) for fpr in fprs()]
    return sorted({*spaced.tolist(), *(k for k in marked if k >= 1)})


def _deciles(run: RunScores) -> np.ndarray | None:
    """For each member its decile from 0 to 9, -1 without a score; None for fewer than ten scores."""
    if run.memorization is None:
        return None
    scores = run.memorization[run.member]
    known = np.flatnonzero(~np.isnan(scores))
    if len(known) < 10:
        return None
    found = np.full(len(scores), -1)
    found[known[np.argsort(scores[known], kind="stable")]] = 10 * np.arange(len(known)) // len(known)
    return found


def _group(
    name: int, runs: Sequence[RunScores], attack: str,
    chosen: Sequence[Bool[np.ndarray, " m"]], against: Sequence[Bool[np.ndarray, " k"]],
) -> Group:  # fmt: skip
    found, areas = 0, []
    for run, mine, other in zip(runs, chosen, against, strict=True):
        members, nonmembers = run.members(attack)[mine], run.nonmembers(attack)
        found += round(true_positive_rate(members, nonmembers, LOW_RATE) * len(members))
        if min(len(members), int(other.sum())) >= 2:
            areas.append(auc_interval(members, nonmembers[other]))
    m, k = (int(sum(part.sum() for part in parts)) for parts in (chosen, against))
    return Group(name, m, k, proportion(found, m), over_seeds(areas) if len(areas) == len(runs) else None)


def front(accuracy: Sequence[float], leakage: Sequence[float]) -> list[int]:
    """The settings that no other beats: none is at least as accurate, leaks at most as much, and is better in one.

    Equal settings do not beat each other.

    Returns:
        Indices, from the least accurate to the most.

    >>> front([0.6, 0.5, 0.7, 0.6], [0.3, 0.4, 0.5, 0.3])
    [0, 3, 2]
    """
    points = list(zip(accuracy, leakage, strict=True))
    kept = [
        i for i, (a, b) in enumerate(points)
        if not any(x >= a and y <= b and (x, y) != (a, b) for x, y in points)
    ]  # fmt: skip
    return sorted(kept, key=lambda i: points[i])
