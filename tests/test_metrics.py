"""What an audit measures: brute-force twins, scikit-learn, and what must hold whatever the scores are."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from wemem.errors import InputError
from wemem.metrics.rates import auc, best_threshold, mean_fpr, placements, roc, smallest_fpr, true_positive_rate

#: Few distinct values, so that ties are everywhere; infinities are scores like any other.
tied = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf]), min_size=1, max_size=12).map(np.array)
anything = st.lists(st.floats(allow_nan=False), min_size=1, max_size=12).map(np.array)
scores = tied | anything
rates = st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from([0.1, 0.2, 0.25, 0.5])


def auc_by_counting(members, nonmembers):
    return np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x, y in product(members, nonmembers)])


def balanced_right(members, nonmembers, threshold):
    """Balanced accuracy in units of 1 / 2mn."""
    tp, tn = sum(x >= threshold for x in members), sum(y < threshold for y in nonmembers)
    return tp * len(nonmembers) + tn * len(members)


def threshold_by_loop(members, nonmembers):
    best, chosen = -1, None
    for candidate in [*members, *nonmembers]:
        right = balanced_right(members, nonmembers, candidate)
        if right > best:
            best, chosen = right, candidate
    return chosen


def tpr_by_loop(members, nonmembers, fpr):
    """The best rule "score > t" among those that accuse no more than they may."""
    best = 0
    for t in [-np.inf, *members, *nonmembers]:
        if sum(y > t for y in nonmembers) / len(nonmembers) <= fpr:
            best = max(best, sum(x > t for x in members))
    return best / len(members)


def ranks(*arrays):
    """The same order in small whole numbers."""
    _, codes = np.unique(np.concatenate(arrays), return_inverse=True)
    return np.split(codes.astype(float), np.cumsum([len(a) for a in arrays])[:-1])


@pytest.mark.parametrize("constant", [0.0, -3.5, np.inf])
def test_constant_score_has_auc_one_half(constant):
    assert auc(np.full(7, constant), np.full(3, constant)) == 0.5


def test_separated_scores_have_auc_one():
    assert auc(np.array([2.0, 3.0]), np.array([1.0, -np.inf])) == 1.0


@given(scores, scores)
def test_auc_is_the_share_of_pairs_won(members, nonmembers):
    assert auc(members, nonmembers) == pytest.approx(auc_by_counting(members, nonmembers), abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_auc_equals_that_of_scikit_learn(decimals):
    rng = np.random.default_rng(decimals)
    members, nonmembers = rng.normal(1, 1, 500).round(decimals), rng.normal(0, 1, 300).round(decimals)
    truth = np.repeat([1, 0], [500, 300])
    assert auc(members, nonmembers) == pytest.approx(roc_auc_score(truth, np.concatenate([members, nonmembers])))


@given(scores, scores)
def test_swapping_the_sides_mirrors_the_auc(members, nonmembers):
    assert auc(members, nonmembers) == pytest.approx(1 - auc(nonmembers, members), abs=1e-15)


@given(scores, scores)
def test_both_kinds_of_placements_average_to_the_auc(members, nonmembers):
    for of_side in placements(members, nonmembers):
        assert of_side.mean() == pytest.approx(auc(members, nonmembers), abs=1e-12)


@given(scores, scores, rates)
def test_only_the_order_of_scores_counts(members, nonmembers, fpr):
    x, y = ranks(members, nonmembers)
    assert auc(x, y) == auc(members, nonmembers)
    assert true_positive_rate(x, y, fpr) == true_positive_rate(members, nonmembers, fpr)
    assert [a.tolist() for a in roc(x, y)[:2]] == [a.tolist() for a in roc(members, nonmembers)[:2]]
    for side, observed in ((x, members), (y, nonmembers)):
        np.testing.assert_array_equal(side >= best_threshold(x, y), observed >= best_threshold(members, nonmembers))


@given(scores, scores)
def test_roc_points_are_the_rates_at_their_thresholds(members, nonmembers):
    fpr, tpr, thresholds = roc(members, nonmembers)
    for f, t, threshold in zip(fpr[1:], tpr[1:], thresholds[1:], strict=True):
        assert (f, t) == (np.mean(nonmembers >= threshold), np.mean(members >= threshold))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert len(thresholds) == 1 + len({*members, *nonmembers})


@given(scores, scores)
def test_area_under_the_roc_is_the_auc(members, nonmembers):
    fpr, tpr, _ = roc(members, nonmembers)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(members, nonmembers), abs=1e-12)


@given(scores, scores)
def test_best_threshold_is_the_first_best_candidate(members, nonmembers):
    assert best_threshold(members, nonmembers) == threshold_by_loop(members, nonmembers)


def test_equally_good_thresholds_are_settled_by_order_and_not_by_rounding():
    # At 5: TPR 1/2, TNR 4/6. At 1: TPR 1, TNR 1/6. Both average to 7/12, but not in floating point.
    nonmembers = np.array([5.0, 4, 2, 3, 0, 5])
    assert (1 / 2 + 4 / 6) / 2 < (1 + 1 / 6) / 2
    assert best_threshold(np.array([5.0, 1]), nonmembers) == 5
    assert best_threshold(np.array([1.0, 5]), nonmembers) == 1


def test_best_threshold_of_separated_scores_makes_no_error():
    rng = np.random.default_rng(0)
    members, nonmembers = rng.uniform(1, 2, 40), rng.uniform(0, 1, 60)
    assert best_threshold(members, nonmembers) == members.min()


@given(scores, scores, rates)
def test_tpr_at_fpr_is_that_of_the_best_rule_within_the_rate(members, nonmembers, fpr):
    x, y = ranks(members, nonmembers)
    assert true_positive_rate(members, nonmembers, fpr) == tpr_by_loop(x, y, fpr)


@given(scores, scores, rates)
def test_tpr_at_fpr_is_a_point_of_the_roc(members, nonmembers, fpr):
    false, true, _ = roc(members, nonmembers)
    assert true_positive_rate(members, nonmembers, fpr) == true[false <= fpr].max()


@pytest.mark.parametrize(("n", "fpr", "accused"), [(100, 0.29, 29), (300, 0.01, 3), (1000, 0.001, 1), (999, 0.001, 0)])
def test_false_positives_are_counted_without_rounding_errors(n, fpr, accused):
    # Members sit between the non-members, one in each gap: those above non-member n - accused are found.
    assert true_positive_rate(np.arange(n) + 0.5, np.arange(float(n)), fpr) == (accused + 1) / n


@pytest.mark.parametrize(("n", "fpr", "mean"), [(100, 0.01, 2 / 101), (199, 0.01, 0.01), (150, 0.1, 16 / 151)])
def test_the_mean_true_fpr_of_a_threshold_is_that_of_a_simulation(n, fpr, mean):
    assert mean_fpr(n, fpr) == pytest.approx(mean)
    draws = np.sort(np.random.default_rng(0).random((20_000, n)), axis=1)
    # of uniform scores, the share above a threshold t is 1 - t, and the TPR at a rate is that of one more sample
    place = n - 1 - (round(mean_fpr(n, fpr) * (n + 1)) - 1)
    assert (1 - draws[:, place]).mean() == pytest.approx(mean, rel=0.02)
    assert true_positive_rate(np.array([draws[0, place]]), draws[0], fpr) == 0
    assert true_positive_rate(np.array([np.nextafter(draws[0, place], 1)]), draws[0], fpr) == 1


def test_nonmembers_tied_at_the_threshold_are_all_spared():
    assert true_positive_rate(np.array([2.0, 2.0, 3.0]), np.full(100, 2.0), 0.5) == 1 / 3


@pytest.mark.parametrize("n", [2, 50, 1000])
def test_below_the_smallest_fpr_no_false_positive_is_allowed(n):
    members, nonmembers = np.arange(n) + 0.5, np.arange(float(n))
    assert true_positive_rate(members, nonmembers, 0.999 * smallest_fpr(n)) == 1 / n
    assert true_positive_rate(members, nonmembers, smallest_fpr(n)) == 2 / n


@pytest.mark.parametrize("measure", [auc, placements, roc, best_threshold, lambda x, y: true_positive_rate(x, y, 0.1)])
@pytest.mark.parametrize(
    ("members", "nonmembers", "complaint"),
    [
        ([], [1.0], "member scores .*at least one"),
        ([1.0], [], "non-member scores .*at least one"),
        ([[1.0]], [1.0], r"shape \(1, 1\)"),
        ([1.0, np.nan], [1.0], "member scores without NaN, got 1 NaN, first at index 1"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_scores_without_an_order_are_refused(measure, members, nonmembers, complaint):
    with pytest.raises(InputError, match=complaint):
        measure(np.array(members), np.array(nonmembers))


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 1.5, np.nan])
def test_a_false_positive_rate_outside_the_open_unit_interval_is_refused(fpr):
    with pytest.raises(InputError, match="between 0 and 1"):
        true_positive_rate(np.ones(3), np.ones(3), fpr)


def test_no_nonmembers_show_no_rate():
    with pytest.raises(InputError, match="at least 1 non-member"):
        smallest_fpr(0)


@pytest.mark.parametrize("per_class", [False, True])
def test_thresholds_agree_with_an_independent_implementation(shared: Path, per_class: bool):
    """Set on model 1 and the first half of the records, judged on model 0 and the second half."""
    golden = np.load(shared / "golden" / "location-600.npz", allow_pickle=False)
    expected = json.loads((shared / "golden" / "location-600.json").read_text())
    labels, membership, first = golden["labels"], golden["membership"], golden["first_half"]
    probability = softmax(golden["logits"], axis=-1)[:, np.arange(600), labels]
    calls = np.zeros(600, bool)
    for group in [labels == c for c in np.unique(labels)] if per_class else [np.ones(600, bool)]:
        known, member = group & first, membership[1]
        threshold = best_threshold(probability[1, known & member], probability[1, known & ~member])
        calls[group] = probability[0, group] >= threshold
    judged, member = ~first, membership[0]
    balanced = (calls[judged & member].mean() + (~calls[judged & ~member]).mean()) / 2
    key = f"threshold_{'per_class' if per_class else 'global'}_balanced_accuracy"
    assert balanced == pytest.approx(expected[key]["confidence"], abs=1e-12)


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("lira_online", "lira_online"),
        ("lira_online_global_variance", "lira_online_global_variance"),
        ("rmia_offline_a0.0", "rmia_offline_a0"),
        ("rmia_offline_a0.3", "rmia_offline_a03"),
        ("rmia_offline_a1.0", "rmia_offline_a1"),
    ],
)
def test_auc_agrees_with_an_independent_implementation(shared: Path, key: str, array: str):
    golden = np.load(shared / "golden" / "location-600.npz", allow_pickle=False)
    expected = json.loads((shared / "golden" / "location-600.json").read_text())
    member = golden["membership"][0]
    assert auc(golden[array][member], golden[array][~member]) == pytest.approx(expected["auc"][key], abs=1e-12)
