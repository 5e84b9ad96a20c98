"""LiRA and RMIA: closed forms, double loops, which models they compare with, and their settings."""

import tracemalloc
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr
from scipy.stats import t as student_t

from wemem.attacks.bavaria import Bavaria, posterior
from wemem.attacks.combined import Combined
from wemem.attacks.lira import Lira, LiraOffline, lira_offline, lira_online
from wemem.attacks.moments import shrunk_variance, side_moments, variance_prior
from wemem.attacks.reference import references, whole_pairs
from wemem.attacks.rmia import OFFLINE_A, TEMPERATURE, Rmia, RmiaOffline, chosen_mean, dominated, dominated_others
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.metrics.rates import auc, true_positive_rate
from wemem.signals import logit_confidence
from wemem.testing import planted

pytestmark = pytest.mark.slow

seeds = st.integers(0, 2**32 - 1)


@cache
def shared(leak):
    return planted.shared(leak)


def auc_of(score, signals, target=0):
    member = signals.is_member(target)
    return auc(score[member], score[~member])


# The statistic.


@given(st.integers(2, 6), st.sampled_from([1.0, 30.0, 1e4]), seeds)
def test_logit_confidence_is_its_definition_in_higher_precision(classes, scale, seed):
    rng = np.random.default_rng(seed)
    logits, labels = (scale * rng.normal(size=(3, 7, classes))).astype(np.float32), rng.integers(0, classes, 7)
    expected = np.empty((3, 7))
    for k, i in np.ndindex(3, 7):
        x = logits[k, i].astype(np.longdouble)
        others = np.delete(x, labels[i])
        expected[k, i] = x[labels[i]] - others.max() - np.log(np.exp(others - others.max()).sum())
    np.testing.assert_allclose(logit_confidence(logits, labels), expected, rtol=1e-12, atol=1e-12 * scale)


def test_logit_confidence_of_one_class_is_refused():
    with pytest.raises(InputError, match="at least 2 classes, got 1"):
        logit_confidence(np.zeros((3, 1)), np.zeros(3, int))


def test_signals_without_a_model_take_over_what_was_computed():
    signals = planted.shared(planted.LEAK)
    computed, queries = signals.logit_confidence, signals.query_logit_confidence
    parties = signals.without(3)
    assert 1.0 in parties.confidences
    np.testing.assert_array_equal(parties.logit_confidence, np.delete(computed, 3, axis=0))
    np.testing.assert_array_equal(parties.query_logit_confidence, np.delete(queries, 3, axis=0))
    np.testing.assert_array_equal(planted.shared(planted.LEAK).without(3).logit_confidence, parties.logit_confidence)
    np.testing.assert_array_equal(queries[..., 0], computed)


# Likelihoods.


