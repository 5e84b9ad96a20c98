"""The chance level of a strongest attack, beside counting every permutation and beside models without a leak."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wemem.auditing.report import as_json, run_attacks
from wemem.config.attack_entries import make_attacks
from wemem.errors import InputError
from wemem.metrics.null import LEVEL, chance_of_strongest
from wemem.metrics.permutation import permutations
from wemem.metrics.registry import METRICS, ScoredRecords
from wemem.randomness import generator
from wemem.signals import SignalLayout, Signals
from wemem.testing import planted

ALL = list(METRICS.values())


def guesses(records: int, count: int, seed: int = 0) -> list[ScoredRecords]:
    """Attacks that guess: independent scores that know nothing."""
    rng = np.random.default_rng(seed)
    member = np.arange(records) < records // 2
    scores = rng.normal(size=(count, records))
    return [ScoredRecords(score, member, score > 0) for score in scores]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_values_of_many_permutations_are_those_of_each(metric, data):
    n = data.draw(st.integers(3, 60))
    score = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), np.float64)
    member = np.arange(n) < data.draw(st.integers(1, n - 1))
    rows = next(permutations(member, 6, np.random.default_rng(n)))
    many = metric.permuted(ScoredRecords(score, member, score > 0), rows)
    each = [metric.value(ScoredRecords(score, row, score > 0)) for row in rows]
    np.testing.assert_allclose(many, each, atol=1e-12)


def test_level_is_that_of_all_assignments_of_membership():
    score = np.array([5.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0])
    attacks = [ScoredRecords(s, np.arange(8) < 4, s > 2) for s in (score, -score)]
    metric = METRICS["auc"]
    members = [np.isin(np.arange(8), chosen) for chosen in combinations(range(8), 4)]
    exact = [max(metric.value(ScoredRecords(a.score, row)) for a in attacks) for row in members]
    (chance,) = chance_of_strongest([metric], attacks, np.random.default_rng(0), draws=20_000).values()
    assert chance.expected == pytest.approx(np.mean(exact), abs=4 * np.std(exact) / np.sqrt(20_000))
    assert np.mean(np.array(exact) > chance.high) <= 1 - LEVEL


def test_one_attack_has_the_chance_level_of_its_metric():
    chance = chance_of_strongest(ALL, guesses(2000, 1), np.random.default_rng(0))
    for metric in ALL:
        assert chance[metric.name].expected == pytest.approx(metric.chance, abs=0.002)


def test_strongest_of_ten_is_above_the_level_of_one_and_nearer_to_it_with_more_records():
    few, many = (chance_of_strongest(ALL, guesses(n, 10), np.random.default_rng(0)) for n in (500, 4000))
    for metric in ALL:
        assert metric.chance < many[metric.name].expected < few[metric.name].expected
        assert many[metric.name].high < few[metric.name].high


def test_copies_of_an_attack_are_as_strong_as_the_attack():
    (one,) = guesses(400, 1)
    same = [chance_of_strongest(ALL, [one] * copies, np.random.default_rng(0)) for copies in (1, 5)]
    assert same[0] == same[1]


def test_constant_score_has_no_spread():
    constant = ScoredRecords(np.zeros(50), np.arange(50) < 20, np.zeros(50, bool))
    chance = chance_of_strongest(ALL, [constant], np.random.default_rng(0))
    assert (chance["auc"].expected, chance["auc"].high) == (0.5, 0.5)
    assert chance["tpr_at_0.01"].high == 0


def test_attacks_on_other_records_are_permuted_on_their_own():
    attacks = [*guesses(400, 2), *guesses(300, 2)]
    chance = chance_of_strongest(ALL, attacks, np.random.default_rng(0))
    assert chance["auc"].expected > chance_of_strongest(ALL, guesses(400, 2), np.random.default_rng(0))["auc"].expected
    with pytest.raises(InputError, match="at least one attack"):
        chance_of_strongest(ALL, [], np.random.default_rng(0))


@pytest.mark.parametrize("name", ["balanced_accuracy", "auc", "tpr_at_0.01"])
def test_models_without_a_leak_exceed_the_level_as_seldom_as_it_says(name):
    metric, false_alarms, models, level = METRICS[name], 0, 200, []
    for model in range(models):
        attacks = guesses(300, 5, seed=model)
        strongest = max(metric.value(attack) for attack in attacks)
        (chance,) = chance_of_strongest([metric], attacks, np.random.default_rng(model), draws=200).values()
        false_alarms += strongest > chance.high
        level.append(strongest - chance.expected)
    # 5 of 200 on average; 4 standard deviations above
    assert false_alarms <= models * (1 - LEVEL) + 4 * np.sqrt(models * LEVEL * (1 - LEVEL))
    assert abs(np.mean(level)) < 4 * np.std(level) / np.sqrt(models)


def test_real_attacks_on_signals_without_a_leak_are_at_the_level_and_on_leaking_ones_above():
    names = ("confidence", "entropy", "modified_entropy", "top_confidence")

    def strongest(leak: float, seed: int) -> dict[str, dict[str, float]]:
        signals: dict[SignalLayout, Signals] = {"disjoint": planted.disjoint(leak, records=600, shadows=2, seed=seed)}
        worst = as_json(run_attacks(signals, make_attacks(names), seed=seed), seed=seed)["worst"]
        assert isinstance(worst, dict)
        return worst

    quiet = [strongest(0.0, seed) for seed in range(10)]
    for metric in ("balanced_accuracy", "auc", "tpr_at_0.01"):
        gap = np.array([one[metric]["value"] - one[metric]["chance"] for one in quiet])
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))
        assert sum(one[metric]["value"] > one[metric]["chance_high"] for one in quiet) <= 3
        loud = strongest(2.0, 0)[metric]
        assert loud["value"] > loud["chance_high"]


def test_same_seed_gives_the_same_level():
    first, again = (chance_of_strongest(ALL, guesses(100, 2), generator(3, "null")) for _ in range(2))
    assert first == again
