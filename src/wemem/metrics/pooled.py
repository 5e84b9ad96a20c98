"""A rate over several targets at one threshold, with an interval that covers other targets and other
records.

Few records per target leave no room for a low false positive rate. All targets together do: their
scores are compared with one threshold, as Carlini et al. (2022) and Aerni et al. (2024) do.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import expit, logit, stdtrit

from wemem.metrics.crossed import GROUPS
from wemem.metrics.intervals import Estimate, unanimous
from wemem.metrics.registry import ScoredRecords


def pooled_estimate(
    rate: Callable[[ScoredRecords], float], scores: Float[np.ndarray, "T N"], membership: Bool[np.ndarray, "T N"],
    rng: np.random.Generator, level: float = 0.95,
) -> Estimate:  # fmt: skip
    """Compute a rate over all targets and records at once, with its interval.

    The variance is the sum of two delete-a-group jackknife variances, one over groups of targets
    and one over groups of records. That counts their interaction twice, which errs on the safe
    side. The interval is Student's on the logit scale.

    Args:
        rate: the rate of some scored records.
        scores: the scores of each target, shape ``(T, N)``, of at least two targets and records.
        membership: the membership in each target's training records, shape ``(T, N)``.
        rng: the generator that draws the groups.
        level: the level of the interval.

    >>> scores = np.arange(8.0).reshape(2, 4)
    >>> member = np.array([[False, False, True, True]] * 2)
    >>> share = lambda records: float((records.members > 2).mean())
    >>> pooled_estimate(share, scores, member, np.random.default_rng(0)).value
    0.75
    """
    value = rate(ScoredRecords(scores.ravel(), membership.ravel()))
    groups = [_groups(size, rng) for size in scores.shape]
    variance = 0.0
    for axis, group in enumerate(groups):
        left_out = [
            rate(ScoredRecords(*(np.compress(group != g, array, axis).ravel() for array in (scores, membership))))
            for g in range(int(group.max()) + 1)
        ]
        variance += _jackknife_variance(left_out)
    fewest = min(int(group.max()) + 1 for group in groups)
    if variance == 0 or not 0 < value < 1:
        edge = unanimous(value, min(scores.shape), level)
        reach = float(np.sqrt(variance) * stdtrit(fewest - 1, (1 + level) / 2))
        return Estimate(value, max(0.0, min(edge.low, value - reach)), min(1.0, max(edge.high, value + reach)))
    reach = float(np.sqrt(variance) / (value * (1 - value)) * stdtrit(fewest - 1, (1 + level) / 2))
    return Estimate(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def _groups(size: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    return np.asarray(rng.permutation(np.arange(size) % min(GROUPS, size)))


def _jackknife_variance(left_out: Sequence[float]) -> float:
    values = np.asarray(left_out)
    return float((len(values) - 1) / len(values) * np.square(values - values.mean()).sum())
