"""Defenses that replace the loss: their limits, sums done by hand, padding, extreme logits and both backends."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toy import blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.defenses import Batch, Undefended
from wemem.defenses.advreg import AdvReg
from wemem.defenses.hamp import HAMP, random_scores_in_order, top_probability
from wemem.defenses.label_smoothing import LabelSmoothing
from wemem.defenses.ppb import PPB
from wemem.defenses.relaxloss import RelaxLoss
from wemem.errors import InputError
from wemem.training import Recipe, fit

DATA = blobs()
SEEDS = [11, 12, 13]
SGD = Recipe(epochs=4, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
OFF = [PPB(alpha=0), AdvReg(theta=0), RelaxLoss(alpha=0), LabelSmoothing(smoothing=0), HAMP(gamma=0, alpha=0)]
#: RelaxLoss also at a level so high that odd epochs flatten.
ON = [PPB(), RelaxLoss(), RelaxLoss(alpha=1e9), LabelSmoothing(), HAMP()]
#: Two pairs and a record left over; the last is predicted wrongly.
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.2, 0.5], [0.25, 0.5, 0.25], [0.8, 0.1, 0.1]])
Y = np.array([0, 1, 2, 1, 2])


def batch_of(probabilities, labels, epoch=0):
    logits = torch.tensor(np.log(probabilities)[None], dtype=torch.float32)
    return Batch(logits, torch.tensor(labels[None]), torch.ones(1, len(labels)), epoch)


def random_batch(counts, *, width, seed, epoch, classes=4):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 3, (len(counts), width, classes)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, classes, (len(counts), width)))
    return Batch(logits, labels, (torch.arange(width) < torch.tensor(counts)[:, None]).float(), epoch)


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("defense", OFF)
def test_a_defense_that_is_off_has_the_loss_of_cross_entropy(defense, epoch):
    batch = random_batch([7, 4, 1], width=7, seed=0, epoch=epoch)
    assert torch.equal(defense.loss(batch), Undefended().loss(batch))


@pytest.mark.parametrize("defense", OFF)
def test_a_defense_that_is_off_trains_the_undefended_models(defense):
    one, other = (
        fit(ensemble_of(DATA), DATA, split_of(DATA), SGD, seeds=SEEDS, defense=d).ensemble
        for d in (defense, Undefended())
    )
    assert same_bytes(one, other) or largest_difference(one, other) < 1e-6


@pytest.mark.parametrize("defense", ON)
def test_a_defense_that_is_on_trains_other_models(defense):
    one, other = (
        fit(ensemble_of(DATA), DATA, split_of(DATA), SGD, seeds=SEEDS, defense=d).ensemble
        for d in (defense, Undefended())
    )
    assert largest_difference(one, other) > 1e-4


def test_ppb_compares_the_sorted_posteriors_of_the_two_halves():
    ranked = -np.sort(-P, axis=1)
    kl = [np.sum(ranked[i] * np.log(ranked[i] / ranked[i + 2])) for i in (0, 1)]
    expected = -np.log(P[range(5), Y]).mean() + 3 * np.mean(kl)
    assert PPB(alpha=3).loss(batch_of(P, Y)).item() == pytest.approx(expected, rel=1e-5)


def test_ppb_pairs_nothing_in_a_batch_of_one_record():
    assert PPB().loss(batch_of(P[:1], Y[:1])).item() == pytest.approx(-np.log(0.7), rel=1e-5)


@pytest.mark.parametrize(("alpha", "direction"), [(0.1, 1), (5.0, -1)])
def test_relaxloss_descends_above_its_level_and_ascends_below_it_in_even_epochs(alpha, direction):
    losses = []
    gradients = []
    for defense in (RelaxLoss(alpha), Undefended()):
        batch = batch_of(P, Y)
        logits = batch.logits.requires_grad_()
        losses.append(defense.loss(batch))
        gradients.append(torch.autograd.grad(losses[-1].sum(), logits)[0])
    assert losses[0].item() == pytest.approx(abs(losses[1].item() - alpha), rel=1e-5)
    torch.testing.assert_close(gradients[0], direction * gradients[1])


def test_relaxloss_flattens_every_record_below_its_level_in_odd_epochs():
    targets = np.array([[0.7, 0.15, 0.15], [0.2, 0.6, 0.2], [0.25, 0.25, 0.5], [0.25, 0.5, 0.25], [0.45, 0.45, 0.1]])
    expected = -(targets * np.log(P)).sum(1).mean()
    assert RelaxLoss(alpha=5).loss(batch_of(P, Y, epoch=1)).item() == pytest.approx(expected, rel=1e-5)
    plain = Undefended().loss(batch_of(P, Y)).item()
    assert RelaxLoss(alpha=0.1).loss(batch_of(P, Y, epoch=1)).item() == plain


def test_relaxloss_holds_its_targets_fixed():
    batch = batch_of(P[:1], Y[:1], epoch=1)
    logits = batch.logits.requires_grad_()
    (gradient,) = torch.autograd.grad(RelaxLoss(alpha=5).loss(batch).sum(), logits)
    assert gradient[0, 0].tolist() == pytest.approx([0.7 - 0.7, 0.2 - 0.15, 0.1 - 0.15], abs=1e-6)


def test_label_smoothing_spreads_its_share_over_all_classes():
    target = 0.7 * np.eye(3)[Y] + 0.1
    expected = -(target * np.log(P)).sum(1).mean()
    assert LabelSmoothing(smoothing=0.3).loss(batch_of(P, Y)).item() == pytest.approx(expected, rel=1e-5)


def test_hamp_is_cross_entropy_against_soft_labels_minus_entropy():
    top = top_probability(0.6, 3)
    target = np.full((5, 3), (1 - top) / 2)
    target[range(5), Y] = top
    expected = (-(target * np.log(P)).sum(1) + 0.5 * (P * np.log(P)).sum(1)).mean()
    assert HAMP(gamma=0.6, alpha=0.5).loss(batch_of(P, Y)).item() == pytest.approx(expected, rel=1e-5)


@given(st.floats(0.01, 0.99), st.integers(2, 100))
def test_hamp_s_soft_labels_have_just_the_entropy_asked_for(gamma, classes):
    top = top_probability(gamma, classes)
    label = np.array([top] + [(1 - top) / (classes - 1)] * (classes - 1))
    entropy = -(label * np.log(label)).sum()
    assert gamma * np.log(classes) - 1e-12 <= entropy <= gamma * np.log(classes) + 1e-6
    assert top >= 1 / classes


@given(st.integers(2, 200), st.integers(0, 2**32 - 1))
def test_hamp_releases_nothing_but_the_ranks(classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (6, classes)).astype(np.float32)
    logits[0] = 0
    released = random_scores_in_order(logits, np.random.default_rng(seed))
    order = logits.argsort(1, kind="stable")
    assert np.array_equal(released.argsort(1, kind="stable"), order)
    assert released.dtype == np.float32
    ranks = order.argsort(1)
    assert np.array_equal(released, random_scores_in_order(ranks.astype(np.float32), np.random.default_rng(seed)))
    assert not np.array_equal(released, random_scores_in_order(logits, np.random.default_rng(seed + 1)))


@given(
    st.sampled_from(ON), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(0, 3), st.integers(0, 1)
)  # fmt: skip
def test_padding_and_company_change_no_loss(defense, counts, padding, epoch):
    batch = random_batch(counts, width=max(counts) + padding, seed=sum(counts), epoch=epoch)
    together = defense.loss(batch)
    for k, n in enumerate(counts):
        cut = (slice(k, k + 1), slice(n))
        alone = Batch(batch.logits[cut], batch.labels[cut], batch.weights[cut], epoch)
        torch.testing.assert_close(together[k : k + 1], defense.loss(alone))


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("defense", ON)
def test_loss_and_gradient_are_finite_for_extreme_logits(defense, epoch, size):
    batch = random_batch([6, 5], width=6, seed=1, epoch=epoch)
    batch = replace(batch, logits=(batch.logits.sign() * size).requires_grad_())
    loss = defense.loss(batch)
    (gradient,) = torch.autograd.grad(loss.sum(), batch.logits)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("defense", ON)
def test_both_backends_train_the_same_models(defense):
    vmapped, sequential = (
        fit(ensemble_of(DATA), DATA, split_of(DATA), SGD, seeds=SEEDS, defense=defense, backend=b).ensemble
        for b in ("vmapped", "sequential")
    )
    assert largest_difference(vmapped, sequential) < 1e-5


@pytest.mark.parametrize(("build", "message"), [
    (lambda: PPB(alpha=-1), "alpha must be finite and 0 or more, got -1; for no balancing use Undefended"),
    (lambda: PPB(alpha=float("nan")), "alpha must be finite and 0 or more, got nan"),
    (lambda: RelaxLoss(alpha=-1), "alpha must be finite and 0 or more, got -1; for no level use Undefended"),
    (lambda: RelaxLoss(alpha=float("inf")), "alpha must be finite and 0 or more, got inf"),
    (lambda: LabelSmoothing(smoothing=1.0), r"smoothing must be in \[0, 1\), got 1.0"),
    (lambda: LabelSmoothing(smoothing=-0.1), r"smoothing must be in \[0, 1\), got -0.1"),
    (lambda: HAMP(gamma=1.0), r"gamma must be in \[0, 1\), got 1.0"),
    (lambda: HAMP(alpha=-0.1), "alpha must be finite and 0 or more, got -0.1"),
])  # fmt: skip
def test_settings_out_of_range_are_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


class Alike:
    """Draws the same number every time, the tie that a random generator hardly ever shows."""

    def random(self, shape, dtype):
        return np.full(shape, 0.999999, dtype)


def test_equal_draws_are_still_released_as_different_scores_in_the_models_order():
    logits = np.array([[3.0, -1.0, 9.0, 2.0], [0.0, 1.0, 2.0, 3.0]], np.float32)
    released = random_scores_in_order(logits, cast("np.random.Generator", Alike()))
    assert (released.argsort(1) == logits.argsort(1)).all()
    assert all(len(set(row)) == 4 for row in released.tolist())
