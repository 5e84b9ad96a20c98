"""Intervals: limit cases, published figures, and coverage, exact where it can be summed and simulated where not."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wemem.errors import InputError
from wemem.metrics.intervals import (
    auc_interval,
    balanced_accuracy,
    corrected_level,
    mean_interval,
    paired_difference,
    proportion,
    tpr_at_fpr,
)
from wemem.metrics.rates import auc, true_positive_rate

tied = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf]), min_size=1, max_size=12).map(np.array)
levels = st.floats(0.5, 0.999)

# DeLong et al. (1988): serum albumin of patients with ovarian cancer whom surgery helped, and of those whom it did not.
HELPED = (
    "3.2 3.9 3.2 1.6 3.8 3.7 3.2 3.8 4.1 3.6 4.3 2.3 3.5 3.8 4.5 3.7 "
    "3.1 4.1 4.3 4.3 3.2 2.6 3.7 3.3 4.2 3.5 2.1 4.0 3.3 3.7 3.6"
)
NOT_HELPED = "3.0 2.8 0.9 2.5 3.6 4.2 4.0 3.0 3.3 1.7 2.9 2.8"


def calls(true: int, total: int) -> np.ndarray:
    return np.arange(total) < true


def covers(estimate, truth):
    return estimate.low <= truth <= estimate.high


def pooled_auc(scores: np.ndarray, membership: np.ndarray) -> float:
    return auc(scores[membership], scores[~membership])


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (1, 7), (620, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.995])
def test_proportion_has_the_interval_that_scipy_calls_exact(successes, trials, level):
    expected = stats.binomtest(successes, trials).proportion_ci(level, "exact")
    estimate = proportion(successes, trials, level)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert estimate.value == successes / trials


@pytest.mark.parametrize("trials", [1, 8, 40])
def test_proportion_covers_at_every_share(trials):
    estimates = [proportion(s, trials) for s in range(trials + 1)]
    for share in np.linspace(0, 1, 201):
        hit = [covers(e, share) for e in estimates]
        assert stats.binom.pmf(np.arange(trials + 1), trials, share)[hit].sum() >= 0.95 - 1e-12


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_successes_outside_the_trials_are_refused(successes, trials):
    with pytest.raises(InputError, match=f"got {successes} of {trials}"):
        proportion(successes, trials)


@pytest.mark.parametrize(("tp", "m", "tn", "n"), [(56, 70, 32, 80), (9, 10, 7, 10), (10, 10, 20, 20), (0, 10, 0, 20)])
def test_balanced_accuracy_is_half_of_newcombes_interval_of_a_difference(tp, m, tn, n):
    """TPR + TNR = 1 + (TPR - FPR), and for a difference the interval is published: 56/70 - 48/80 has 0.0524, 0.3339."""
    rate, other = tp / m, (n - tn) / n
    low, high = stats.binomtest(tp, m).proportion_ci(method="wilson")
    other_low, other_high = stats.binomtest(n - tn, n).proportion_ci(method="wilson")
    below = rate - other - np.hypot(rate - low, other_high - other)
    above = rate - other + np.hypot(high - rate, other - other_low)
    if (tp, n - tn) == (56, 48):
        assert (below, above) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    estimate = balanced_accuracy(calls(tp, m), calls(n - tn, n))
    assert (estimate.low, estimate.high) == pytest.approx(((1 + below) / 2, (1 + above) / 2), abs=1e-12)
    assert estimate.value == pytest.approx((1 + rate - other) / 2)


def test_calling_everyone_a_member_has_balanced_accuracy_one_half():
    estimate = balanced_accuracy(calls(30, 30), calls(50, 50))
    assert estimate.value == 0.5
    assert estimate.low < 0.5 < estimate.high


def test_perfect_calls_have_an_interval_with_a_width():
    estimate = balanced_accuracy(calls(100, 100), calls(0, 100))
    assert estimate.high == estimate.value == 1
    assert estimate.low < 0.99


def test_balanced_accuracy_covers_on_average_and_nowhere_by_much_less():
    m, n = 30, 40
    estimates = [[balanced_accuracy(calls(i, m), calls(n - j, n)) for j in range(n + 1)] for i in range(m + 1)]
    low, high = (np.array([[getattr(e, end) for e in row] for row in estimates]) for end in ("low", "high"))
    coverage = []
    for tpr, tnr in product(np.linspace(0.02, 0.98, 13), repeat=2):
        probability = np.outer(stats.binom.pmf(np.arange(m + 1), m, tpr), stats.binom.pmf(np.arange(n + 1), n, tnr))
        truth = (tpr + tnr) / 2
        coverage.append(probability[(low <= truth) & (truth <= high)].sum())
    assert np.mean(coverage) >= 0.95
    assert np.min(coverage) >= 0.92


@pytest.mark.parametrize("bad", [np.array([], bool), np.array([0, 1]), np.ones((2, 2), bool)])
@pytest.mark.usefixtures("unchecked_shapes")
def test_calls_that_are_not_yes_or_no_are_refused(bad):
    for arguments in ((bad, calls(1, 2)), (calls(1, 2), bad)):
        with pytest.raises(InputError, match="expected boolean"):
            balanced_accuracy(*arguments)


def test_delong_standard_error_of_albumin_is_the_published_one():
    estimate = auc_interval(np.array(HELPED.split(), float), np.array(NOT_HELPED.split(), float))
    a = estimate.value
    slope = 1 / (a * (1 - a))
    width = np.log(estimate.high / (1 - estimate.high)) - np.log(estimate.low / (1 - estimate.low))
    assert a == pytest.approx(0.7366, abs=5e-5)
    assert width / (2 * stats.norm.ppf(0.975) * slope) == pytest.approx(0.0927, abs=5e-5)


@given(tied.filter(lambda s: len(s) > 1), tied.filter(lambda s: len(s) > 1), levels)
def test_auc_interval_is_that_of_the_whole_kernel(members, nonmembers, level):
    """The m x n table of wins, whose row and column means DeLong's variance is made of."""
    wins = (members[:, None] > nonmembers) + 0.5 * (members[:, None] == nonmembers)
    variance = wins.mean(1).var(ddof=1) / len(members) + wins.mean(0).var(ddof=1) / len(nonmembers)
    estimate, a = auc_interval(members, nonmembers, level), wins.mean()
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    if variance > 1e-12:
        reach = stats.norm.ppf((1 + level) / 2) * variance**0.5 / (a * (1 - a))
        center = np.log(a / (1 - a))
        ends = [1 / (1 + np.exp(-center - sign * reach)) for sign in (-1, 1)]
        assert (estimate.low, estimate.high) == pytest.approx(ends, abs=1e-9)
    else:
        assert a in (0, 0.5, 1)
        assert estimate.low < estimate.high


