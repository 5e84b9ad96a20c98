"""Means over targets and records: beside the analysis of variance, and covering what both contribute."""

import numpy as np
import pytest
from scipy import stats

from wemem.errors import InputError
from wemem.metrics.crossed import (
    GROUPS,
    Spread,
    crossed_interval,
    crossed_spread,
    mean_of,
    pseudo_values,
    record_groups,
)
from wemem.metrics.rates import auc
from wemem.metrics.registry import METRICS, ScoredRecords

AUC = METRICS["auc"].value


def ensemble(rng, targets, records, *, target_spread, record_spread, gap=0.5):
    """Scores of leave-one-out targets on complementary halves, with effects of targets and of records on the leak."""
    membership = np.zeros((targets, records), bool)
    for pair in range(targets // 2):
        membership[2 * pair, rng.permutation(records)[: records // 2]] = True
        membership[2 * pair + 1] = ~membership[2 * pair]
    strength = gap * np.exp(target_spread * rng.normal(size=(targets, 1)) + record_spread * rng.normal(size=records))
    return membership * strength + rng.normal(size=(targets, records)), membership


def mean_rate(scores, membership):
    return np.mean([AUC(ScoredRecords(*pair)) for pair in zip(scores, membership, strict=True)])


def test_value_is_the_mean_over_targets_and_rows_are_the_targets():
    scores, membership = ensemble(np.random.default_rng(0), 4, 100, target_spread=0.3, record_spread=0.3)
    value, table = pseudo_values(AUC, scores, membership, record_groups(100, np.random.default_rng(1)))
    each = [auc(score[member], score[~member]) for score, member in zip(scores, membership, strict=True)]
    assert table.shape == (4, GROUPS)
    np.testing.assert_allclose(table.mean(axis=1), each)
    assert value == pytest.approx(np.mean(each))


def test_pseudo_values_of_a_mean_are_the_means_of_the_groups():
    scores = np.random.default_rng(0).random((3, 80))
    groups = record_groups(80, np.random.default_rng(1))
    _, table = pseudo_values(lambda records: float(records.score.mean()), scores, np.ones((3, 80), bool), groups)
    expected = [[score[groups == group].mean() for group in range(GROUPS)] for score in scores]
    np.testing.assert_allclose(table, expected)


def test_error_is_that_of_the_two_way_analysis_of_variance():
    """Against sums of squares written out, on effects of targets and of groups and their interaction."""
    rng = np.random.default_rng(0)
    table = 0.5 + 0.1 * rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=8) + 0.05 * rng.normal(size=(6, 8))
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    ms_rows = 8 * ((rows - table.mean()) ** 2).sum() / 5
    ms_columns = 6 * ((columns - table.mean()) ** 2).sum() / 7
    rest = sum((table[i, j] - rows[i] - columns[j] + table.mean()) ** 2 for i in range(6) for j in range(8)) / 35
    spread = crossed_spread(float(table.mean()), table)
    assert spread.error**2 == pytest.approx((ms_rows + ms_columns - rest) / 48)


def test_error_is_that_of_independent_targets_where_records_do_not_matter():
    values = np.array([0.2, 0.4, 0.5, 0.9])
    spread = crossed_spread(0.5, np.repeat(values[:, None], 10, axis=1))
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (spread.interval().low, spread.interval().high) == pytest.approx((expected.low, expected.high))


def test_targets_that_all_agree_still_have_an_interval():
    interval = crossed_interval(1.0, np.ones((4, 10)))
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low**4 == pytest.approx(0.025)


def test_interval_of_a_rate_stays_within_its_range():
    interval = crossed_interval(0.02, 0.02 + 0.05 * np.random.default_rng(0).normal(size=(4, 10)))
    assert 0 < interval.low < 0.02 < interval.high < 1


@pytest.mark.parametrize(("target_spread", "record_spread"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_interval_covers_other_targets_and_other_records(target_spread, record_spread):
    rng, shape = np.random.default_rng(0), {"target_spread": target_spread, "record_spread": record_spread}
    truth = np.mean([mean_rate(*ensemble(rng, 40, 400, **shape)) for _ in range(40)])
    covered = []
    for _ in range(60):
        scores, membership = ensemble(rng, 12, 300, **shape)
        interval = crossed_interval(*pseudo_values(AUC, scores, membership, record_groups(300, rng)))
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)


def test_pairing_removes_what_targets_and_records_have_in_common():
    rng = np.random.default_rng(0)
    common = 0.3 * rng.normal(size=(8, 1)) + 0.3 * rng.normal(size=10)
    first, second = (0.5 + common + 0.01 * rng.normal(size=(8, 10)) for _ in range(2))
    paired = crossed_spread(0.0, first - second)
    assert paired.error < 0.1 * crossed_spread(0.5, first).error


def test_detectable_difference_is_found_as_often_as_it_says():
    spread = Spread(0.0, 0.01, 20.0)
    size = spread.detectable()
    rng = np.random.default_rng(0)
    errors = 0.01 * np.sqrt(rng.chisquare(20, 20_000) / 20)
    found = np.abs(size + 0.01 * rng.normal(size=20_000)) > errors * stats.t.ppf(0.975, 20)
    assert found.mean() == pytest.approx(0.8, abs=0.015)


def test_mean_of_seeds_has_the_error_of_a_mean():
    assert mean_of([Spread(0.2, 0.1, 5.0)] * 4).error == pytest.approx(0.05)
    assert mean_of([Spread(0.2, 0.1, 5.0)] * 4).freedom == pytest.approx(20)
    assert mean_of([Spread(0.2, 0.0, 5.0)] * 2) == Spread(0.2, 0.0, 5.0)


@pytest.mark.parametrize("shape", [(1, 10), (4, 1)])
def test_one_target_or_one_group_is_refused(shape):
    with pytest.raises(InputError, match="at least 2 targets and 2 groups"):
        crossed_spread(0.5, np.ones(shape))


@pytest.mark.parametrize(("records", "groups"), [(10, 2), (40, 5), (1000, 10), (1003, 10)])
def test_groups_are_of_equal_size_and_few_records_make_few(records, groups):
    sizes = np.bincount(record_groups(records, np.random.default_rng(0)))
    assert len(sizes) == groups
    assert np.ptp(sizes) <= 1
