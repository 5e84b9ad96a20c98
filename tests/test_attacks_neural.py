"""The attacks that train a network: what they see, what they may learn from, and how close they come to the best."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wemem.attacks.classifier import hold_out, log_odds, own_class_first
from wemem.attacks.neural import NeuralNet, NeuralNetClass, NeuralNetTop3
from wemem.attacks.samia import ClassEncoder, EncoderLayer, Samia
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.signals import logit_confidence
from wemem.testing import planted

pytestmark = pytest.mark.slow

#: Small enough for a test, large enough to learn.
QUICK = (
    NeuralNet(steps=40, batch=64),
    NeuralNetTop3(steps=40, batch=64),
    NeuralNetClass(steps=40, batch=64),
    Samia(steps=40, batch=64, tokens=4, layers=1, width=16, feedforward=16),
)
every_attack = pytest.mark.parametrize("attack", QUICK, ids=lambda attack: attack.name)


@cache
def leaking():
    return planted.disjoint(planted.LEAK, records=400, shadows=2)


def auc_of(attack, signals, *, seed=0):
    score, member = attack.score(signals, 0, seed=seed), signals.is_member(0)
    return auc(score[member], score[~member])


def with_logits(signals, logits, **extras):
    return replace(signals, logits=logits.astype(np.float32), extras=extras)


# What is found.


@pytest.mark.parametrize("attack", [NeuralNetClass(), Samia()], ids=lambda attack: attack.name)
def test_the_leak_is_found_as_well_as_the_best_score_finds_it(attack):
    """Members' statistic is drawn from a normal, others' from one of the same width below it: no score beats the
    statistic itself, whose AUC is known in closed form. What a network loses by learning is under a point."""
    signals = planted.disjoint(planted.LEAK, seed=1, records=4000)
    own, member = signals.logit_confidence[0, signals.audited(0)], signals.is_member(0)
    best = auc(own[member], own[~member])
    assert best == pytest.approx(0.877, abs=0.015)
    assert best - 0.01 < auc_of(attack, signals) < best + 0.005


def test_where_only_the_labels_place_tells_the_network_needs_the_label():
    """Everyone's probabilities are alike; a member's label has the largest, a non-member's the second largest."""
    signals = leaking()
    rng = np.random.default_rng(0)
    logits = np.sort(rng.normal(0, 2, signals.logits.shape), axis=2)[:, :, ::-1]
    place = np.where(signals.roles == Role.TRAIN, 0, 1)
    c = np.arange(signals.classes)
    rank = (c[None, None, :] - signals.labels[None, :, None] + place[:, :, None]) % signals.classes
    told = with_logits(signals, np.take_along_axis(logits, rank, axis=2))
    assert auc_of(NeuralNetClass(steps=40, batch=64), told) > 0.95
    assert abs(auc_of(NeuralNet(steps=40, batch=64), told) - 0.5) < 0.15
    assert abs(auc_of(NeuralNetTop3(steps=40, batch=64), told) - 0.5) < 0.15


def test_where_only_the_sensitivity_tells_samia_finds_it():
    signals = planted.disjoint(0.0, records=400, shadows=2)
    trained = (signals.roles == Role.TRAIN)[..., None]
    sensitivity = np.exp(np.random.default_rng(1).normal(0, 1, signals.logits.shape) - 2.0 * trained)
    told = with_logits(signals, signals.logits, sensitivity=sensitivity.astype(np.float32))
    assert auc_of(QUICK[3], told) > 0.9
    assert abs(auc_of(QUICK[2], told) - 0.5) < 0.15


def test_classes_that_leak_are_told_from_those_that_do_not():
    """The label itself is an input: classes 0 and 1 leak, and of the others' records nothing is said."""
    signals = planted.disjoint(planted.LEAK, records=1000)
    leaks = signals.labels < 2
    silent = planted.disjoint(0.0, records=1000).logits
    mixed = with_logits(signals, np.where(leaks[None, :, None], signals.logits, silent))
    score, member = NeuralNetClass(batch=64).score(mixed, 0, seed=0), signals.is_member(0)
    leaky = leaks[signals.audited(0)]
    assert auc(score[leaky & member], score[leaky & ~member]) > 0.8
    assert score[leaky].std() > 5 * score[~leaky].std()


