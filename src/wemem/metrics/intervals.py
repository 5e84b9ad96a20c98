"""Rates with confidence intervals, and the intervals of means over seeds.

The interval to report depends on what varies:

* records: another draw of members and non-members, the trained models being what they are. :func:`proportion`,
  :func:`balanced_accuracy`, :func:`auc_interval` and :func:`tpr_at_fpr`, which take the records of one target to be
  independent of each other given its model.
* training runs: :func:`mean_interval` and :func:`paired_difference` over seeds.
* records and targets at once, where all models of one reference ensemble are attacked on the same records:
  :mod:`wemem.metrics.crossed`.

Whoever reports the strongest of several attacks takes its interval at :func:`corrected_level`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import bdtr, bdtrc, betaincinv, expit, logit, ndtri, stdtrit

from wemem.errors import InputError
from wemem.metrics.rates import Members, Nonmembers, auc, ordered, placements, true_positive_rate


@dataclass(frozen=True)
class Estimate:
    """A measured value and its confidence interval, ``low <= value <= high``, in the unit of the value."""

    value: float
    low: float
    high: float


def corrected_level(level: float, attacks: int) -> float:
    """The level at which to take each of ``attacks`` intervals, so that all hold at once with confidence ``level``.

    ``1 - (1 - level) / attacks`` (Bonferroni). If all hold, then so does that of the attack picked for being the
    strongest, however it was picked. Bonferroni and not Sidak: attacks on the same records are dependent.

    Raises:
        InputError: ``level`` not between 0 and 1, or no attack.

    >>> round(corrected_level(0.95, 10), 6)
    0.995
    """
    if attacks < 1:
        raise InputError(f"expected at least 1 attack, got {attacks}")
    return 1 - _error(level) / attacks


def proportion(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """A share of independent yes-or-no outcomes, such as test accuracy, with the Clopper-Pearson (1934) interval.

    The ends are the shares under which so many, or so few, successes have probability ``(1 - level) / 2``. Chosen over
    Wilson's because it covers at least ``level`` for every true share and every ``trials``; Wilson's does so only on
    average over shares, and falls short near 0 and 1, where accuracies on training data lie. The price at
    1,000 trials is about a thousandth in width.

    Raises:
        InputError: no trials, successes outside ``0 .. trials``, or ``level`` not between 0 and 1.

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
    """``(TPR + TNR) / 2`` of calls made at thresholds that were chosen on other records.

    Two independent proportions p, q with Wilson intervals (l, u), (l', u') are combined by Newcombe's (1998)
    square-and-add: ``(p + q) / 2 - sqrt((p - l)^2 + (q - l')^2) / 2``, and above likewise. Unlike the normal
    approximation it stays in [0, 1] and has a width where every call was right. Coverage is ``level`` on average over
    rates, not at each: for 0.95 and 100 records a side it is never below 0.938 for rates from 0.01 to 0.99. With
    thresholds per class the calls vary less than binomial ones, which errs on the wide side.

    Args:
        member_calls: shape ``(m,)``, true where a member was called a member.
        nonmember_calls: shape ``(n,)``, true where a non-member was called a member.
        level: confidence level.

    Raises:
        InputError: empty or not boolean calls, or ``level`` not between 0 and 1.

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
    """AUC with DeLong's variance on the logit scale, which keeps the interval in [0, 1].

    ``var = S_x / m + S_y / n``, the S being the variances of the :func:`~wemem.metrics.rates.placements` (DeLong et al.
    1988), and ``logit(AUC) -+ z sqrt(var) / (AUC (1 - AUC))`` mapped back (Pepe 2003).

    Where the AUC is so near 0 or 1 that few pairs are out of order, coverage may fall short: to 0.91 for 0.95.

    That variance is 0 in three cases and no other: the AUC is 0, it is 1, or all scores are equal. An interval of no
    width would be absurd, so an exact one is given. Match k = min(m, n) members with as many non-members, each once:
    the pairs are independent and all came out alike, so with confidence ``level`` a pair does so with probability at
    least ``l = ((1 - level) / 2)**(1 / k)``, as in Clopper-Pearson with k of k. Whatever the other pairs do, the AUC
    is in ``[l AUC, l AUC + 1 - l]``. Where a side has one record its variance is unknown: the interval is [0, 1].

    Raises:
        InputError: no members, no non-members, NaN, or ``level`` not between 0 and 1.

    With 100 on each side and no error, the lower end solves ``p**100 = 0.025``:

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
    """TPR at a given FPR, with an interval that knows that the threshold was estimated too.

    The interval is for the TPR of the threshold that accuses ``fpr`` of *all* non-members, not of those at hand: for
    scores X of members and Y of non-members, ``P(X > c)`` with c the least value for which ``P(Y > c) <= fpr``. Two
    errors are bounded on their own and combined, as independent ones are, by their squares (Zou & Donner 2008):

    * of the members, at the threshold as it is: Clopper and Pearson's ends ``l`` and ``u``;
    * of the threshold, with the members as they are. Let ``y_j`` be the j-th highest of the n non-members, B a
      binomial(n, fpr) and e = 1 - level. ``c > y_a`` has probability at most ``P(B < a)``; take the largest a for which
      that is at most e/2. ``c < y_b`` has probability at most ``P(B >= b)``; take the smallest b for which that is at
      most e/2. The shares of members above y_a and above y_b are the ends ``l'`` and ``u'``.

    With v the TPR, the interval is from ``v - sqrt((v - l)^2 + (v - l')^2)`` to ``v + sqrt((u - v)^2 + (u' - v)^2)``.

    Where non-members above ``y_b`` are tied, the share of members jumps with the threshold, and errors do not
    combine by squares. Then a and b are taken at e/4, and the ends are Clopper and Pearson's one-sided bounds at e/4
    of the shares above y_a and above y_b. The four errors add up to at most e, for every distribution.

    Where no a will do, ``(1 - fpr)**n > e/2``, the sample cannot bound c from above and the lower end is 0: below 368
    non-members at 1 %, and below 3,688 at 0.1 %. Where no b up to n will do, the upper end is 1. Coverage was
    simulated: ``benchmarks/interval_coverage.py``.

    Args:
        members: shape ``(m,)``.
        nonmembers: shape ``(n,)``.
        fpr: the false positive rate, in (0, 1).
        level: confidence level.

    Returns:
        :func:`~wemem.metrics.rates.true_positive_rate` and the interval.

    Raises:
        InputError: no members, no non-members, NaN, or ``fpr`` or ``level`` not between 0 and 1.

    Every member is above every non-member, yet ten non-members say nothing about the highest 1 % of them:

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
    own = proportion(round(value * len(x)), len(x), level)
    low = max(0.0, value - np.hypot(value - own.low, value - (x > y[-a]).mean())) if a > 0 else 0.0
    high = min(1.0, value + np.hypot(own.high - value, (x > y[-b]).mean() - value)) if b <= len(y) else 1.0
    return Estimate(value, float(low), float(high))


def _threshold_places(n: int, fpr: float, error: float) -> tuple[int, int]:
    """Places a and b from the highest non-member, between which the threshold lies but for an error on each side.

    a is 0 and b is ``n + 1`` where the sample does not bound it.
    """
    counts = np.arange(n + 1)
    return int((bdtr(counts, n, fpr) <= error).sum()), 1 + int((bdtrc(counts, n, fpr) > error).sum())


def mean_interval(values: Float[np.ndarray, " s"], level: float = 0.95) -> Estimate:
    """Mean over seeds with Student's t interval, ``mean -+ t sd / sqrt(s)`` with s - 1 degrees of freedom.

    For runs that share nothing. Targets of one ensemble share records, so that their spread tells only a part
    of the uncertainty: :mod:`wemem.metrics.crossed`. Equal values give an interval of no width: s values say no more.

    Raises:
        InputError: fewer than two values, values that are not finite, or ``level`` not between 0 and 1.

    >>> two = mean_interval(np.array([0.0, 2.0]))  # sd / sqrt(s) = 1, t = 12.706
    >>> two.value, round(two.high, 3)
    (1.0, 13.706)
    """
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"expected values (s,) of at least 2 seeds, got shape {values.shape}; run more seeds")
    if not np.isfinite(values).all():
        raise InputError("expected finite values, got NaN or infinity; a run failed or its measure is unbounded")
    center = float(values.mean())
    reach = float(stdtrit(len(values) - 1, 1 - _error(level) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(center, center - reach, center + reach)


def paired_difference(a: Float[np.ndarray, " s"], b: Float[np.ndarray, " s"], level: float = 0.95) -> Estimate:
    """Mean of ``a - b``, seed by seed, with Student's t interval.

    Two defenses run with the same seeds share split, dense model and shadows; what these contribute cancels in the
    differences, and two overlapping intervals can hide a difference that is always there.

    Raises:
        InputError: different numbers of seeds, fewer than two, or values that are not finite.

    >>> paired_difference(np.array([0.9, 0.7]), np.array([0.8, 0.6])).value.__round__(9)
    0.1
    """
    if a.shape != b.shape:
        raise InputError(f"expected the same seeds on both sides, got shapes {a.shape} and {b.shape}")
    return mean_interval(a - b, level)


def _error(level: float) -> float:
    """``1 - level``, checked."""
    if not 0 < level < 1:
        raise InputError(f"expected a confidence level between 0 and 1, got {level}; 0.95 is 95 %")
    return 1 - level


def _wilson(successes: int, trials: int, level: float) -> Estimate:
    """Wilson's (1927) score interval: all p with ``|p - successes / trials| <= z sqrt(p (1 - p) / trials)``."""
    z2 = float(ndtri(1 - _error(level) / 2)) ** 2
    share = successes / trials
    center = (successes + z2 / 2) / (trials + z2)
    reach = np.sqrt(z2 * (share * (1 - share) * trials + z2 / 4)) / (trials + z2)
    return Estimate(share, max(0.0, float(center - reach)), min(1.0, float(center + reach)))


def unanimous(value: float, units: int, level: float = 0.95) -> Estimate:
    """The interval of a mean over [0, 1] of which some independent values were seen, all of them ``value``.

    Args:
        value: the value that was seen every time.
        units: the number of independent values.
        level: confidence level.
    """
    alike = (_error(level) / 2) ** (1 / units)
    return Estimate(value, alike * value, value + (1 - alike) * (1 - value))