@pytest.mark.parametrize(("separation", "n"), [(0.0, 25), (0.5, 100), (1.5, 40), (2.0, 100)])
def test_auc_interval_covers_gaussian_scores(separation, n):
    rng, truth = np.random.default_rng(n), stats.norm.cdf(separation / 2**0.5)
    hits = [covers(auc_interval(rng.normal(separation, 1, n), rng.normal(0, 1, n)), truth) for _ in range(1000)]
    assert np.mean(hits) >= 0.95 - 3 * (0.95 * 0.05 / 1000) ** 0.5


def test_auc_interval_covers_scores_with_heavy_ties():
    rng = np.random.default_rng(0)
    on, off = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.4, 0.2])
    truth = sum(on[i] * off[j] * (1.0 if i > j else 0.5 if i == j else 0.0) for i, j in product(range(3), repeat=2))
    values, hits = np.array([0.0, 1.0, 2.0]), []
    for _ in range(600):
        hits.append(covers(auc_interval(rng.choice(values, 60, p=on), rng.choice(values, 80, p=off)), truth))
    assert np.mean(hits) >= 0.95 - 3 * (0.95 * 0.05 / 600) ** 0.5


def test_perfect_separation_leaves_room_for_the_worst_case():
    """A share q of members scores lowest: none is among 50 with probability (1 - q)^50, and the AUC is 1 - q."""
    estimate = auc_interval(np.ones(50), np.zeros(80))
    assert (estimate.value, estimate.high) == (1, 1)
    assert estimate.low**50 == pytest.approx(0.025)
    mirrored = auc_interval(np.zeros(50), np.ones(80))
    assert (mirrored.low, mirrored.high) == pytest.approx((0, 1 - estimate.low))


