"""RMIA: a count over pairs, its settings, and blocks that change nothing."""

import tracemalloc
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planted_signals import auc_of, seeds, shared
from wemem.attacks.lira import lira_online
from wemem.attacks.reference import Attacked
from wemem.attacks.rmia import OFFLINE_A, TEMPERATURE, Rmia, RmiaOffline, chosen_mean, dominated, dominated_others
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.signals import logit_confidence
from wemem.testing import planted

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
    evidence, population = attack.collect(Attacked.on_all_rows(signals, 0))
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