@every_attack
def test_rare_members_do_not_move_the_decision(attack):
    """One shadow row in six is a member's and none differs from the others: the score stays near one half."""
    signals = planted.disjoint(0.0, records=1000)
    roles = signals.roles.copy()
    for row in roles[1:]:
        members = np.flatnonzero(row == Role.TRAIN)
        row[members[: len(members) * 9 // 10]] = Role.UNUSED
    score = attack.score(replace(signals, roles=roles), 0, seed=0)
    assert abs(np.median(score) - 0.5) < 0.1


# What they may learn from.


@every_attack
def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(attack):
    first = attack.score(leaking(), 0, seed=5)
    assert first.tobytes() == attack.score(leaking(), 0, seed=5).tobytes()
    assert first.tobytes() != attack.score(leaking(), 0, seed=6).tobytes()


@every_attack
def test_the_global_generator_is_neither_read_nor_moved(attack):
    torch.manual_seed(1)
    expected = attack.score(leaking(), 0, seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(attack.score(leaking(), 0, seed=5), expected)
    assert torch.equal(torch.get_rng_state(), before)


@every_attack
def test_the_targets_truth_is_never_read(attack):
    signals = leaking()
    roles = signals.roles.copy()
    roles[0, signals.audited(0)] = np.where(signals.is_member(0), Role.AUDIT, Role.TRAIN)
    swapped = attack.score(replace(signals, roles=roles), 0, seed=5)
    np.testing.assert_array_equal(swapped, attack.score(signals, 0, seed=5))


@every_attack
def test_a_record_is_scored_by_itself(attack):
    """Which other records the target is judged on changes no score: nothing is learned from them."""
    signals = leaking()
    rows = signals.audited(0)
    roles = signals.roles.copy()
    roles[0, rows[1::2]] = Role.UNUSED
    half = attack.score(replace(signals, roles=roles), 0, seed=5)
    np.testing.assert_allclose(half, attack.score(signals, 0, seed=5)[::2], rtol=1e-5)


@every_attack
def test_a_shadow_that_shares_a_scored_record_is_refused(attack):
    signals = leaking()
    roles = signals.roles.copy()
    roles[1, signals.audited(0)[3]] = Role.TRAIN
    with pytest.raises(InputError, match="shadow 1 to share no audited record with model 0, got 1 shared"):
        attack.score(replace(signals, roles=roles, layout="shadows"), 0, seed=0)


@every_attack
def test_shadows_of_one_kind_only_are_refused(attack):
    signals = leaking()
    roles = signals.roles.copy()
    roles[1:][roles[1:] == Role.TRAIN] = Role.UNUSED
    with pytest.raises(InputError, match="expected members and non-members among the shadows' records, got 0 members"):
        attack.score(replace(signals, roles=roles), 0, seed=0)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.integers(0, 5))
def test_a_record_is_held_out_of_all_shadows_or_of_none(records, seed):
    records = np.array([*records, 31, 32])
    rows = hold_out(records, seed=seed)
    held, kept = set(records[rows]), set(records[~rows])
    assert not held & kept
    assert len(held) == max(1, round(0.1 * len(held | kept)))


def test_one_record_alone_cannot_be_learned_from():
    with pytest.raises(InputError, match="at least 2 shadow records to learn from, got 1"):
        hold_out(np.array([4, 4, 4]), seed=0)


# What the networks see.


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=8))
def test_log_odds_are_the_logits_of_the_probabilities(logits):
    x = np.array([logits])
    p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    safe = p < 1 - 1e-6
    np.testing.assert_allclose(log_odds(x)[safe], (np.log(p) - np.log1p(-p.clip(max=0.9999999)))[safe], atol=1e-6)


@given(st.integers(0, 2**20))
def test_log_odds_of_each_class_are_its_logit_confidence(seed):
    x = np.random.default_rng(seed).normal(0, 5, (4, 6))
    each = [logit_confidence(x, np.full(4, c)) for c in range(6)]
    np.testing.assert_allclose(log_odds(x), np.stack(each, axis=1), atol=1e-9)


def test_log_odds_keep_the_order_of_probabilities_that_round_to_one():
    odds = log_odds(np.array([[45.0, 0.0], [50.0, 0.0], [60.0, 0.0]], np.float32))
    np.testing.assert_allclose(odds, [[45, -45], [50, -50], [60, -60]])


def test_log_odds_of_absurd_logits_are_cut():
    np.testing.assert_array_equal(log_odds(np.array([[3e38, -3e38]], np.float32)), [[100, -100]])


@given(st.integers(0, 2**20))
def test_own_class_comes_first_and_the_others_fall(seed):
    rng = np.random.default_rng(seed)
    odds, labels = rng.normal(size=(5, 7)), rng.integers(0, 7, 5)
    expected = [
        [y, *(c for _, c in sorted((-value, c) for c, value in enumerate(row) if c != y))]
        for row, y in zip(odds, labels, strict=True)
    ]
    np.testing.assert_array_equal(own_class_first(odds, labels), expected)


