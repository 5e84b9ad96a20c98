"""Intervals and paired differences of rates over several targets that are attacked on the same
records.

The ``T x N`` scores of a leave-one-out audit are dependent along targets (one model overfits more)
and along records (every model memorizes one record). Another training run draws other targets,
another data set draws other records, and an interval has to cover both.

Records are divided into ``G`` groups. With ``v`` the rate of one target and ``v(-g)`` the same rate
without the records of group ``g``, the pseudo-value ``G v - (G - 1) v(-g)`` is the contribution of
the group (Tukey's delete-a-group jackknife; Shao & Tu 1995). The table of pseudo-values, ``T x G``,
is analysed as a crossed design with two random factors. With the mean squares of targets, groups
and their interaction, the variance is

``Var = (MS_T + MS_G - MS_TG) / (T G)``.

The degrees of freedom are Satterthwaite's, but at most those of the factor with fewer levels. The
difference between two arms with the same targets and records is analysed in the same way, on the
difference of their tables, in which everything that both arms share cancels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import expit, logit, stdtrit

from wemem.errors import InputError
from wemem.metrics.intervals import Estimate, unanimous
from wemem.metrics.registry import ScoredRecords

#: The number of groups of records. The records outside a group must still include members and
#: non-members, and ten groups leave nine degrees of freedom.
GROUPS = 10

Table = Float[np.ndarray, "T G"]


@dataclass(frozen=True)
class Spread:
    """A mean over targets and records with its standard error.

    Args:
        value: the mean.
        error: the standard error of the mean.
        freedom: the degrees of freedom of the error, at least 1.
    """

    value: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> Estimate:
        """Compute Student's t interval, which is not cut to the range of a rate."""
        reach = self.error * float(stdtrit(self.freedom, (1 + level) / 2))
        return Estimate(self.value, self.value - reach, self.value + reach)

    def detectable(self, level: float = 0.95, power: float = 0.8) -> float:
        """Compute the smallest true value that a test at a level detects with a given power."""
        return self.error * float(stdtrit(self.freedom, (1 + level) / 2) + stdtrit(self.freedom, power))


def record_groups(records: int, rng: np.random.Generator) -> Int64[np.ndarray, " N"]:
    """Draw a group for each record: :data:`GROUPS` groups whose sizes differ by at most one, fewer
    for few records.
    """
    return rng.permutation(np.arange(records) % max(2, min(GROUPS, records // 8)))


def pseudo_values(
    rate: Callable[[ScoredRecords], float], scores: Float[np.ndarray, "T N"], membership: Bool[np.ndarray, "T N"],
    groups: Int64[np.ndarray, " N"],
) -> tuple[float, Table]:  # fmt: skip
    """Compute the mean of a rate over targets, and its table of pseudo-values.

    Each row is shifted so that its mean is the rate of the target. A rate at a low false positive
    rate moves in steps when records are left out, and these steps say nothing about the difference
    between targets.

    Args:
        rate: a function that computes the rate of one target.
        scores: the scores of each target, shape ``(T, N)``.
        membership: the membership in each target's training records, shape ``(T, N)``.
        groups: the group of each record, shape ``(N,)``.

    Raises:
        InputError: for some target, the records outside some group have no members or no
            non-members.
    """
    remaining = [groups != group for group in range(int(groups.max()) + 1)]
    table = np.empty((len(scores), len(remaining)))
    for target, (score, member) in enumerate(zip(scores, membership, strict=True)):
        without = np.array([rate(ScoredRecords(score[rows], member[rows])) for rows in remaining])
        table[target] = rate(ScoredRecords(score, member)) - (len(remaining) - 1) * (without - without.mean())
    return float(table.mean()), table


def crossed_spread(value: float, table: Table) -> Spread:
    """Compute the standard error of a mean from its table of pseudo-values.

    Args:
        value: the mean over targets of the rate on all records.
        table: the table of pseudo-values, of at least two targets and two groups.

    Raises:
        InputError: the table has fewer than two targets or two groups.

    Where only targets differ, the error is that of a mean over targets:

    >>> crossed_spread(1.0, np.array([[0.0, 0.0], [2.0, 2.0]]))
    Spread(value=1.0, error=1.0, freedom=1.0)
    """
    targets, groups = table.shape
    if min(targets, groups) < 2:
        raise InputError(f"expected at least 2 targets and 2 groups of records, got {targets} and {groups}")
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_targets = groups * rows.var(ddof=1)
    of_groups = targets * columns.var(ddof=1)
    rest = table - rows[:, None] - columns + mean
    of_both = float((rest**2).sum() / ((targets - 1) * (groups - 1)))
    # by chance the difference of mean squares can be smaller than one of them, but the variance
    # cannot
    total = max(of_targets + of_groups - of_both, of_targets, of_groups)
    if total == 0:
        return Spread(value, 0.0, float(min(targets, groups) - 1))
    pooled = of_targets**2 / (targets - 1) + of_groups**2 / (groups - 1) + of_both**2 / ((targets - 1) * (groups - 1))
    fewer = float(min(targets, groups) - 1)
    return Spread(value, float(np.sqrt(total / table.size)), max(1.0, min(float(total**2 / pooled), fewer)))


def crossed_interval(value: float, table: Table, level: float = 0.95) -> Estimate:
    """Compute the interval of one rate in [0, 1], on the logit scale, on which small rates are less
    skewed.

    Where all targets and groups agree, the estimated error is 0 and the interval comes from
    :func:`unanimous`, with the number of targets or of groups, whichever is smaller.
    """
    spread = crossed_spread(value, table)
    if spread.error == 0:
        return unanimous(value, min(table.shape), level)
    if not 0 < value < 1:
        raw = spread.interval(level)
        return Estimate(value, max(0.0, raw.low), min(1.0, raw.high))
    reach = spread.error / (value * (1 - value)) * float(stdtrit(spread.freedom, (1 + level) / 2))
    return Estimate(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def mean_of(spreads: Sequence[Spread]) -> Spread:
    """Average independent spreads, such as those of several seeds.

    >>> mean_of([Spread(0.0, 0.3, 4.0), Spread(1.0, 0.4, 4.0)])
    Spread(value=0.5, error=0.25, freedom=7.418397626112758)
    """
    variances = np.array([spread.error**2 for spread in spreads])
    value = float(np.mean([spread.value for spread in spreads]))
    if not variances.any():
        return Spread(value, 0.0, min(spread.freedom for spread in spreads))
    freedom = variances.sum() ** 2 / sum(v**2 / s.freedom for v, s in zip(variances, spreads, strict=True))
    return Spread(value, float(np.sqrt(variances.sum()) / len(spreads)), float(freedom))
