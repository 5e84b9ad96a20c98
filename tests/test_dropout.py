"""Dropout by keys: its rate, its independence, and the same masks in both backends."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from networks import DATA, KEPT, SEEDS, SGD, OneDropoutTwice, Witness, both_backends, modules
from toy import ensemble_of, largest_difference, split_of
from wemem.training import Ensemble, fit
from wemem.training.dropout import SeededDropout, replace_dropout


def masks(layer, keys, shape=(40, 50), call=0):
    """What ``layer`` keeps for each key, as 0 and 1."""
    drawn = []
    for key in keys:
        layer.key, layer.calls = torch.tensor(key, dtype=torch.int32), call
        drawn.append((layer(torch.ones(shape)) > 0).flatten().numpy().astype(int))
    return np.array(drawn)


def test_no_dropout_where_it_is_off():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert SeededDropout(0.0, 0).train()(x) is x
    assert SeededDropout(0.5, 0).eval()(x) is x


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate(p):
    dropped = 1 - masks(SeededDropout(p, 0), range(50))
    low, high = binom.interval(0.9999, dropped.size, p)
    assert low <= dropped.sum() <= high
    # every position by itself, and every mask by itself: as spread as a binomial
    for axis in (0, 1):
        n = dropped.shape[axis]
        variance = dropped.sum(axis).var() / (n * p * (1 - p))
        assert variance == pytest.approx(1, abs=4 * np.sqrt(2 / dropped.shape[1 - axis]) + 0.05)


def test_dropout_preserves_the_expectation():
    layer = SeededDropout(0.3, 0)
    layer.key = torch.tensor(1, dtype=torch.int32)
    kept = layer(torch.ones(1000, 100))
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]


@pytest.mark.parametrize("other", ["the next step", "another layer", "another member", "a second call"])
def test_dropout_masks_are_independent(other):
    first, layer = SeededDropout(0.5, 0), SeededDropout(0.5, 1 if other == "another layer" else 0)
    keys = np.random.default_rng(0).integers(0, 2**31, 40)
    one = masks(first, keys)
    change = {"the next step": 0x9E3779B9, "another member": 1}.get(other, 0)
    two = masks(layer, (keys + change) & 0x7FFFFFFF, call=int(other == "a second call"))
    table = np.bincount((2 * one + two).ravel(), minlength=4)
    expected = one.size / 4
    assert ((table - expected) ** 2 / expected).sum() < 21.1  # chi-square with 3 degrees of freedom, 99.99 %


def test_neighbours_in_a_mask_are_independent():
    drawn = masks(SeededDropout(0.5, 0), range(20), shape=(64, 64)).reshape(20, 64, 64)
    for shift in ((0, 1), (1, 0), (0, 2), (0, 16), (16, 0), (0, 32)):
        agree = (drawn == np.roll(drawn, shift, axis=(1, 2))).mean()
        assert agree == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(drawn.size))


def test_corners_of_a_rectangle_in_a_mask_are_independent():
    """What is hashed along rows and along units, and only then together, must not cancel out."""
    signs = 1 - 2 * masks(SeededDropout(0.5, 0), range(20), shape=(64, 64)).reshape(20, 64, 64)
    for rows in (1, 3, 16):
        for units in (1, 5, 32):
            along = signs * np.roll(signs, rows, axis=1)
            corners = (along * np.roll(along, units, axis=2)).mean()
            assert corners == pytest.approx(0, abs=4 * np.sqrt(4 / signs.size))


def test_every_dropout_layer_is_replaced_wherever_it_stands():
    module = replace_dropout(nn.Sequential(nn.Linear(2, 2), OneDropoutTwice(), nn.Dropout(0.3)))
    kinds = [type(m) for _, m in module.named_modules(remove_duplicate=False)]
    assert nn.Dropout not in kinds
    assert kinds.count(SeededDropout) == 3
    layers = [m.layer for m in module.modules() if isinstance(m, SeededDropout)]
    assert len(set(layers)) == len(layers)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.drop(x))


@pytest.mark.parametrize("build", [Twice, lambda: nn.Sequential(*[nn.Dropout(0.5)] * 2)])
def test_a_dropout_layer_that_is_called_twice_draws_two_masks_in_every_pass(build):
    module, x = replace_dropout(build()).train(), torch.ones(400, 50)
    first = module(x)
    assert (first > 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(module(x), first)


def test_both_backends_draw_the_same_masks_where_a_layer_is_called_twice():
    start = Ensemble.from_modules(modules(OneDropoutTwice))
    vmapped, sequential = both_backends(start, DATA, split_of(DATA), SGD)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


def test_every_member_drops_anew_in_every_step():
    ensemble, recipe = Ensemble.from_modules(modules(Witness)), replace(SGD, epochs=2)
    KEPT.clear()
    fit(ensemble, DATA, split_of(DATA), recipe, seeds=SEEDS, backend="sequential")
    full = [kept for kept in KEPT if len(kept) == 16]
    assert len(full) == 3 * 2 * 3
    for i, one in enumerate(full):
        assert all(0.25 < (one == other).mean() < 0.75 for other in full[:i])
    first = [kept.copy() for kept in KEPT]
    KEPT.clear()
    fit(ensemble, DATA, split_of(DATA), recipe, seeds=SEEDS, backend="sequential")
    assert all(np.array_equal(one, again) for one, again in zip(first, KEPT, strict=True))


def test_dropout_changes_what_is_trained():
    without, with_dropout = (
        fit(ensemble_of(DATA, dropout=p), DATA, split_of(DATA), SGD, seeds=SEEDS).ensemble for p in (0.0, 0.3)
    )
    assert not torch.allclose(without.parameters["1.weight"], with_dropout.parameters["1.weight"], atol=1e-3)