@pytest.mark.parametrize("attack", QUICK[:2], ids=lambda attack: attack.name)
def test_without_the_label_the_classes_names_do_not_count(attack):
    signals, rows = leaking(), np.arange(20)
    renamed = with_logits(signals, signals.logits[:, :, ::-1])
    np.testing.assert_allclose(attack.inputs(renamed, 1, rows), attack.inputs(signals, 1, rows), atol=1e-9)


def test_inputs_have_the_stated_sizes():
    signals, rows = leaking(), np.arange(20)
    widths = [attack.inputs(signals, 1, rows).shape for attack in QUICK]
    assert widths == [(20, 5), (20, 3), (20, 5 + 5), (20, 4 + 4 + 5)]


@every_attack
def test_two_classes_are_enough(attack):
    signals = planted.disjoint(planted.LEAK, records=400, shadows=2, classes=2)
    assert auc_of(attack, signals) > 0.75


@every_attack
def test_a_few_records_are_scored_without_a_warning(attack):
    signals = planted.disjoint(planted.LEAK, records=60, shadows=1, classes=2)
    score = attack.score(signals, 0, seed=0)
    assert score.shape == signals.audited(0).shape
    assert ((score > 0) & (score < 1)).all()


@every_attack
def test_saturated_and_constant_outputs_give_finite_scores(attack):
    signals = leaking()
    for logits in (1e30 * signals.logits.astype(np.float64), np.zeros(signals.logits.shape)):
        flat = with_logits(signals, logits, sensitivity=np.zeros(signals.logits.shape, np.float32))
        assert np.isfinite(attack.score(flat, 0, seed=0)).all()


# SAMIA's network.


def test_an_encoder_layer_is_that_of_pytorch():
    """The same weights give the same output, where dropout is off."""
    size = Samia(width=16, heads=4, feedforward=24)
    ours = EncoderLayer(size).eval()
    theirs = nn.TransformerEncoderLayer(16, 4, 24, size.dropout, activation="gelu", batch_first=True).eval()
    for own, other in (
        (ours.project_in.weight, theirs.self_attn.in_proj_weight),
        (ours.project_in.bias, theirs.self_attn.in_proj_bias),
        *(
            (getattr(mine, kind), getattr(of_theirs, kind))
            for mine, of_theirs in (
                (ours.project_out, theirs.self_attn.out_proj), (ours.expand, theirs.linear1),
                (ours.contract, theirs.linear2), (ours.norm_attention, theirs.norm1),
                (ours.norm_feedforward, theirs.norm2),
            )
            for kind in ("weight", "bias")
        ),
    ):  # fmt: skip
        with torch.no_grad():
            own.copy_(other.normal_(0, 0.3, generator=torch.Generator().manual_seed(own.numel())))
    x = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_dropout_takes_a_unit_from_all_tokens_of_a_record():
    layer = EncoderLayer(Samia(dropout=0.5)).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = layer._drop(torch.ones(200, 6, 64))
    assert (dropped == dropped[:, :1]).all()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)


def test_the_label_reaches_the_network_through_its_own_token():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ClassEncoder(6, Samia(tokens=3)).eval()
    x = torch.zeros(2, 3 + 3 + 6)
    x[0, 6], x[1, 7] = 1, 1
    first, second = network(x)[:, 0].tolist()
    assert first != second


def test_fewer_classes_than_tokens_are_all_seen():
    assert ClassEncoder(5, Samia(tokens=12)).parts == [5, 5, 5]


def test_sensitivity_of_another_shape_is_refused():
    signals = leaking()
    flat = replace(signals, extras={"sensitivity": signals.extras["sensitivity"][:, :, 0]})
    with pytest.raises(InputError, match=r"expected sensitivity of the logits' shape \(3, 400, 5\), got \(3, 400\)"):
        QUICK[3].score(flat, 0, seed=0)


# Settings.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeuralNet(steps=5), "'nn' expected steps >= 10, got 5"),
        (lambda: NeuralNet(batch=0), "'nn' expected batch >= 1, got 0"),
        (lambda: NeuralNetTop3(learning_rate=0.0), "'nn_top3' expected a positive learning_rate, got 0"),
        (lambda: NeuralNetTop3(learning_rate=float("nan")), "expected a positive learning_rate, got nan"),
        (lambda: NeuralNetClass(dropout=1.0), "'nn_class' expected 0 <= dropout < 1, got 1"),
        (lambda: Samia(tokens=0), "'samia' expected tokens >= 1, got 0"),
        (lambda: Samia(width=30), "expected a width that 4 heads divide, got 30; 32 would do"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_training_that_diverges_is_told():
    with pytest.raises(InputError, match="expected a finite loss while training, got none; lower learning_rate"):
        NeuralNet(steps=20, batch=64, learning_rate=1e30).score(leaking(), 0, seed=0)
