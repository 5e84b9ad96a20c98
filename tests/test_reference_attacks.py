"""LiRA in closed form, which models each attack compares with, and its settings."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from planted_signals import auc_of, seeds, shared
from wemem.attacks.altered_answers import LiraRank
from wemem.attacks.bavaria import Bavaria
from wemem.attacks.combined import Combined
from wemem.attacks.lira import Lira, LiraOffline, lira_offline, lira_online
from wemem.attacks.reference import references, trained_on, whole_pairs
from wemem.attacks.rmia import Rmia, RmiaOffline
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.metrics.rates import auc, true_positive_rate
from wemem.signals import RecentValues, logit_confidence
from wemem.testing import planted

pytestmark = pytest.mark.slow


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
    assert 1.0 in parties.statistics
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
    assert {variance for variance, _ in Lira().settings_to_try(signals, 0)} == {"global"}
    tried = LiraOffline().settings_to_try(shared(0.0), 0)
    assert {variance for variance, _ in tried} == {"global", "shrunk", "record"}


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
    kept = references(signals, 0, pool)
    assert kept.tolist() == list(range(1, 17))
    np.testing.assert_array_equal(trained_on(signals, kept, pool).sum(axis=0), 8)
    kept = references(signals.without(0), 5, pool)
    assert kept.tolist() == [k for k in range(16) if k not in (4, 5)]
    np.testing.assert_array_equal(trained_on(signals.without(0), kept, pool).sum(axis=0), 7)
    np.testing.assert_array_equal(references(signals, 6, pool, left_out=0), kept + 1)


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
    signals = planted.shared(0.0, pool=800, outside=300).without(0)
    areas = [auc_of(attack.score(signals, k, seed=0), signals, k) for k in range(signals.num_models)]
    assert abs(np.mean(areas) - 0.5) < 4 * np.sqrt(801 / (12 * 400 * 400)) / np.sqrt(8)


@pytest.mark.parametrize(
    "attack",
    [Lira(), LiraOffline(), Rmia(), RmiaOffline(), Bavaria(), Combined(), LiraRank()],
    ids=lambda a: a.name,
)
@pytest.mark.parametrize("kept", [None, 1])
def test_what_targets_share_changes_no_score(attack, kept):
    """As if every target were attacked alone, also where hardly anything is kept for the next one."""
    signals = planted.shared(planted.LEAK, pool=60, outside=150, models=8)
    if kept is not None:
        signals.__dict__["recent"] = RecentValues(kept)
    for target in (0, 1, 2, 7):
        alone = replace(signals)
        assert not alone.figures
        np.testing.assert_array_equal(
            attack.score(signals, target, seed=0), attack.score(alone, target, seed=0), strict=True
        )
    together, apart = attack.predict(signals), attack.predict(replace(signals))
    np.testing.assert_array_equal(together.threshold, apart.threshold)


def test_the_values_used_last_are_kept():
    values, computed = RecentValues(2), list[str]()

    def compute(key: str) -> str:
        computed.append(key)
        return key

    for key in ("a", "b", "a", "c", "a", "b"):
        assert values.get(key, partial(compute, key)) == key
    assert computed == ["a", "b", "c", "b"]


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
