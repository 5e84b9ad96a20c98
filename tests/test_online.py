"""The controller that steers one pruning run: what it may do, and that what it does is the member's own."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy import blobs, ensemble_of, same_bytes, split_of
from wemem.data.batches import Group
from wemem.data.split import Role
from wemem.defenses import Observation, OnlineController, TrainingRecords, Undefended
from wemem.defenses.online import at_strength
from wemem.errors import InputError
from wemem.pruning import Pruning, Schedule, iterate
from wemem.pruning.iterate import observe
from wemem.training import Recipe

FRACTION = st.floats(0, 1)
ROUNDS = st.lists(st.builds(Observation, FRACTION, FRACTION, FRACTION, st.integers(1, 500)), min_size=1, max_size=12)
PRUNING = Pruning(Schedule(0.5, rounds=3), recipe=Recipe(epochs=2, batch_size=16))


def strengths(controller, rounds):
    return [controller.strength(tuple(rounds[: r + 1])) for r in range(len(rounds))]


@given(rounds=ROUNDS, drop=st.none() | FRACTION, gap=FRACTION)
def test_whatever_it_sees_it_turns_at_most_once_and_never_up_again(rounds, drop, gap):
    moves = np.diff(strengths(OnlineController(drop, gap), rounds))
    assert set(np.abs(moves)) <= {0.0, 0.25}
    went_down = np.flatnonzero(moves < 0)
    assert not len(went_down) or (moves[went_down[0] :] <= 0).all()


@given(rounds=ROUNDS, gap=FRACTION)
def test_without_an_accuracy_budget_it_never_goes_down(rounds, gap):
    assert (np.diff(strengths(OnlineController(None, gap), rounds)) >= 0).all()


def test_a_gap_that_swings_around_the_aim_does_not_swing_the_strength():
    swinging = [Observation(0.6 + 0.2 * (r % 2), 0.5, 0.5, 100) for r in range(9)]
    seen = strengths(OnlineController(0.01, 0.2), swinging)
    assert seen == sorted(seen)
    poor = [replace(own, dev_accuracy=0.5 - 0.4 * (r % 2)) for r, own in enumerate(swinging)]
    falling = strengths(OnlineController(0.01, 0.0), poor)
    assert falling == sorted(falling, reverse=True)


def test_a_loss_of_accuracy_that_lasts_ends_the_defense():
    lost = [Observation(0.9, 0.5, 0.7, 1000), *[Observation(0.9, 0.5, 0.5, 1000)] * 5]
    assert strengths(OnlineController(), lost) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_a_loss_that_so_few_dev_records_cannot_tell_from_chance_is_borne():
    """One error of 100 records at 70 % is 4.6 points: 4 points beyond the budget are not told from none, 6 are."""
    first = Observation(0.9, 0.5, 0.7, 100)
    borne, lost = (replace(first, dev_accuracy=0.7 - 0.01 - beyond) for beyond in (0.04, 0.06))
    assert strengths(OnlineController(), [first, borne]) == [1.0, 1.0]
    assert strengths(OnlineController(), [first, lost]) == [1.0, 0.75]


def test_a_gap_that_grows_towards_the_aim_raises_the_strength_before_it_is_there():
    controller = OnlineController(None, 0.3)
    assert strengths(controller, [Observation(0.7, 0.5, 0.5, 9), Observation(0.7, 0.5, 0.5, 9)]) == [0.0, 0.0]
    assert strengths(controller, [Observation(0.7, 0.6, 0.5, 9), Observation(0.8, 0.55, 0.5, 9)]) == [0.0, 0.25]


def test_more_strength_shows_fewer_records_and_decays_more_of_them_more_strongly():
    settings = [at_strength(step / 4) for step in (1, 2, 3, 4)]
    for (window, risky), (narrower, more) in pairwise(settings):
        assert narrower.width < window.width
        assert more.top is not None
        assert risky.top is not None
        assert more.top > risky.top
        assert more.decay > risky.decay


def test_groups_of_different_decay_have_different_keys():
    """Members at other strengths train together, and one optimizer has one decay."""
    records = TrainingRecords(np.arange(40), np.zeros(40, np.int64), np.linspace(0, 1, 40), seed=0)
    decays: dict[str, float | None] = {}
    for gap in (0.05, 0.1, 0.15, 0.2):
        seen = replace(records, rounds=(Observation(0.5 + gap, 0.5, 0.5, 10),))
        for group in OnlineController().plan(20, (Group(np.arange(40)),), seen):
            assert decays.setdefault(group.key, group.weight_decay) == group.weight_decay
    assert len(decays) == 5


def pruned(defense, *, first=(), start=None, first_round=0):
    data = blobs(noise=2.0)
    ensemble, split = start or ensemble_of(data), split_of(data)
    scores = [np.random.default_rng(k).random(len(data)) for k in range(3)]
    return list(
        iterate(ensemble, data, split, PRUNING, defense, seeds=[1, 2, 3], scores=scores, observed=first,
                first_round=first_round)
    )  # fmt: skip


def test_an_aim_that_is_never_exceeded_is_plain_pruning():
    for steered, plain in zip(pruned(OnlineController(max_gap=1.0)), pruned(Undefended()), strict=True):
        assert same_bytes(steered.ensemble, plain.ensemble)
    assert len(steered.observed) == 3
    assert not plain.observed


def test_going_on_after_a_round_gives_the_same_bytes():
    whole = pruned(OnlineController(max_gap=0.01))
    assert len({OnlineController(max_gap=0.01).strength(own) for own in whole[-1].observed}) > 1
    rest = pruned(OnlineController(max_gap=0.01), first=whole[0].observed, start=whole[0].ensemble, first_round=1)
    for done, before in zip(rest, whole[1:], strict=True):
        assert same_bytes(done.ensemble, before.ensemble)
        assert done.observed == before.observed


def test_observation_is_of_the_members_own_records():
    data = blobs()
    ensemble, split = ensemble_of(data), split_of(data)
    seen = observe(ensemble, 1, data, split)
    z = ensemble.logits(data.features)[1].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    own, dev = split.records(1, Role.TRAIN), split.records(1, Role.DEV)
    assert seen.train_confidence == pytest.approx(p[own, data.labels[own]].mean())
    assert seen.dev_confidence == pytest.approx(p[dev, data.labels[dev]].mean())
    assert seen.dev_accuracy == (z.argmax(1) == data.labels)[dev].mean()
    assert seen.dev_records == len(dev)


@pytest.mark.parametrize("wrong", [{"max_accuracy_drop": -0.1}, {"max_gap": 1.5}])
def test_budgets_that_are_no_fractions_are_refused(wrong):
    with pytest.raises(InputError, match="must be"):
        OnlineController(**wrong)
