"""Iterative pruning: schedules by hand, masks to the weight, and zeros that stay zeros after every step."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from toy import CLASSES, FEATURES, blobs, ensemble_of, same_bytes, split_of
from wemem.defenses import MemoryRegularizer, SlidingWindow, Undefended, make_defense
from wemem.errors import InputError
from wemem.models import FullyConnected
from wemem.pruning import LayerChoice, Pruning, Schedule, iterate, prunable_weights, pruned_share
from wemem.pruning.masks import weight_masks
from wemem.randomness import derive_seed
from wemem.training import Ensemble, Recipe, fit

DATA = blobs()
SEEDS = [1, 2]
HIDDEN = ["1.weight", "4.weight"]
CLASSIFIER = "7.weight"
SHORT = Recipe(epochs=3, patience=None, batch_size=16)
SCORES = [np.random.default_rng(k).random(len(DATA)) for k in range(2)]
UNKNOWN: Any = "unknown"

kinds = st.sampled_from(["geometric", "cubic", "linear", "one_shot"])


def dense():
    return ensemble_of(DATA, members=2, hidden=(16, 8))


def rounds(pruning, defense=None, *, start=None, **settings):
    start = dense() if start is None else start
    split = split_of(DATA, members=2)
    return list(
        iterate(start, DATA, split, pruning, defense or Undefended(), seeds=SEEDS, scores=SCORES, **settings)
    )  # fmt: skip


def prune(ensemble, sparsity, scope="layer"):
    """Masks by magnitude."""
    return weight_masks(ensemble, sparsity, torch.abs, example_of(ensemble.template), scope=scope)


def example_of(module):
    """A record for a model that begins with a linear layer."""
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Linear))
    return torch.zeros(1, first.in_features)


def prunable(module, example=None):
    return prunable_weights(module, example_of(module) if example is None else example, LayerChoice())


def masked(ensemble, masks):
    """With masks, and the pruned weights at zero."""
    parameters = {n: t.masked_fill(~masks[n], 0) if n in masks else t for n, t in ensemble.parameters.items()}
    return replace(ensemble, parameters=parameters, masks=masks)


def with_weights(weights, classes=2):
    """One member whose only hidden layer has these weights."""
    weights = torch.tensor([weights], dtype=torch.float32)
    model = FullyConnected(hidden=(weights.shape[1],), dropout=0.0)
    ensemble = Ensemble.initialize(model, (weights.shape[2],), classes, seeds=[0])
    return replace(ensemble, parameters={**ensemble.parameters, "1.weight": weights})


def pruned_by_sorting(weights, count):
    """Which of a flat array go: the ``count`` smallest magnitudes, ties by position."""
    gone = np.zeros(len(weights), bool)
    gone[sorted(range(len(weights)), key=lambda i: (abs(weights[i]), i))[:count]] = True
    return gone


def flat(ensemble, names, member):
    return np.concatenate([ensemble.parameters[name][member].flatten().numpy() for name in names])


def test_no_sparsity_is_plain_fine_tuning_to_the_byte():
    (only,) = rounds(Pruning(Schedule(0.0, rounds=1), recipe=SHORT))
    seeds = [derive_seed(seed, "round", 0) for seed in SEEDS]
    assert same_bytes(only.ensemble, fit(dense(), DATA, split_of(DATA, members=2), SHORT, seeds=seeds).ensemble)
    assert (only.sparsity, dict(only.ensemble.masks)) == (0.0, {})


def test_a_round_prunes_first_and_then_fits():
    (only,) = rounds(Pruning(Schedule(0.6, rounds=1), recipe=SHORT))
    start = masked(dense(), prune(dense(), 0.6))
    seeds = [derive_seed(seed, "round", 0) for seed in SEEDS]
    assert same_bytes(only.ensemble, fit(start, DATA, split_of(DATA, members=2), SHORT, seeds=seeds).ensemble)


@pytest.mark.parametrize(("kind", "expected"), [
    ("geometric", [0, 1 - 0.25**0.5, 0.75]),
    ("cubic", [0, 0.75 * 7 / 8, 0.75]),
    ("linear", [0, 0.375, 0.75]),
    ("one_shot", [0.75, 0.75, 0.75]),
])  # fmt: skip
def test_schedules_by_hand(kind, expected):
    assert Schedule(0.75, rounds=3, kind=kind).sparsities == pytest.approx(expected)


def test_the_geometric_schedule_keeps_the_same_share_every_round():
    kept = 1 - np.array(Schedule(0.6, rounds=5).sparsities)
    np.testing.assert_allclose(kept[1:] / kept[:-1], 0.4**0.25)


@given(kinds, st.floats(0, 0.999), st.integers(1, 12))
def test_schedules_rise_to_exactly_the_target(kind, sparsity, count):
    path = Schedule(sparsity, count, kind).sparsities
    assert len(path) == count
    assert path[-1] == sparsity
    assert all(a <= b + 1e-12 for a, b in pairwise(path))
    assert all(0 <= s <= sparsity + 1e-12 for s in path)
    assert kind == "one_shot" or count == 1 or path[0] == 0


@given(st.floats(0, 1), st.integers(0, 50))
def test_each_layer_loses_its_smallest_weights_to_the_weight(sparsity, seed):
    ensemble = dense() if seed % 2 else quantized(dense(), seed)
    masks = prune(ensemble, sparsity)
    assert list(masks) == HIDDEN
    for name in HIDDEN:
        for k in range(2):
            weights = flat(ensemble, [name], k)
            gone = pruned_by_sorting(weights, round(sparsity * len(weights)))
            assert (~masks[name][k].flatten().numpy() == gone).all()


@given(st.floats(0, 1), st.integers(0, 50))
def test_all_layers_together_lose_their_smallest_weights_to_the_weight(sparsity, seed):
    ensemble = dense() if seed % 2 else quantized(dense(), seed)
    masks = prune(ensemble, sparsity, "global")
    for k in range(2):
        weights = flat(ensemble, HIDDEN, k)
        gone = pruned_by_sorting(weights, round(sparsity * len(weights)))
        assert (np.concatenate([~masks[name][k].flatten().numpy() for name in HIDDEN]) == gone).all()


def quantized(ensemble, seed):
    """The same with few distinct magnitudes, so that ties are everywhere."""
    rng = np.random.default_rng(seed)
    tied = {n: torch.tensor(rng.integers(-2, 3, t.shape) / 4, dtype=t.dtype) for n, t in ensemble.parameters.items()}
    return replace(ensemble, parameters=tied)


def test_ties_go_by_position():
    mask = prune(with_weights([[0.5, -0.5, 0.5], [0.5, 1.0, -0.5]]), 0.5)["1.weight"]
    assert mask[0].tolist() == [[False, False, False], [True, True, True]]


def test_magnitudes_compete_in_a_layer_or_over_all():
    ensemble = replace(dense(), parameters={n: t + 10 * (n == "4.weight") for n, t in dense().parameters.items()})
    layer, over_all = (prune(ensemble, 0.4, scope) for scope in ("layer", "global"))
    n, m = (ensemble.parameters[name][0].numel() for name in HIDDEN)
    assert [int((~layer[name][0]).sum()) for name in HIDDEN] == [round(0.4 * n), round(0.4 * m)]
    assert [int((~over_all[name][0]).sum()) for name in HIDDEN] == [round(0.4 * (n + m)), 0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5).map(sorted), st.sampled_from(["layer", "global"]))
def test_masks_only_grow(path, scope):
    ensemble = dense()
    gone = {name: torch.zeros_like(ensemble.parameters[name], dtype=torch.bool) for name in HIDDEN}
    rng = np.random.default_rng(0)
    for sparsity in path:
        masks = prune(ensemble, sparsity, scope)
        assert all((~masks[name])[gone[name]].all() for name in HIDDEN)
        gone = {name: ~masks[name] for name in HIDDEN}
        # training goes on, and may well bring a kept weight below the pruned ones
        moved = {n: torch.tensor(rng.normal(0, 1, t.shape), dtype=t.dtype) for n, t in ensemble.parameters.items()}
        ensemble = masked(replace(ensemble, parameters=moved), masks)


def test_a_kept_weight_that_is_zero_is_not_taken_for_pruned():
    ensemble = with_weights([[0.0, 0.0, 3.0, 4.0]])
    first = prune(ensemble, 0.25)["1.weight"]
    assert first[0].tolist() == [[False, True, True, True]]
    second = prune(replace(ensemble, masks={"1.weight": first}), 0.5)["1.weight"]
    assert second[0].tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("kind", ["geometric", "cubic", "linear", "one_shot"])
def test_every_round_reaches_its_sparsity_to_the_weight(kind, scope):
    schedule = Schedule(0.6, rounds=4, kind=kind)
    sizes = [dense().parameters[name][0].numel() for name in HIDDEN]
    for done in rounds(Pruning(schedule, scope, replace(SHORT, epochs=1))):
        target = schedule.sparsities[done.index]
        wanted = sum(round(target * n) for n in sizes) if scope == "layer" else round(target * sum(sizes))
        for k in range(2):
            zeros = sum(int((done.ensemble.parameters[name][k] == 0).sum()) for name in HIDDEN)
            assert zeros == wanted
        assert done.sparsity == wanted / sum(sizes) == pruned_share(done.ensemble)


def test_the_classifier_and_biases_are_never_pruned():
    for done in rounds(Pruning(Schedule(0.9, rounds=2), recipe=SHORT)):
        assert set(done.ensemble.masks) <= set(HIDDEN)
        for name, weights in done.ensemble.parameters.items():
            if name not in HIDDEN:
                assert (weights != 0).all()
    assert CLASSIFIER in dense().parameters


def test_convolutions_are_pruned_and_normalization_is_not():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    assert prunable(net, torch.zeros(1, 1, 4, 4)) == ["0.weight", "3.weight"]


def test_frozen_layers_are_pruned_and_keep_what_is_left():
    nets = [nn.Sequential(nn.Linear(FEATURES, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)) for _ in range(2)]
    for net in nets:
        net[0].requires_grad_(False)
    start = Ensemble.from_modules(nets)
    done = rounds(Pruning(Schedule(0.5, rounds=2), recipe=SHORT), start=start)[-1].ensemble
    for name in ("0.weight", "1.weight"):
        assert int((~done.masks[name]).sum()) == done.masks[name].numel() // 2
    weights, kept = done.buffers["0.weight"], done.masks["0.weight"]
    assert torch.equal(weights, start.buffers["0.weight"] * kept)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
@pytest.mark.parametrize("defense", [
    Undefended(), MemoryRegularizer(threshold=0.5, decay=0.5),
    make_defense("swmr", {"width": 0.5, "stride": 1, "top": 0.4, "decay": 0.5}),
])  # fmt: skip
def test_pruned_weights_are_plus_zero_before_and_after_every_step(defense, backend, optimizer):
    # dense fine-tuning first, so that Adam's moments and the decay have something to revive
    start = rounds(Pruning(Schedule(0.0, rounds=1), recipe=SHORT), backend=backend)[0].ensemble
    pruned = masked(start, prune(start, 0.6))
    gone = {tuple(mask[0].shape): ~mask for mask in pruned.masks.values()}
    checked = []

    def look(stepped, *_):
        leaves = [p for group in stepped.param_groups for p in group["params"]]
        for shape, where in gone.items():
            # an optimizer sees members stacked, and their matrices as they lie in memory
            seen = [leaf.detach() for leaf in leaves if leaf.shape[1:] in (shape, shape[::-1])]
            weights = torch.cat([leaf if leaf.shape[1:] == shape else leaf.mT for leaf in seen])
            # one member at a time when sequential: it is the one whose mask fits
            fits = [bool((weights == 0).eq(where[k : k + len(weights)]).all()) for k in range(3 - len(weights))]
            assert any(fits)
            zeros = weights[weights == 0]
            assert not torch.signbit(zeros).any()
            checked.append(len(zeros))

    handle = register_optimizer_step_pre_hook(look)
    recipe = replace(SHORT, optimizer=optimizer, weight_decay=0.1, learning_rate=0.01)
    try:
        fitted = fit(
            pruned, DATA, split_of(DATA, members=2), recipe, seeds=SEEDS, defense=defense, scores=SCORES,
            backend=backend,
        )  # fmt: skip
    finally:
        handle.remove()
    assert len(checked) > 10
    for name, mask in pruned.masks.items():
        weights = fitted.ensemble.parameters[name]
        assert (weights[~mask] == 0).all()
        assert not torch.signbit(weights[~mask]).any()
        assert (weights[mask] != pruned.parameters[name][mask]).any()


@pytest.mark.parametrize("rewind", ["none", "initial"])
@pytest.mark.parametrize("defense", [Undefended(), SlidingWindow(0.5, 1)])
def test_going_on_from_a_round_equals_one_run_to_the_byte(defense, rewind):
    pruning = Pruning(Schedule(0.6, rounds=4), recipe=replace(SHORT, epochs=2), rewind=rewind)
    whole = rounds(pruning, defense, initial=dense())
    for first in (1, 2, 3):
        resumed = rounds(pruning, defense, start=whole[first - 1].ensemble, first_round=first, initial=dense())
        assert [done.index for done in resumed] == list(range(first, 4))
        for done, before in zip(resumed, whole[first:], strict=True):
            assert same_bytes(done.ensemble, before.ensemble)
            assert done.history == before.history


def test_rounds_use_fresh_orders():
    first, second = rounds(Pruning(Schedule(0.0, rounds=2), recipe=replace(SHORT, epochs=1)))
    again = rounds(Pruning(Schedule(0.0, rounds=1), recipe=replace(SHORT, epochs=1)), start=first.ensemble)[0]
    assert not same_bytes(second.ensemble, again.ensemble)


def test_rewinding_puts_kept_weights_back_and_pruned_ones_to_zero():
    initial = dense()
    still = replace(SHORT, learning_rate=0, epochs=1)
    trained = rounds(Pruning(Schedule(0.0, rounds=1), recipe=SHORT))[0].ensemble
    done = rounds(Pruning(Schedule(0.5, rounds=2), recipe=still, rewind="initial"), start=trained, initial=initial)
    masks = prune(trained, 0.5)
    rewound = done[1].ensemble
    for name in initial.parameters:
        expected = masked(initial, masks).parameters[name]
        assert torch.equal(rewound.parameters[name], expected)
        assert name not in masks or torch.equal(rewound.masks[name], masks[name])


def test_rewinding_happens_only_where_something_is_pruned():
    still = replace(SHORT, learning_rate=0, epochs=1)
    trained = rounds(Pruning(Schedule(0.0, rounds=1), recipe=SHORT))[0].ensemble
    twice = Pruning(Schedule(0.5, rounds=2), recipe=still, rewind="initial")
    unpruned, _ = rounds(twice, start=trained, initial=dense())
    assert all(torch.equal(t, trained.parameters[n]) for n, t in unpruned.ensemble.parameters.items())
    once = Pruning(Schedule(0.5, rounds=2, kind="one_shot"), recipe=SHORT, rewind="initial")
    first, second = rounds(once, start=trained, initial=dense())
    going_on = rounds(replace(once, rewind="none"), start=first.ensemble, first_round=1)[0]
    assert same_bytes(second.ensemble, going_on.ensemble)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: prunable(nn.Linear(FEATURES, CLASSES)),
     "a hidden linear, convolution, recurrent or attention layer to prune, got none besides the classifier"),
    (lambda: rounds(Pruning(Schedule(0.5)), start=Ensemble.from_modules([nn.Linear(FEATURES, CLASSES)] * 2)),
     "a hidden linear, convolution, recurrent or attention layer to prune"),
    (lambda: rounds(Pruning(Schedule(0.5)), start=masked(dense(), prune(dense(), 0.6))),
     r"a sparsity of at least 0\.6\d*, got 0.5; the model is already pruned that far"),
    (lambda: prune(dense(), 0.5, UNKNOWN), "scope must be layer or global, got 'unknown'"),
    (lambda: Pruning(scope=UNKNOWN), "scope must be layer or global, got 'unknown'"),
    (lambda: Pruning(rewind=UNKNOWN), "rewind must be none or initial, got 'unknown'"),
    (lambda: rounds(Pruning(Schedule(0.5), recipe=SHORT, rewind="initial")), "the untrained ensemble, got none"),
    (lambda: Schedule(1.0), r"sparsity must be in \[0, 1\), got 1.0"),
    (lambda: Schedule(-0.1), r"sparsity must be in \[0, 1\), got -0.1"),
    (lambda: Schedule(float("nan")), r"sparsity must be in \[0, 1\), got nan"),
    (lambda: Schedule(rounds=0), "rounds must be at least 1, got 0"),
    (lambda: Schedule(kind=UNKNOWN), "schedule must be geometric, cubic, linear or one_shot, got 'unknown'"),
])  # fmt: skip
def test_what_cannot_be_pruned_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