def test_constant_scores_leave_room_on_both_sides_of_one_half():
    estimate = auc_interval(np.zeros(50), np.zeros(80))
    assert estimate.value == 0.5
    assert 0.4 < estimate.low < 0.5 < estimate.high < 0.6


def test_a_single_member_says_nothing_about_the_auc():
    estimate = auc_interval(np.array([0.7]), np.linspace(0, 1, 100))
    assert (estimate.low, estimate.high) == (0, 1)


@given(tied, tied)
def test_swapping_the_sides_mirrors_the_interval(members, nonmembers):
    one, other = auc_interval(members, nonmembers), auc_interval(nonmembers, members)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-12)


def tpr_bounds_by_loop(members, nonmembers, fpr, level):
    """The derivation in the docstring, word by word."""
    half, n, m = (1 - level) / 2, len(nonmembers), len(members)
    descending = sorted(nonmembers, reverse=True)
    binomial, value = stats.binom(n, fpr), true_positive_rate(members, nonmembers, fpr)

    def places(error):
        a = max((j for j in range(1, n + 1) if binomial.cdf(j - 1) <= error), default=None)
        return a, min((j for j in range(1, n + 1) if binomial.sf(j - 1) <= error), default=None)

    def shares(places, level):
        for place in places:
            found = 0 if place is None else sum(x > descending[place - 1] for x in members)
            yield found / m, stats.binomtest(found, m).proportion_ci(level, "exact")

    a, b = places(half)
    top = descending if b is None else descending[:b]
    if len(set(top)) < len(top):
        a, b = places(half / 2)
        (_, below), (_, above) = shares((a, b), 1 - half)
        return (0.0 if a is None else below.low), (1.0 if b is None else above.high)
    own = stats.binomtest(round(value * m), m).proportion_ci(level, "exact")
    (below, _), (above, _) = shares((a, b), level)
    low = max(0.0, value - ((value - own.low) ** 2 + (value - below) ** 2) ** 0.5)
    high = min(1.0, value + ((own.high - value) ** 2 + (above - value) ** 2) ** 0.5)
    return (0.0 if a is None else low), (1.0 if b is None else high)


@given(tied, st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.inf]), min_size=1, max_size=60).map(np.array), levels)
def test_tpr_interval_follows_its_derivation(members, nonmembers, level):
    for fpr in (0.01, 0.2, 0.5, 0.9):
        estimate = tpr_at_fpr(members, nonmembers, fpr, level)
        assert (estimate.low, estimate.high) == pytest.approx(
            tpr_bounds_by_loop(members, nonmembers, fpr, level), abs=1e-9
        )
        assert estimate.value == true_positive_rate(members, nonmembers, fpr)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@pytest.mark.parametrize("separation", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("fpr", "m", "n"), [(0.1, 30, 30), (0.01, 100, 100), (0.01, 600, 900), (0.001, 200, 300), (0.001, 900, 5000)]
)
@pytest.mark.parametrize("step", [0.0, 0.5], ids=["continuous", "discrete"])
def test_tpr_interval_covers_gaussian_scores(separation, fpr, m, n, step):
    """Z > t has a closed form; rounded to steps of one half, Z is above grid point t where it is above t + 1/4."""
    rng, repeats = np.random.default_rng([m, n]), 200
    cut = stats.norm.isf(fpr)
    if step:
        grid = np.arange(-20, 20) * step
        cut = grid[stats.norm.sf(grid + step / 2) <= fpr].min() + step / 2
    truth = stats.norm.sf(cut - separation)
    hits = 0
    for _ in range(repeats):
        members, nonmembers = rng.normal(separation, 1, m), rng.normal(0, 1, n)
        if step:
            members, nonmembers = np.round(members / step) * step, np.round(nonmembers / step) * step
        hits += covers(tpr_at_fpr(members, nonmembers, fpr), truth)
    assert hits / repeats >= 0.95 - 2 * (0.95 * 0.05 / repeats) ** 0.5


