"""Attacks by the target's output: definitions, numerics where confidence is extreme, and what they may learn from."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import norm

from wemem.attacks.population import AttackP, foreign_rows
from wemem.attacks.quantile import QuantileRegression
from wemem.attacks.threshold import (
    Confidence,
    Correctness,
    confidence,
    correctness,
    entropy,
    modified_entropy,
    top_confidence,
)
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.signals import logit_confidence
from wemem.testing import planted

seeds = st.integers(0, 2**32 - 1)


def auc_of(score, signals):
    member = signals.is_member(0)
    return auc(score[member], score[~member])


def test_certain_outputs_keep_their_order():
    """Logits 40 to 320 apart: in float64 the probability is 1 for all, its log and both entropies are not 0."""
    logits = np.array([[40.0, 0.0, 0.0], [80.0, 0.0, 0.0], [160.0, 0.0, 0.0], [320.0, 0.0, 0.0]])
    log_probabilities, labels = log_softmax(logits, axis=1), np.zeros(4, int)
    rest = np.log(2.0) - logits[:, 0]
    np.testing.assert_allclose(np.log(-confidence(log_probabilities, labels)), rest)
    np.testing.assert_allclose(np.log(-top_confidence(log_probabilities)), rest)
    for number in (-entropy(log_probabilities), -modified_entropy(log_probabilities, labels)):
        assert all(a < b < 0 for a, b in pairwise(number))


def test_a_certain_mistake_has_a_large_modified_entropy_and_a_small_entropy():
    """p = (e^-100, 1 - e^-100), true class 0: both terms of the modified entropy are 100."""
    log_probabilities = log_softmax(np.array([[0.0, 100.0]]), axis=1)
    np.testing.assert_allclose(modified_entropy(log_probabilities, np.array([0])), 200.0)
    assert entropy(log_probabilities) < 1e-40


@given(st.integers(2, 5), seeds)
def test_entropies_are_their_definitions(classes, seed):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.ones(classes), 10), rng.integers(0, classes, 10)
    np.testing.assert_allclose(entropy(np.log(p)), [-sum(q * np.log(q) for q in row) for row in p])
    expected = [
        -(1 - row[c]) * np.log(row[c]) - sum(q * np.log(1 - q) for j, q in enumerate(row) if j != c)
        for row, c in zip(p, y, strict=True)
    ]
    np.testing.assert_allclose(modified_entropy(np.log(p), y), expected, rtol=1e-6)


@given(st.integers(2, 6), seeds)
def test_confidence_is_in_the_order_of_the_statistic(classes, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 8, (40, classes)), rng.integers(0, classes, 40)
    by_statistic = np.argsort(logit_confidence(logits, labels))
    assert (np.diff(confidence(log_softmax(logits, axis=1), labels)[by_statistic]) >= 0).all()


def test_confidence_reaches_the_auc_of_the_closed_form():
    """Members a leak above non-members, both N(., 1 + NOISE^2): AUC = Phi(leak / sqrt(2 (1 + NOISE^2))) = 0.877."""
    signals = planted.disjoint(planted.LEAK, records=40_000, shadows=1)
    expected = norm.cdf(planted.LEAK / np.sqrt(2 * (1 + planted.NOISE**2)))
    assert abs(auc_of(Confidence().score(signals, 0, seed=0), signals) - expected) < 0.01


def test_correctness_has_the_balanced_accuracy_of_half_the_gap():
    signals = planted.disjoint(planted.LEAK)
    output, member = Correctness().predict(signals), signals.is_member(0)
    called = output.score >= output.threshold
    rows = signals.audited(0)
    right = signals.logits[0, rows].argmax(axis=1) == signals.labels[rows]
    gap = right[member].mean() - right[~member].mean()
    assert (called[member].mean() + (~called[~member]).mean()) / 2 == pytest.approx(0.5 + gap / 2)
    np.testing.assert_array_equal(correctness(signals.log_probabilities(0, rows), signals.labels[rows]), right)


def test_attack_p_counts_the_less_confident_of_the_adversarys_records():
    signals = planted.disjoint(planted.LEAK, records=200)
    rows, foreign = signals.audited(0), np.flatnonzero((signals.roles[1:] != 0).any(axis=0))
    p = signals.probabilities(0, np.arange(200))[np.arange(200), signals.labels]
    expected = [np.mean(p[foreign] < p[row]) for row in rows]
    np.testing.assert_allclose(AttackP().score(signals, 0, seed=0), expected)


def test_attack_p_is_unchanged_by_any_increasing_map_of_the_targets_statistic():
    signals = planted.disjoint(planted.LEAK)
    mapped = replace(signals)
    mapped.__dict__["logit_confidence"] = np.exp(signals.logit_confidence / 3)
    np.testing.assert_array_equal(AttackP().score(mapped, 0, seed=0), AttackP().score(signals, 0, seed=0))


def test_a_target_that_leaves_no_foreign_rows_is_refused():
    everything_used = planted.planted(np.ones((2, 10), np.int8), np.arange(10) % 5, "shadows", 0.0, seed=0)
    with pytest.raises(InputError, match="expected records that model 0 uses in no role, got none"):
        foreign_rows(everything_used, 0)


def test_quantile_attack_learns_from_no_audited_row():
    """The outputs for one half of the audited rows move nothing in the scores of the other."""
    signals = planted.disjoint(planted.LEAK)
    rows = signals.audited(0)
    logits = signals.logits.copy()
    logits[:, rows[::2]] = logits[:, rows[::2], ::-1]
    score, changed = (QuantileRegression().score(s, 0, seed=0) for s in (signals, replace(signals, logits=logits)))
    np.testing.assert_array_equal(changed[1::2], score[1::2])
    assert (changed[::2] != score[::2]).any()


def test_quantile_attack_beats_the_confidence_it_calibrates():
    """A record's difficulty, which the shadows know, is worth points of AUC."""
    signals = planted.disjoint(planted.LEAK)
    calibrated = auc_of(QuantileRegression().score(signals, 0, seed=0), signals)
    assert calibrated > auc_of(Confidence().score(signals, 0, seed=0), signals) + 0.03
