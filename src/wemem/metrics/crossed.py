"""Intervals and paired differences of rates over several targets that are attacked on the same records.

The ``T x N`` scores of a leave-one-out audit depend on each other along targets (a model that overfits)
and along records (a record that every model memorizes). Another training run draws other targets, another
data set other records; an interval has to cover both.

Records are put into ``G`` groups. With ``v`` the rate of one target and ``v(-g)`` the same rate without the
records of group ``g``, the pseudo-value ``G v - (G - 1) v(-g)`` is what the group contributes (Tukey's
delete-a-group jackknife; Shao & Tu 1995). The table of pseudo-values, ``T x G``, is then analysed as a crossed
design with two random factors: with the mean squares of targets, groups and their interaction,

``Var = (MS_T + MS_G - MS_TG) / (T G)``,

and Satterthwaite's degrees of freedom, but no more than the factor with fewer levels has. The difference
between two arms whose targets and records are the same is analysed alike, on the difference of their tables;
what both have in common cancels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import expit, logit, stdtrit

from wemem.errors import InputError
from wemem.metrics.intervals import Estimate, unanimous
from wemem.metrics.registry import ScoredRecords

#: Groups of records. The rate without a group must still have both kinds of record, and ten groups
#: leave nine degrees of freedom.
GROUPS = 10

Table = Float[np.ndarray, "T G"]


@dataclass(frozen=True)
class Spread:
    """A mean over targets and records with its standard error.

    Args:
        value: the mean.
        error: its standard error.
        freedom: degrees of freedom of the error, at least 1.
    """

    value: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> Estimate:
        """Student's t interval; not cut to the range of a rate."""
        reach = self.error * float(stdtrit(self.freedom, (1 + level) / 2))
        return Estimate(self.value, self.value - reach, self.value + reach)

    def detectable(self, level: float = 0.95, power: float = 0.8) -> float:
        """The smallest true size that a test at a level would find with a power."""
        return self.error * float(stdtrit(self.freedom, (1 + level) / 2) + stdtrit(self.freedom, power))


def record_groups(records: int, rng: np.random.Generator) -> Int64[np.ndarray, " N"]:
    """A random group for each record: :data:`GROUPS` of equal size but for one record, fewer of few records."""
    return rng.permutation(np.arange(records) % max(2, min(GROUPS, records // 8)))


def pseudo_values(
    rate: Callable[[ScoredRecords], float], scores: Float[np.ndarray, "T N"], membership: Bool[np.ndarray, "T N"],
    groups: Int64[np.ndarray, " N"],
) -> tuple[float, Table]:  # fmt: skip
    """The mean of a rate over targets, and its table of pseudo-values.

    Rows are shifted so that their means are the rates of the targets: a rate at a low false positive rate moves in
    steps when records are left out, and the steps are no part of how targets differ.

    Args:
        rate: the rate of one target.
        scores: shape ``(T, N)``.
        membership: shape ``(T, N)``, true where the target was trained on the record.
        groups: the group of each record, shape ``(N,)``.

    Raises:
        InputError: a target without members or without non-members outside some group.
    """
    kept = [groups != group for group in range(int(groups.max()) + 1)]
    table = np.empty((len(scores), len(kept)))
    for target, (score, member) in enumerate(zip(scores, membership, strict=True)):
        without = np.array([rate(ScoredRecords(score[rows], member[rows])) for rows in kept])
        table[target] = rate(ScoredRecords(score, member)) - (len(kept) - 1) * (without - without.mean())
    return float(table.mean()), table


def crossed_spread(value: float, table: Table) -> Spread:
    """Standard error of a mean from its table of pseudo-values.

    Args:
        value: the mean over targets of the rate on all records.
        table: at least two targets and two groups.

    Raises:
        InputError: a table that is too small.

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
    # a difference of mean squares can fall below either of them by chance; the variance cannot
    total = max(of_targets + of_groups - of_both, of_targets, of_groups)
    if total == 0:
        return Spread(value, 0.0, float(min(targets, groups) - 1))
    pooled = of_targets**2 / (targets - 1) + of_groups**2 / (groups - 1) + of_both**2 / ((targets - 1) * (groups - 1))
    fewer = float(min(targets, groups) - 1)
    return Spread(value, float(np.sqrt(total / table.size)), max(1.0, min(float(total**2 / pooled), fewer)))


def crossed_interval(value: float, table: Table, level: float = 0.95) -> Estimate:
    """The interval of one rate in [0, 1], on the logit scale, where small rates are less skewed.

    Where every target and group agrees, the error is 0 and says nothing; the targets or groups that all agree, as many
    as there are of the fewer, then bound the value.
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
    """The mean of independent spreads, such as those of several seeds.

    >>> mean_of([Spread(0.0, 0.3, 4.0), Spread(1.0, 0.4, 4.0)])
    Spread(value=0.5, error=0.25, freedom=7.418397626112758)
    """
    variances = np.array([spread.error**2 for spread in spreads])
    value = float(np.mean([spread.value for spread in spreads]))
    if not variances.any():
        return Spread(value, 0.0, min(spread.freedom for spread in spreads))
    freedom = variances.sum() ** 2 / sum(v**2 / s.freedom for v, s in zip(variances, spreads, strict=True))
    return Spread(value, float(np.sqrt(variances.sum()) / len(spreads)), float(freedom))
