"""Weights from outside: floating and finite, by the names that people save, and zeros that stay zeros."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from toy import CLASSES, FEATURES, blobs, ensemble_of, split_of
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.exporting.checkpoint import channels_path, load_pruned, read_channels, read_weights
from wemem.files.hashing import file_sha256
from wemem.pruning import LayerChoice, Pruning, Schedule, iterate, masks_of_zeros, pruned_share
from wemem.training import Ensemble, Recipe

DATA = blobs()
EXAMPLE = torch.from_numpy(DATA.features[:2])
SHORT = Recipe(epochs=2, patience=None, batch_size=16)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def saved(state, folder):
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def test_weights_in_float32_come_back_to_the_bit_without_a_note(tmp_path):
    state = network().state_dict()
    notes: list[str] = []
    loaded = load_pruned(network(), saved(state, tmp_path), notes.append).state_dict()
    assert notes == []
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_read_in_float32_and_noted(tmp_path, dtype):
    state = network().state_dict()
    notes: list[str] = []
    changed = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    loaded = load_pruned(network(), saved(changed, tmp_path), notes.append).state_dict()
    assert torch.equal(loaded["0.weight"], state["0.weight"].to(dtype).float())
    assert [str(dtype).removeprefix("torch.") in note and "computed with in float32" in note for note in notes] == [
        True
    ]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_types_that_are_no_plain_floats_are_refused(tmp_path, dtype):
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in network().state_dict().items()}
    with pytest.raises(InputError, match=r"of type float32 in .*, got .*; audit a quantized model in the form"):
        load_pruned(network(), saved(state, tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_when_read(tmp_path, value):
    state = network().state_dict()
    state["3.bias"][1] = value
    with pytest.raises(InputError, match=r"expected finite weights in .*, got NaN or infinity in '3.bias'"):
        read_weights(saved(state, tmp_path))


def test_a_double_that_float32_cannot_hold_is_refused(tmp_path):
    state = {name: t.double() if t.is_floating_point() else t for name, t in network().state_dict().items()}
    state["0.bias"][0] = 1e300
    with pytest.raises(InputError, match=r"got larger ones in '0.bias'|got NaN or infinity in '0.bias'"):
        load_pruned(network(), saved(state, tmp_path), lambda note: None)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_the_prefix_of_a_wrapper_is_taken_off_and_noted(tmp_path, prefix):
    state = network().state_dict()
    notes: list[str] = []
    path = saved({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path)
    assert torch.equal(load_pruned(network(), path, notes.append).state_dict()["0.weight"], state["0.weight"])
    assert repr(prefix) in notes[0]


def tied() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES))
    made[1].weight = made[0].weight
    return made


def test_a_tied_weight_may_stand_in_the_file_once_and_must_not_differ(tmp_path):
    state = tied().state_dict()
    once = {name: tensor for name, tensor in state.items() if name != "1.weight"}
    assert torch.equal(load_pruned(tied(), saved(once, tmp_path))[1].weight, state["0.weight"])  # type: ignore[index]
    with pytest.raises(InputError, match=r"expected one tensor under the tied names 0.weight, 1.weight, got different"):
        load_pruned(tied(), saved({**once, "1.weight": state["0.weight"] + 1}, tmp_path))


@pytest.mark.parametrize("number", ["1e400", "1" + "0" * 400, "-1", "NaN", '"3"', "true", "[]"])
def test_numbers_that_are_no_channels_are_one_line(tmp_path, number):
    path = saved(network().state_dict(), tmp_path)
    layers = f'{{"0": {{"of": {number}, "kept": [0, {number}]}}}}'
    content = {"schema": "wemem.channels/1", "weights_sha256": file_sha256(path), "layers": "HERE"}
    channels_path(path).write_text(json.dumps(content).replace('"HERE"', layers))
    with pytest.raises(InputError) as caught:
        read_channels(path)
    assert "\n" not in str(caught.value)


def sparse_victim(share):
    ensemble = ensemble_of(DATA, members=1)
    weight = ensemble.parameters["1.weight"].clone()
    weight.flatten()[: int(share * weight.numel())] = 0
    return replace(ensemble, parameters={**ensemble.parameters, "1.weight": weight})


def test_a_victims_zeros_are_masks_and_never_regrow():
    victim = sparse_victim(0.4)
    zeros = victim.parameters["1.weight"] == 0
    start = masks_of_zeros(victim, EXAMPLE, LayerChoice())
    assert torch.equal(start.masks["1.weight"], ~zeros)
    pruning = Pruning(Schedule(0.6, rounds=4), recipe=SHORT)
    split = split_of(DATA, members=1)
    done = list(iterate(start, DATA, split, pruning, Undefended(), seeds=[1]))
    assert all((each.ensemble.parameters["1.weight"][zeros] == 0).all() for each in done)
    # layers that have lost more than a round asks for wait; at the end every layer has its share
    assert [each.sparsity for each in done] == sorted(each.sparsity for each in done)
    for mask in done[-1].ensemble.masks.values():
        assert int((~mask).sum()) == round(0.6 * mask.numel())


def test_a_dense_victim_has_no_masks():
    assert masks_of_zeros(ensemble_of(DATA), EXAMPLE, LayerChoice()).masks == {}


def test_a_victim_beside_dense_models_keeps_its_masks_and_they_keep_all():
    victim = masks_of_zeros(sparse_victim(0.5), EXAMPLE, LayerChoice())
    joined = Ensemble.concatenate([victim, ensemble_of(DATA, members=2)])
    assert torch.equal(joined.masks["1.weight"][0], victim.masks["1.weight"][0])
    assert joined.masks["1.weight"][1:].all()
    split = split_of(DATA, members=3)
    pruning = Pruning(Schedule(0.6, rounds=2), recipe=SHORT)
    *_, last = iterate(joined, DATA, split, pruning, Undefended(), seeds=[1, 2, 3])
    counts = (~last.ensemble.masks["1.weight"]).flatten(1).sum(1)
    assert (counts == counts[0]).all()
    np.testing.assert_array_equal(last.ensemble.parameters["1.weight"][0][~victim.masks["1.weight"][0]], 0)


def test_a_victim_that_is_sparser_than_the_target_is_refused_before_training():
    victim = masks_of_zeros(sparse_victim(0.9), EXAMPLE, LayerChoice())
    with pytest.raises(InputError, match="the model is already pruned that far"):
        Pruning(Schedule(0.3)).require_prunable(victim, EXAMPLE)
    assert pruned_share(victim) > 0.3