def test_lira_reaches_the_true_positive_rate_of_the_closed_form():
    """Two normals of equal width, means 2 widths apart: TPR = Phi(2 - Phi^-1(0.99)) = 0.372 at 1 % FPR.

    128 models on a side find the means to a tenth of a width; the 1 % quantile of 20,000 non-members leaves a standard
    error of about 0.01 in the TPR.
    """
    rng = np.random.default_rng(5)
    models, records, leak = 256, 40_000, 2.0
    half = rng.random((models // 2, records)) < 0.5
    trained = np.concatenate([half, ~half])
    difficulty = rng.normal(0, 3, records)
    member = np.arange(records) % 2 == 0
    values = difficulty + leak * trained + rng.standard_normal((models, records), np.float32)
    target = difficulty + leak * member + rng.standard_normal(records)
    scores = [
        lira_online(values, trained, target, variance="record"),
        lira_online(values, trained, target, variance="global"),
        lira_offline(values, trained, target, variance="global"),
    ]
    for score in scores:
        rate = true_positive_rate(score[member], score[~member], 0.01)
        assert abs(rate - norm.cdf(leak - norm.ppf(0.99))) < 0.04
        assert abs(auc(score[member], score[~member]) - norm.cdf(leak / np.sqrt(2))) < 0.01


@given(st.integers(2, 6), st.integers(2, 6), seeds)
def test_lira_is_its_definition_record_by_record(inside, outside, seed):
    rng = np.random.default_rng(seed)
    trained = rng.permuted(np.repeat([[True], [False]], [inside, outside], axis=0) & np.ones((1, 12), bool), axis=0)
    values, target = rng.normal(size=trained.shape), rng.normal(size=12)
    ins = [values[trained[:, i], i] for i in range(12)]
    outs = [values[~trained[:, i], i] for i in range(12)]

    def online(in_width, out_width):
        triples = zip(target, ins, outs, strict=True)
        return [
            norm.logpdf(s, np.median(x), in_width(x)) - norm.logpdf(s, np.median(y), out_width(y))
            for s, x, y in triples
        ]

    def offline(width):
        return [(s - np.median(y)) / width(y) for s, y in zip(target, outs, strict=True)]

    common, common_out = np.std(np.concatenate(ins)), np.std(np.concatenate(outs))
    for ours, expected in (
        (lira_online(values, trained, target, variance="record"), online(np.std, np.std)),
        (lira_online(values, trained, target, variance="global"), online(lambda _: common, lambda _: common)),
        (lira_offline(values, trained, target, variance="record"), offline(np.std)),
        (lira_offline(values, trained, target, variance="global"), offline(lambda _: common_out)),
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-9)


@given(st.floats(0.1, 10), st.floats(-20, 20), st.sampled_from(["record", "global"]))
def test_lira_is_unchanged_by_an_affine_map_of_the_statistic(scale, shift, variance):
    rng = np.random.default_rng(0)
    trained = rng.permuted(np.repeat([[True], [False]], 5, axis=0) & np.ones((10, 30), bool), axis=0)
    values, target = rng.normal(size=(10, 30)), rng.normal(size=30)
    for score in (lira_online, lira_offline):
        mapped = score(scale * values + shift, trained, scale * target + shift, variance=variance)
        np.testing.assert_allclose(mapped, score(values, trained, target, variance=variance), rtol=1e-6, atol=1e-6)


def test_values_all_equal_give_a_finite_score():
    trained = np.repeat([[True], [False]], 2, axis=0)
    assert np.isfinite(lira_online(np.ones((4, 1)), trained, np.array([2.0]), variance="record")).all()


def test_one_variance_per_record_needs_two_models_on_a_side():
    trained = np.array([[True] * 4, [False] * 4, [False] * 4])
    with pytest.raises(InputError, match=r"at least 2 reference model\(s\) trained with each .* one variance for all"):
        lira_online(np.zeros((3, 4)), trained, np.zeros(4), variance="record")


def test_lira_settings_are_the_best_on_the_other_models():
    """No other variance and centre does better on them, and the target has no say."""
    signals = shared(planted.LEAK)
    chosen, parties = Lira(augmented=False).tune(signals, 0), signals.without(0)

    def mean_auc(attack):
        return np.mean([auc_of(attack.score(parties, k, seed=0), parties, k) for k in range(8)])

    every = [
        Lira(v, c, augmented=False, copies="none") for v in ("global", "shrunk", "record") for c in ("median", "mean")
    ]
    assert chosen in every
    assert mean_auc(chosen) == max(map(mean_auc, every))
    logits = signals.logits.copy()
    logits[0] = 0
    assert Lira(augmented=False).tune(replace(signals, logits=logits), 0) == chosen


def test_few_models_leave_one_variance_for_all_records():
    signals = planted.shared(planted.LEAK, models=4)
    assert {attack.variance for attack in Lira().candidates(signals, 0)} == {"global"}
    assert {attack.variance for attack in LiraOffline().candidates(shared(0.0), 0)} == {"global", "shrunk", "record"}


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


def test_augmented_queries_are_averaged_and_help():
    signals = shared(planted.LEAK)
    attack = Lira("global", "median")
    plain = replace(attack, augmented=False).score(signals, 0, seed=0)
    augmented = attack.score(signals, 0, seed=0)
    queries = np.moveaxis(signals.extras["queries"], 2, 0)
    each = [attack.score(replace(signals, logits=logits, extras={}), 0, seed=0) for logits in queries]
    np.testing.assert_allclose(plain, each[0])
    np.testing.assert_allclose(augmented, np.mean(each, axis=0))
    assert auc_of(augmented, signals) > auc_of(plain, signals)


# Which models a target is compared with.


def test_attacking_a_member_of_the_ensemble_leaves_its_partner_out():
    signals = shared(0.0)
    pool = np.flatnonzero(signals.roles[0] != Role.UNUSED)
    kept, trained = references(signals, 0, pool)
    assert kept.tolist() == list(range(1, 17))
    np.testing.assert_array_equal(trained.sum(axis=0), 8)
    kept, trained = references(signals.without(0), 5, pool)
    assert kept.tolist() == [k for k in range(16) if k not in (4, 5)]
    np.testing.assert_array_equal(trained.sum(axis=0), 7)


def test_a_partner_kept_as_reference_would_tell_by_its_count():
    """Without any leak: the side with one model less fits worse, and that side is the target's own."""
    signals = planted.shared(0.0, pool=4000, outside=300).without(0)
    values, areas = signals.logit_confidence[:, :4000], []
    for k in range(signals.num_models):
        others = np.delete(np.arange(signals.num_models), k)
        trained = signals.roles[others, :4000] == Role.TRAIN
        areas.append(auc_of(lira_online(values[others], trained, values[k], variance="record"), signals, k))
    assert np.mean(areas) < 0.49


@pytest.mark.parametrize(
    "attack",
    [Lira(augmented=False), LiraOffline(), Rmia(), RmiaOffline(), Bavaria(augmented=False), Combined((Lira(), Rmia()))],
    ids=lambda attack: attack.name,
)
def test_every_member_attacked_in_turn_stays_at_chance_without_a_leak(attack):
    """Targets come in complementary pairs that share their records, so the mean is held to 4 errors of 8 targets."""
    signals = planted.shared(0.0, pool=2000, outside=300).without(0)
    areas = [auc_of(attack.score(signals, k, seed=0), signals, k) for k in range(signals.num_models)]
    assert abs(np.mean(areas) - 0.5) < 4 * np.sqrt(2001 / (12 * 1000 * 1000)) / np.sqrt(8)


def test_independent_subsets_are_all_kept():
    assert whole_pairs(np.random.default_rng(0).random((15, 40)) < 0.5).all()


@pytest.mark.parametrize(
    ("attack", "side"),
    [(Lira(), "with"), (Lira(), "without"), (Rmia(), "with"), (Rmia(), "without"), (LiraOffline(), "without"),
     (RmiaOffline(), "without")],
)  # fmt: skip
def test_records_without_the_models_to_compare_with_are_refused(attack, side):
    signals = shared(0.0)
    roles = signals.roles.copy()
    roles[1:, signals.audited(0)[3]] = Role.AUDIT if side == "with" else Role.TRAIN
    message = rf"1 reference model\(s\) trained {side} each audited record, got 0 for number 3 of 800 and 1 such record"
    with pytest.raises(InputError, match=message):
        attack.predict(replace(signals, roles=roles))


@pytest.mark.parametrize(
    "attack", [LiraOffline(), RmiaOffline(gamma=1.0, temperature=1.0, a=0.3)], ids=lambda attack: attack.name
)
def test_offline_attacks_need_no_model_trained_with_the_record(attack):
    signals = shared(planted.LEAK)
    roles = signals.roles.copy()
    roles[1:, signals.audited(0)] = Role.AUDIT
    assert auc_of(attack.score(replace(signals, roles=roles), 0, seed=0), signals) > 0.9


# Ratios.


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.5, 1.0, 2.0]), seeds)
def test_dominated_counts_pairs(n, p, gamma, seed):
    """Ratios of few values, so that ties at gamma are everywhere."""
    rng = np.random.default_rng(seed)
    x, z = rng.choice([0.5, 1.0, 2.0, 4.0], n), rng.choice([0.5, 1.0, 2.0, 4.0], p)
    np.testing.assert_allclose(dominated(x, z, gamma), [np.mean([a / b >= gamma for b in z]) for a in x])
    if n > 1:
        others = [np.mean([x[i] / x[j] >= gamma for j in range(n) if j != i]) for i in range(n)]
        np.testing.assert_allclose(dominated_others(x, gamma), others)