def test_tpr_interval_covers_where_a_lump_of_nonmembers_sits_at_the_threshold():
    """A tenth of the non-members and half of the members score exactly 1, the rest 0: at 5 % nobody may be accused."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        estimate = tpr_at_fpr(rng.binomial(1, 0.5, 300) * 1.0, rng.binomial(1, 0.1, 300) * 1.0, 0.05)
        assert covers(estimate, 0.0)
        assert estimate.value == 0


@pytest.mark.parametrize(("fpr", "n"), [(0.01, 368), (0.001, 3688)])
def test_a_lower_bound_above_zero_needs_this_many_nonmembers(fpr, n):
    members = np.ones(100)
    assert tpr_at_fpr(members, -np.arange(1.0, n), fpr).low == 0
    assert tpr_at_fpr(members, -np.arange(1.0, n + 1), fpr).low > 0.9


def test_tpr_interval_narrows_with_the_sample():
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(1.5, 1, 40_000), rng.normal(0, 1, 40_000)
    widths = []
    for n in (500, 4_000, 40_000):
        estimate = tpr_at_fpr(members[:n], nonmembers[:n], 0.01)
        widths.append(estimate.high - estimate.low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert widths[2] < 0.05


def test_mean_interval_is_students():
    values = np.random.default_rng(0).normal(size=6)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    estimate = mean_interval(values, 0.9)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_paired_difference_is_students_for_related_samples():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    estimate = paired_difference(a, b)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_pairing_removes_what_the_seeds_have_in_common():
    seeds = np.array([0.5, 0.7, 0.9, 0.6])
    own = np.array([0.001, -0.001, 0.002, 0.0])
    estimate = paired_difference(seeds + 0.02 + own, seeds)
    assert estimate.low > 0.01
    assert mean_interval(seeds + 0.02).low < mean_interval(seeds).high


@pytest.mark.parametrize("values", [np.array([1.0]), np.ones((2, 2)), np.array([1.0, np.nan]), np.array([1.0, np.inf])])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_mean_of_one_seed_or_of_failed_runs_is_refused(values):
    with pytest.raises(InputError, match="expected"):
        mean_interval(values)


@pytest.mark.usefixtures("unchecked_shapes")
def test_differences_of_unequal_seeds_are_refused():
    with pytest.raises(InputError, match="same seeds"):
        paired_difference(np.ones(3), np.ones(2))


def test_one_attack_needs_no_correction():
    assert corrected_level(0.95, 1) == pytest.approx(0.95)


def test_the_interval_of_the_strongest_of_ten_attacks_covers_after_correction():
    """Ten attacks at chance, the one that looks best picked: its corrected interval holds, the plain one does not."""
    rng, truth, repeats, plain, corrected = np.random.default_rng(0), 0.5, 400, 0, 0
    for _ in range(repeats):
        best = int(rng.binomial(200, truth, size=10).max())
        plain += covers(proportion(best, 200), truth)
        corrected += covers(proportion(best, 200, corrected_level(0.95, 10)), truth)
    assert corrected / repeats >= 0.95 > 0.9 > plain / repeats


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, np.nan])
def test_a_level_that_is_not_a_share_is_refused(level):
    scores = np.arange(4.0)
    for interval in (
        lambda: corrected_level(level, 2),
        lambda: proportion(1, 2, level),
        lambda: balanced_accuracy(calls(1, 2), calls(1, 2), level),
        lambda: auc_interval(scores, scores, level),
        lambda: tpr_at_fpr(scores, scores, 0.1, level),
        lambda: mean_interval(scores, level),
    ):
        with pytest.raises(InputError, match="level between 0 and 1"):
            interval()


def test_no_attack_needs_no_level():
    with pytest.raises(InputError, match="at least 1 attack"):
        corrected_level(0.95, 0)
