"""Rates with confidence intervals, and the intervals of means over seeds.

The interval to report depends on the source of variation:

* records, which are another draw of members and non-members for the same trained models:
  :func:`proportion`, :func:`balanced_accuracy`, :func:`auc_interval` and :func:`tpr_at_fpr`. They
  assume that the records of one target are independent of each other given its model.
* training runs: :func:`mean_interval` and :func:`paired_difference` over seeds.
* records and targets at once, where all models of one reference ensemble are attacked on the same
  records: :mod:`wemem.metrics.crossed`.

The strongest of several attacks needs an interval at :func:`corrected_level`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import bdtr, bdtrc, betaincinv, expit, logit, ndtri, stdtrit

from wemem.errors import InputError
from wemem.metrics.rates import Members, Nonmembers, auc, ordered, placements, true_positive_rate


@dataclass(frozen=True)
class Estimate:
    """A measured value and its confidence interval, ``low <= value <= high``, in the unit of the
    value.
    """

    value: float
    low: float
    high: float


def corrected_level(level: float, attacks: int) -> float:
    """Compute the level of each of ``attacks`` intervals at which all hold at once with confidence
    ``level``.

    It is ``1 - (1 - level) / attacks`` (Bonferroni). If all intervals hold, then so does that of
    the strongest attack, by whatever rule it is chosen. Sidak's correction does not apply, because
    attacks on the same records are dependent.

    Raises:
        InputError: ``level`` is not between 0 and 1, or there is no attack.

    >>> round(corrected_level(0.95, 10), 6)
    0.995
    """
    if attacks < 1:
        raise InputError(f"expected at least 1 attack, got {attacks}")
    return 1 - _error(level) / attacks


def proportion(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """Compute a share of independent binary outcomes, such as test accuracy, with the
    Clopper-Pearson (1934) interval.

    The ends are the shares under which this many or more successes, or this many or fewer, have
    probability ``(1 - level) / 2``. The interval covers at least ``level`` for every true share and
    every ``trials``. Wilson's does so only on average over shares, and falls short near 0 and 1,
    where accuracies on training data lie. At 1,000 trials, the Clopper-Pearson interval is wider by
    about a thousandth.

    Raises:
        InputError: there are no trials, successes are outside ``0 .. trials``, or ``level`` is not
            between 0 and 1.

    With 3 of 3, the lower end solves ``p**3 = 0.025``:

    >>> round(proportion(3, 3).low ** 3, 9), proportion(3, 3).high
    (0.025, 1.0)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"expected at least 1 trial and successes between 0 and trials, got {successes} of {trials}")
    half = _error(level) / 2
    low = float(betaincinv(successes, trials - successes + 1, half)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - half)) if successes < trials else 1.0
    return Estimate(successes / trials, low, high)


def balanced_accuracy(
    member_calls: Bool[np.ndarray, " m"], nonmember_calls: Bool[np.ndarray, " n"], level: float = 0.95
) -> Estimate:
    """Compute ``(TPR + TNR) / 2`` of calls at thresholds that were chosen on other records.

    Two independent proportions p, q with Wilson intervals (l, u), (l', u') are combined by the
    square-and-add method of Newcombe (1998). The lower end is ``(p + q) / 2 - sqrt((p - l)^2 + (q -
    l')^2) / 2``, and the upper end is computed likewise. Unlike the normal approximation, the
    interval stays in [0, 1] and has a positive width where every call is right. Coverage is
    ``level`` on average over rates, not at each rate: for 0.95 and 100 records of each kind, it is
    never below 0.938 for rates from 0.01 to 0.99. With one threshold per class, calls vary less
    than binomial ones, and the interval is too wide rather than too narrow.

    Args:
        member_calls: the calls on members, true where one was called a member, shape ``(m,)``.
        nonmember_calls: the calls on non-members, true where one was called a member, shape
            ``(n,)``.
        level: the confidence level.

    Raises:
        InputError: the calls are empty or not boolean, or ``level`` is not between 0 and 1.

    >>> balanced_accuracy(np.array([True, True, True, False]), np.array([False, True])).value
    0.625
    """
    for name, calls in (("member", member_calls), ("non-member", nonmember_calls)):
        if calls.dtype != np.bool_ or calls.ndim != 1 or len(calls) == 0:
            raise InputError(f"expected boolean {name} calls (n,), at least one, got {calls.dtype} {calls.shape}")
    tpr = _wilson(int(member_calls.sum()), len(member_calls), level)
    tnr = _wilson(int((~nonmember_calls).sum()), len(nonmember_calls), level)
    value = (tpr.value + tnr.value) / 2
    below = np.hypot(tpr.value - tpr.low, tnr.value - tnr.low) / 2
    above = np.hypot(tpr.high - tpr.value, tnr.high - tnr.value) / 2
    return Estimate(value, max(0.0, float(value - below)), min(1.0, float(value + above)))