@given(st.floats(0.5, 3), seeds)
def test_rmia_is_in_the_order_of_the_ratio_whatever_gamma_and_population(gamma, seed):
    rng = np.random.default_rng(seed)
    ratios = rng.exponential(size=30)
    for score in (dominated(ratios, rng.exponential(size=17), gamma), dominated_others(ratios, gamma)):
        assert (np.diff(score[np.argsort(ratios)]) >= 0).all()
        assert score.min() >= 0
        assert score.max() <= 1


def test_rmia_online_weighs_both_sides_alike_and_the_population_by_all_models():
    signals = shared(planted.LEAK)
    score = Rmia(gamma=1.5, temperature=1.0).score(signals, 0, seed=0)
    n = signals.logits.shape[1]
    p = np.stack([signals.probabilities(k, np.arange(n))[np.arange(n), signals.labels] for k in range(17)])
    trained = signals.roles == Role.TRAIN

    def ratio(row):
        inside, outside = p[1:][trained[1:, row], row], p[1:][~trained[1:, row], row]
        return p[0, row] / (outside.mean() if len(inside) == 0 else (inside.mean() + outside.mean()) / 2)

    population = np.array([ratio(z) for z in signals.population])
    expected = [np.mean(ratio(row) / population >= 1.5) for row in signals.audited(0)[:40]]
    np.testing.assert_allclose(score[:40], expected)


