"""Variances that records share, and Bayesian ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr
from scipy.stats import t as student_t

from planted_signals import auc_of, seeds
from wemem.attacks.bavaria import Bavaria, posterior
from wemem.attacks.lira import Lira, lira_online
from wemem.attacks.moments import shrunk_variance, side_moments, variance_prior
from wemem.testing import planted

# Variances that records share.


@given(st.integers(3, 9), seeds)
def test_shrunk_variance_lies_between_the_records_own_and_the_usual_one(count, seed):
    rng = np.random.default_rng(seed)
    squares, counts = rng.gamma(2, size=60) * rng.chisquare(count - 1, 60), np.full(60, count)
    freedom, usual = variance_prior(squares, counts)
    own, shrunk = squares / (count - 1), shrunk_variance(squares, counts)
    assert (shrunk >= np.minimum(own, usual) * (1 - 1e-9)).all()
    assert (shrunk <= np.maximum(own, usual) * (1 + 1e-9)).all()
    assert (np.diff(shrunk[np.argsort(own)]) >= -1e-12).all()
    assert freedom > 0


def test_prior_of_variances_is_found_from_values_drawn_by_it():
    """40,000 records, d_0 = 6 and s_0^2 = 2, 8 values each: the moments find both to a few per cent."""
    rng = np.random.default_rng(3)
    variance = 6 * 2 / rng.chisquare(6, 40_000)
    values = np.sqrt(variance) * rng.standard_normal((8, 40_000))
    moments = side_moments(values, np.ones(values.shape, bool))
    freedom, usual = variance_prior(moments.squares, moments.count)
    assert abs(freedom - 6) < 0.3
    assert abs(usual - 2) < 0.05
    error = [
        np.mean(np.square(np.log(v / variance)))
        for v in (moments.squares / 7, shrunk_variance(moments.squares, moments.count))
    ]
    assert error[1] < 0.6 * error[0]


def test_equal_variances_are_shrunk_to_one_and_a_lone_record_keeps_its_own():
    rng = np.random.default_rng(0)
    moments = side_moments(rng.standard_normal((40, 5000)), np.ones((40, 5000), bool))
    assert variance_prior(moments.squares, moments.count)[0] > 500
    np.testing.assert_allclose(shrunk_variance(moments.squares, moments.count), 1, atol=0.1)
    assert shrunk_variance(np.array([6.0]), np.array([4])).tolist() == [2.0]


def test_values_all_equal_leave_the_shrunk_variance_finite():
    squares = np.array([0.0, 0.0, 1.0, 2.0])
    assert np.isfinite(shrunk_variance(squares, np.full(4, 4))).all()
    assert (shrunk_variance(np.zeros(4), np.full(4, 4)) == 0).all()


@given(st.integers(2, 6), st.integers(2, 6), seeds)
def test_moments_are_numpys_record_by_record(inside, outside, seed):
    rng = np.random.default_rng(seed)
    trained = rng.permuted(np.repeat([[True], [False]], [inside, outside], axis=0) & np.ones((1, 12), bool), axis=0)
    values = rng.normal(size=trained.shape)
    moments = side_moments(values, trained)
    for i in range(12):
        own = values[trained[:, i], i]
        assert moments.count[i] == inside
        np.testing.assert_allclose(
            [moments.mean[i], moments.median[i], moments.squares[i]], [own.mean(), np.median(own), own.var() * inside]
        )


# Bayesian variances.


def test_bavaria_predictive_is_scipys_student_t_of_the_posterior():
    """The posterior by scipy's parametrization, d degrees of freedom, and the density written out."""
    rng = np.random.default_rng(2)
    values, target = rng.normal(2, 1, (6, 50)) + rng.normal(0, 3, 50), rng.normal(2, 3, 50)
    moments = side_moments(values, np.ones(values.shape, bool))
    known = posterior(moments)
    freedom, usual = variance_prior(moments.squares, moments.count)
    within = moments.squares.sum() / (5 * 50)
    k0 = within / (moments.mean.var(ddof=1) - within / 6)
    m0 = moments.mean.mean()
    for i in range(50):
        x, s = values[:, i].mean(), np.square(values[:, i] - values[:, i].mean()).sum()
        k, d = k0 + 6, freedom + 6
        v = freedom * usual + s + k0 * 6 * (x - m0) ** 2 / k
        expected = student_t.logpdf(target[i], d, (k0 * m0 + 6 * x) / k, np.sqrt(v / d * (1 + 1 / k)))
        got = known.log_predictive(target, "student")[i] - 0.5 * np.log(2 * np.pi)
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        normal = norm.logpdf(target[i], (k0 * m0 + 6 * x) / k, np.sqrt(v / (d - 2)))
        np.testing.assert_allclose(known.log_predictive(target, "normal")[i] - 0.5 * np.log(2 * np.pi), normal)


def test_bavaria_with_many_models_is_lira_with_means():
    """The priors are outweighed: 400 models on a side leave the two log-ratios in almost the same order."""
    rng = np.random.default_rng(0)
    trained = np.repeat([[True], [False]], 400, axis=0) & np.ones((800, 300), bool)
    values = rng.normal(size=(800, 300)) * rng.uniform(0.5, 2, 300) + 2 * trained
    target = rng.normal(1, 1.5, 300)
    inside, outside = (posterior(side_moments(values, side)) for side in (trained, ~trained))
    plain = lira_online(values, trained, target, variance="record", centre="mean")
    for form in ("student", "normal"):
        ours = inside.log_predictive(target, form) - outside.log_predictive(target, form)
        assert spearmanr(ours, plain).statistic > 0.999


def test_bavaria_beats_a_variance_of_each_record_where_models_are_few():
    """Four models on a side, variances that differ between records: planted, mean of 12 draws."""
    gains = []
    for seed in range(12):
        signals = planted.shared(planted.LEAK, seed=seed, models=8, pool=600, outside=400)
        own = Lira(variance="record", centre="mean", augmented=False).score(signals, 0, seed=0)
        bayes = Bavaria(predictive="student", augmented=False).score(signals, 0, seed=0)
        gains.append(auc_of(bayes, signals) - auc_of(own, signals))
    assert np.mean(gains) > 0.01
