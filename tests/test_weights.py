"""Weights from outside: floating and finite, by the names that people save, and zeros that stay zeros."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from toy import CLASSES, FEATURES, blobs, ensemble_of, split_of
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.exporting.checkpoint import channels_path, load_pruned, read_channels
from wemem.exporting.shards import weights_sha256
from wemem.exporting.weight_files import read_weights
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


def other(state):
    """The weights of another model of the same shapes."""
    return {name: tensor + 1 for name, tensor in state.items()}


PREFIXES = ["module.", "_orig_mod.", "model.", "state_dict.", "state_dict.model.module.", "classifier.net."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_prefix_of_a_wrapper_is_taken_off_and_noted(tmp_path, prefix):
    state = network().state_dict()
    notes: list[str] = []
    path = saved({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path)
    assert torch.equal(load_pruned(network(), path, notes.append).state_dict()["0.weight"], state["0.weight"])
    assert repr(prefix) in notes[0]


def test_tensors_beside_the_model_are_left_out_and_named(tmp_path):
    state = network().state_dict()
    beside = {"loss.weight": torch.ones(3), "ema_decay": torch.ones(1)}
    idle = {"model.total_ops": torch.ones(1), "model.0.total_params": torch.ones(1)}
    notes: list[str] = []
    path = saved({**{f"model.{name}": t for name, t in state.items()}, **beside, **idle}, tmp_path)
    loaded = load_pruned(network(), path, notes.append).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert "left out: ema_decay, loss.weight, model.0.total_params and 1 more" in notes[1]


def test_a_missing_number_of_batches_changes_no_answer(tmp_path):
    module = network().eval()
    state = {name: t for name, t in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(load_pruned(network(), saved(state, tmp_path), pytest.fail)(EXAMPLE), module(EXAMPLE))


@pytest.mark.parametrize("extra", ["4.weight", "0.gate", "1.weight_u"])
def test_a_further_tensor_of_the_model_itself_is_refused(tmp_path, extra):
    path = saved({**network().state_dict(), extra: torch.ones(2)}, tmp_path)
    with pytest.raises(InputError, match=rf"expected '{extra}' of shape no such tensor"):
        load_pruned(network(), path)


def test_a_student_and_its_teacher_in_one_file_are_refused(tmp_path):
    state = network().state_dict()
    both = {f"student.{name}": t for name, t in state.items()} | {f"teacher.{n}": t for n, t in other(state).items()}
    with pytest.raises(InputError, match=r"one under 'student.' and one under 'teacher.'; save one"):
        load_pruned(network(), saved(both, tmp_path))
    # a model that stands under its own names is meant, whatever else the file holds
    path = saved({**state, **{f"ema.{n}": t for n, t in other(state).items()}}, tmp_path)
    with pytest.raises(InputError, match=r"expected 'ema\.0\.bias' of shape no such tensor"):
        load_pruned(network(), path, lambda note: None)


def sharded(state, folder):
    """Two files and their index, as Hugging Face writes them."""
    parts = {f"model-0000{i + 1}-of-00002.safetensors": list(state)[i::2] for i in range(2)}
    for file, names in parts.items():
        save_file({name: state[name].contiguous() for name in names}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {n: f for f, names in parts.items() for n in names}}))
    return index


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_sharded_model_is_read_whole_and_its_hash_covers_every_file(tmp_path, by_folder):
    state = network().state_dict()
    index = sharded(state, tmp_path)
    path = tmp_path if by_folder else index
    loaded = load_pruned(network(), path, pytest.fail).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    before = weights_sha256(path)
    sharded({name: t + 1 for name, t in state.items()}, tmp_path)
    assert weights_sha256(path) != before


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: {**m, "0.weight": "../other.safetensors"}, "expected files beside"),
    (lambda m: {**m, "0.weight": "/etc/passwd"}, "expected files beside"),
    (lambda m: {**m, "0.weight": 3}, "expected files beside"),
    (lambda m: {**m, "0.weight": "model-00003-of-00002.safetensors"}, "got no such file"),
    (lambda m: {**m, "9.weight": m["0.weight"]}, "expected the tensors in model-.* got a difference in '9.weight'"),
    (lambda m: {n: f for n, f in m.items() if n != "0.weight"}, "got a difference in '0.weight'"),
    (lambda m: {}, "expected a weight_map"),
    (lambda m: [1], "expected a weight_map"),
])  # fmt: skip
def test_an_index_that_leads_elsewhere_or_does_not_fit_its_files_is_refused(tmp_path, change, message):
    index = sharded(network().state_dict(), tmp_path)
    content = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": change(content["weight_map"])}))
    with pytest.raises(InputError, match=message) as caught:
        load_pruned(network(), index)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nesting", [None, "state_dict", "model_state_dict"])
def test_a_file_of_torch_save_is_refused_with_the_command_that_converts_it(tmp_path, nesting):
    state = tied().state_dict()
    torch.save(state if nesting is None else {nesting: state, "epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="which is not opened because it may run code; convert it: python") as caught:
        load_pruned(tied(), tmp_path / "model.pt")
    python, *arguments = shlex.split(str(caught.value).split("convert it: ")[1])
    assert python == "python"
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
    loaded = load_pruned(tied(), tmp_path / "model.safetensors", pytest.fail).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("start", [b"\x80\x04\x95", b"PK\x03\x04rest", b"\x80\x02}q"])
def test_pickles_are_known_by_their_first_bytes_whatever_they_are_called(tmp_path, start):
    (tmp_path / "weights.safetensors").write_bytes(start + b"0" * 100)
    with pytest.raises(InputError, match=r"got a file of torch\.save"):
        read_weights(tmp_path / "weights.safetensors")


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