def test_rmia_without_a_population_compares_the_audited_records_with_each_other():
    signals = planted.shared(planted.LEAK, outside=100)
    assert len(signals.population) == 0
    attack = Rmia(gamma=1.0, temperature=1.0)
    evidence, population = attack.collect(signals, 0, signals.audited(0))
    assert population is None
    ratios = attack.ratio(evidence)
    expected = [np.mean([ratios[i] / z >= 1 for j, z in enumerate(ratios) if j != i]) for i in range(20)]
    np.testing.assert_allclose(attack.score(signals, 0, seed=0)[:20], expected)


def test_rmia_settings_are_chosen_on_the_other_models():
    """No other a and temperature does better on them with the chosen gamma, and the target has no say."""
    signals = shared(planted.LEAK)
    chosen, parties = RmiaOffline().tune(signals, 0), signals.without(0)

    def mean_auc(a, temperature):
        attack = RmiaOffline(gamma=chosen.gamma, temperature=temperature, a=a)
        return np.mean([auc_of(attack.score(parties, k, seed=0), parties, k) for k in range(8)])

    assert chosen.a is not None
    assert chosen.temperature is not None
    # Chosen by the ratio, which has no ties; the shares' ties may move the order by less than this.
    tried = [mean_auc(a, t) for a, t in product(OFFLINE_A[::2], TEMPERATURE)]
    assert mean_auc(chosen.a, chosen.temperature) >= max(tried) - 2e-3
    logits = signals.logits.copy()
    logits[0] = 0
    assert RmiaOffline().tune(replace(signals, logits=logits), 0) == chosen


def test_rmia_at_a_temperature_is_rmia_on_logits_divided_by_it():
    signals = shared(planted.LEAK)
    warm = Rmia(gamma=1.5, temperature=2.0).score(signals, 0, seed=0)
    divided = Rmia(gamma=1.5, temperature=1.0).score(replace(signals, logits=signals.logits / 2), 0, seed=0)
    np.testing.assert_allclose(warm, divided)


def test_rmia_keeps_the_settings_it_was_given():
    signals = shared(planted.LEAK)
    assert RmiaOffline(a=0.3).tune(signals, 0).a == 0.3
    assert RmiaOffline(gamma=2.0).tune(signals, 0).gamma == 2.0


@pytest.mark.parametrize(
    "bad", [{"gamma": 0.0}, {"gamma": -1.0}, {"gamma": float("nan")}, {"a": 1.5}, {"a": -0.1}, {"temperature": 0.0}]
)
def test_rmia_refuses_settings_out_of_range(bad):
    with pytest.raises(InputError, match="attack 'rmia_offline' expected"):
        RmiaOffline(**bad)


# Size.


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    values, target = rng.normal(size=(8, 50)), rng.normal(size=50)
    trained = np.broadcast_to(np.repeat([[True], [False]], 4, axis=0), (8, 50))
    logits, labels = rng.normal(size=(2, 50, 3)), rng.integers(0, 3, 50)

    def everything():
        online = lira_online(values, trained, target, variance="record")
        return online, chosen_mean(values, trained), logit_confidence(logits, labels)

    whole = everything()
    monkeypatch.setattr("wemem.attacks.moments.BLOCK", 7)
    monkeypatch.setattr("wemem.attacks.rmia.BLOCK", 7)
    monkeypatch.setattr("wemem.signals.BLOCK", 20)
    for blocked, expected in zip(everything(), whole, strict=True):
        np.testing.assert_array_equal(blocked, expected)


def test_memory_beyond_the_arguments_is_a_few_blocks():
    """64 models: of 20 MiB that they read, LiRA allocates under two thirds, RMIA a third; logits a fifth."""
    rng = np.random.default_rng(0)
    records = 40_000
    values = rng.standard_normal((64, records))
    half = rng.random((32, records)) < 0.5
    trained, target = np.concatenate([half, ~half]), rng.standard_normal(records)
    logits, labels = rng.standard_normal((1, 500_000, 10), np.float32), np.zeros(500_000, int)
    calls = {
        "record": (lambda: lira_online(values, trained, target, variance="record"), 12),
        "global": (lambda: lira_online(values, trained, target, variance="global"), 12),
        "rmia": (lambda: chosen_mean(values, trained), 7),
        "logits": (lambda: logit_confidence(logits, labels) is None, 8),
    }
    for name, (call, limit) in calls.items():
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit * 2**20, name
