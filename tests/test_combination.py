"""Combined scores: ranks, weights that are never weaker than the best input, and the attack made of other attacks."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from wemem.attacks.bavaria import Bavaria
from wemem.attacks.combination import combine, learn_weights, normal_ranks
from wemem.attacks.combined import Combined
from wemem.attacks.dense_and_pruned import DenseAndPruned
from wemem.attacks.lira import Lira, LiraOffline
from wemem.attacks.rmia import Rmia
from wemem.attacks.threshold import Confidence
from wemem.attacks.trajectory import PruningTrajectory
from wemem.config.attack_entries import make_attacks
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.testing import planted

seeds = st.integers(0, 2**32 - 1)


@cache
def shared(leak):
    return planted.shared(leak)


def mean_auc(inputs, member, weights):
    scores = [combine(one, weights) for one in inputs]
    return np.mean([auc(s[m], s[~m]) for s, m in zip(scores, member, strict=True)])


def models(rng, lifts, count=5, records=300):
    """Inputs of some models; members are lifted in each column by a number of standard deviations of its noise."""
    member = [rng.permutation(np.arange(records) % 2 == 0) for _ in range(count)]
    return [rng.normal(size=(records, len(lifts))) + np.outer(m, lifts) for m in member], member


@given(seeds)
def test_weights_are_never_weaker_than_the_best_input_alone(seed):
    rng = np.random.default_rng(seed)
    inputs, member = models(rng, rng.choice([0.0, 0.5, 2.0], 3), count=4, records=60)
    weights = learn_weights(inputs, member)
    alone = [mean_auc(inputs, member, tuple(np.eye(3)[j])) for j in range(3)]
    assert mean_auc(inputs, member, weights) >= max(alone) - 1e-12


def test_noise_beside_a_leak_costs_nothing_and_two_leaks_add_up():
    """Two independent lifts of one standard deviation make one of sqrt(2): AUC Phi(1) = 0.841."""
    rng = np.random.default_rng(0)
    inputs, member = models(rng, [1.5, 0.0, 0.0])
    weights = learn_weights(inputs, member)
    fresh, truth = models(rng, [1.5, 0.0, 0.0], records=4000)
    assert mean_auc(fresh, truth, weights) > mean_auc(fresh, truth, (1.0, 0.0, 0.0)) - 0.005
    inputs, member = models(rng, [1.0, 1.0])
    fresh, truth = models(rng, [1.0, 1.0], records=4000)
    assert abs(mean_auc(fresh, truth, learn_weights(inputs, member)) - norm.cdf(1)) < 0.015


@given(seeds, st.floats(0.1, 100), st.floats(-50, 50))
def test_ranks_do_not_depend_on_an_inputs_scale(seed, scale, shift):
    values = np.random.default_rng(seed).normal(size=(30, 2))
    np.testing.assert_allclose(normal_ranks(scale * np.exp(values) + shift), normal_ranks(values), atol=1e-12)


def test_a_constant_input_adds_nothing():
    values = np.stack([np.arange(5.0), np.ones(5)], axis=1)
    np.testing.assert_allclose(combine(values, (1.0, 7.0)), normal_ranks(values)[:, 0])


# The attack.


def test_combined_attack_is_no_weaker_on_the_others_than_its_best_part():
    signals = shared(planted.LEAK)
    attack, parties = Combined().tune(signals, 0), signals.without(0)

    def on_others(one):
        scores = [(one.score(parties, k, seed=0), parties.is_member(k)) for k in range(8)]
        return np.mean([auc(s[m], s[~m]) for s, m in scores])

    assert attack.weights is not None
    assert on_others(attack) >= max(map(on_others, attack.parts)) - 1e-12


def test_weights_do_not_depend_on_the_target():
    signals = shared(planted.LEAK)
    logits = signals.logits.copy()
    logits[0] = logits[0, ::-1]
    assert Combined().tune(replace(signals, logits=logits), 0) == Combined().tune(signals, 0)


def test_one_part_is_that_attack_in_order():
    signals = shared(planted.LEAK)
    part = Rmia(gamma=1.0, temperature=2.0)
    combined = Combined(parts=(part,)).score(signals, 0, seed=0)
    np.testing.assert_allclose(combined, normal_ranks(part.score(signals, 0, seed=0)[:, None])[:, 0])


def test_parts_come_from_a_study_by_name_and_table():
    made = make_attacks([{"kind": "combined", "parts": ["bavaria", {"kind": "lira", "variance": "shrunk"}]}])
    assert made == {"combined": Combined(parts=(Bavaria(), Lira(variance="shrunk")))}
    assert make_attacks(["combined"])["combined"] == Combined((Lira(), Bavaria(), Rmia(), LiraOffline()))


def test_parts_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="attacks by reference models as parts, got 'confidence'"):
        Combined(parts=(Confidence(),))
    with pytest.raises(InputError, match="at least one part, got none"):
        Combined(parts=())
    with pytest.raises(InputError, match="a weight for each of 2 parts, got 1"):
        Combined(parts=(Lira(), Rmia()), weights=(1.0,))


# Several releases of one model.


def with_one_noise_input(leaks):
    """Planted signals of which the named release leaks and the other is drawn without a leak."""
    leaking, null = planted.disjoint(planted.LEAK), planted.disjoint(0.0, seed=1)
    if leaks == "pruned":
        return replace(leaking, extras={"dense": null.logits, "trajectory": with_rounds(null, leaking)})
    return replace(
        null, extras={"dense": leaking.logits, "trajectory": with_rounds(leaking, null)}, roles=leaking.roles
    )


def with_rounds(*signals):
    return np.stack([one.logits for one in signals], axis=2)


@pytest.mark.parametrize("attack", [PruningTrajectory(), DenseAndPruned()], ids=lambda attack: attack.name)
@pytest.mark.parametrize("leaks", ["pruned", "dense"])
def test_an_attack_on_several_releases_is_as_strong_as_the_one_that_leaks(attack, leaks):
    """By AUC and by balanced accuracy, where the other release is noise."""
    signals = with_one_noise_input(leaks)
    alone = replace(signals, logits=signals.extras["dense"]) if leaks == "dense" else signals
    member = signals.is_member(0)
    figures = []
    for one, seen in ((attack, signals), (Confidence(), alone)):
        output = one.predict(seen, seed=0)
        called = output.score >= output.threshold
        accuracy = (called[member].mean() + (~called[~member]).mean()) / 2
        figures.append((auc(output.score[member], output.score[~member]), accuracy))
    ours, best_input = figures
    assert best_input[0] > 0.8
    assert ours[0] > best_input[0] - 0.01
    assert ours[1] > best_input[1] - 0.02


def test_two_releases_that_leak_apart_leak_more_together():
    """Independent noise in the two: the dense model with half the leak adds to the pruned one."""
    signals = planted.disjoint(planted.LEAK)
    member = signals.is_member(0)
    pruned, both = (one.predict(signals, seed=0).score for one in (Confidence(), DenseAndPruned()))
    assert auc(both[member], both[~member]) > auc(pruned[member], pruned[~member])


def test_weights_of_another_number_of_releases_are_refused():
    with pytest.raises(InputError, match="a weight for each of 3 inputs, got 2; leave weights out"):
        DenseAndPruned(weights=(1.0, 2.0)).predict(planted.disjoint(0.0))