def auc_interval(members: Members, nonmembers: Nonmembers, level: float = 0.95) -> Estimate:
    """Compute the AUC with DeLong's variance on the logit scale, which keeps the interval in [0,
    1].

    The variance is ``S_x / m + S_y / n``, where the S are the variances of the
    :func:`~wemem.metrics.rates.placements` (DeLong et al. 1988). The ends are those of
    ``logit(AUC) -+ z sqrt(var) / (AUC (1 - AUC))``, mapped back (Pepe 2003).

    Where the AUC is so near 0 or 1 that few pairs are out of order, coverage may fall short: to
    0.91 for 0.95.

    The variance is 0 in exactly three cases: the AUC is 0, it is 1, or all scores are equal. An
    interval of width 0 would be wrong, so an exact interval is used. Match k = min(m, n) members
    with as many non-members, each once. The pairs are independent and all have the same outcome. As
    in Clopper-Pearson with k of k, with confidence ``level`` the probability of this outcome is at
    least ``l = ((1 - level) / 2)**(1 / k)``. Whatever the other pairs are, the AUC is in ``[l AUC,
    l AUC + 1 - l]``. With only one member or one non-member the variance is unknown, and the
    interval is [0, 1].

    Raises:
        InputError: there are no members or no non-members, a score is NaN, or ``level`` is not
            between 0 and 1.

    With 100 members, 100 non-members and no error, the lower end solves ``p**100 = 0.025``:

    >>> best = auc_interval(np.full(100, 1.0), np.zeros(100))
    >>> best.value, round(best.low**100, 9), best.high
    (1.0, 0.025, 1.0)
    """
    error, value = _error(level), auc(members, nonmembers)
    of_members, of_nonmembers = placements(members, nonmembers)
    fewer = min(len(of_members), len(of_nonmembers))
    if fewer == 1:
        return Estimate(value, 0.0, 1.0)
    variance = of_members.var(ddof=1) / len(of_members) + of_nonmembers.var(ddof=1) / len(of_nonmembers)
    if variance == 0:
        return unanimous(value, fewer, level)
    reach = ndtri(1 - error / 2) * np.sqrt(variance) / (value * (1 - value))
    return Estimate(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def tpr_at_fpr(members: Members, nonmembers: Nonmembers, fpr: float, level: float = 0.95) -> Estimate:
    """Compute the TPR at a given FPR, with an interval that includes the error of the estimated
    threshold.

    The interval is for the TPR at the threshold with false positive rate ``fpr`` in the population
    of non-members, not in the sample. For scores X of members and Y of non-members, this is ``P(X >
    c)`` with c the least value for which ``P(Y > c) <= fpr``. Two errors are bounded separately and
    combined by their squares, as independent errors are (Zou & Donner 2008):

    * the error of the members, with the threshold fixed: the Clopper-Pearson ends ``l`` and ``u``;
    * the error of the threshold, with the members fixed. Let ``y_j`` be the j-th highest of the n
      non-members, B a binomial(n, fpr) and e = 1 - level. ``c > y_a`` has probability at most ``P(B
      < a)``; take the largest a for which that is at most e/2. ``c < y_b`` has probability at most
      ``P(B >= b)``; take the smallest b for which that is at most e/2. The shares of members above
      y_a and above y_b are the ends ``l'`` and ``u'``.

    With v the TPR, the interval is from ``v - sqrt((v - l)^2 + (v - l')^2)`` to ``v + sqrt((u -
    v)^2 + (u' - v)^2)``.

    Where non-members above ``y_b`` are tied, the share of members jumps with the threshold, and
    errors do not combine by squares. Then a and b are taken at e/4, and the ends are the one-sided
    Clopper-Pearson bounds at e/4 of the shares above y_a and above y_b. The four errors add up to
    at most e, for every distribution.

    Where no such a exists, ``(1 - fpr)**n > e/2``, the sample cannot bound c from above and the
    lower end is 0. This happens below 368 non-members at 1 %, and below 3,688 at 0.1 %. Where no
    such b up to n exists, the upper end is 1. Coverage was simulated:
    ``benchmarks/interval_coverage.py``.

    Args:
        members: the scores of members, shape ``(m,)``.
        nonmembers: the scores of non-members, shape ``(n,)``.
        fpr: the false positive rate, in (0, 1).
        level: the confidence level.

    Returns:
        The value of :func:`~wemem.metrics.rates.true_positive_rate`, and its interval.

    Raises:
        InputError: there are no members or no non-members, a score is NaN, or ``fpr`` or ``level``
            is not between 0 and 1.

    Every member is above every non-member, but ten non-members do not determine the highest 1 % of
    them:

    >>> few = tpr_at_fpr(np.full(50, 1.0), np.zeros(10), 0.01)
    >>> few.value, few.low, few.high
    (1.0, 0.0, 1.0)
    """
    value, error = true_positive_rate(members, nonmembers, fpr), _error(level)
    x, y = ordered(members, nonmembers)
    y = np.sort(y)
    a, b = _threshold_places(len(y), fpr, error / 2)
    if len(np.unique(y[-min(b, len(y)) :])) < min(b, len(y)):
        a, b = _threshold_places(len(y), fpr, error / 4)
        low = proportion(int((x > y[-a]).sum()), len(x), 1 - error / 2).low if a > 0 else 0.0
        high = proportion(int((x > y[-b]).sum()), len(x), 1 - error / 2).high if b <= len(y) else 1.0
        return Estimate(value, low, high)
    fixed = proportion(round(value * len(x)), len(x), level)
    low = max(0.0, value - np.hypot(value - fixed.low, value - (x > y[-a]).mean())) if a > 0 else 0.0
    high = min(1.0, value + np.hypot(fixed.high - value, (x > y[-b]).mean() - value)) if b <= len(y) else 1.0
    return Estimate(value, float(low), float(high))


@cache
def _threshold_places(n: int, fpr: float, error: float) -> tuple[int, int]:
    """The ranks a and b of the non-members that bound the threshold, each with at most the given
    error.

    a is 0 or b is ``n + 1`` where the sample does not bound the threshold on that side.
    """
    counts = np.arange(n + 1)
    return int((bdtr(counts, n, fpr) <= error).sum()), 1 + int((bdtrc(counts, n, fpr) > error).sum())


def mean_interval(values: Float[np.ndarray, " s"], level: float = 0.95) -> Estimate:
    """Compute the mean over seeds with Student's t interval, ``mean -+ t sd / sqrt(s)`` with s - 1
    degrees of freedom.

    The values must come from independent runs. Targets of one ensemble share records, so that their
    spread is only a part of the uncertainty; use :mod:`wemem.metrics.crossed` for them. Equal
    values give an interval of width 0.

    Raises:
        InputError: there are fewer than two values, some are not finite, or ``level`` is not
            between 0 and 1.

    >>> two = mean_interval(np.array([0.0, 2.0]))  # sd / sqrt(s) = 1, t = 12.706
    >>> two.value, round(two.high, 3)
    (1.0, 13.706)
    """
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"expected values (s,) of at least 2 seeds, got shape {values.shape}; run more seeds")
    if not np.isfinite(values).all():
        raise InputError("expected finite values, got NaN or infinity; a run failed or its metric is unbounded")
    center = float(values.mean())
    reach = float(stdtrit(len(values) - 1, 1 - _error(level) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(center, center - reach, center + reach)


def paired_difference(a: Float[np.ndarray, " s"], b: Float[np.ndarray, " s"], level: float = 0.95) -> Estimate:
    """Compute the mean of ``a - b``, seed by seed, with Student's t interval.

    Two defenses with the same seeds share the split, the dense model and the shadows, whose
    contributions cancel in the differences. Two separate intervals can overlap although one defense
    is better for every seed.

    Raises:
        InputError: the numbers of seeds differ, there are fewer than two, or values are not finite.

    >>> paired_difference(np.array([0.9, 0.7]), np.array([0.8, 0.6])).value.__round__(9)
    0.1
    """
    if a.shape != b.shape:
        raise InputError(f"expected the same seeds on both sides, got shapes {a.shape} and {b.shape}")
    return mean_interval(a - b, level)


def _error(level: float) -> float:
    """Compute ``1 - level``, and refuse a level that is not between 0 and 1."""
    if not 0 < level < 1:
        raise InputError(f"expected a confidence level between 0 and 1, got {level}; 0.95 is 95 %")
    return 1 - level


def _wilson(successes: int, trials: int, level: float) -> Estimate:
    """Wilson's (1927) score interval: all p with ``|p - successes / trials| <= z sqrt(p (1 - p) /
    trials)``.
    """
    z2 = float(ndtri(1 - _error(level) / 2)) ** 2
    share = successes / trials
    center = (successes + z2 / 2) / (trials + z2)
    reach = np.sqrt(z2 * (share * (1 - share) * trials + z2 / 4)) / (trials + z2)
    return Estimate(share, max(0.0, float(center - reach)), min(1.0, float(center + reach)))


def unanimous(value: float, units: int, level: float = 0.95) -> Estimate:
    """Compute the interval of the mean of a quantity in [0, 1] from independent observations that
    are all equal.

    Args:
        value: the value of every observation.
        units: the number of independent observations.
        level: the confidence level.
    """
    alike = (_error(level) / 2) ** (1 / units)
    return Estimate(value, alike * value, value + (1 - alike) * (1 - value))
