"""Models of several inputs, by name or by position: packed rows reach them as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

import wemem
from small_study import table
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.loaders.arrays import dataset_of
from wemem.data.packed_inputs import pack
from wemem.data.sources import load_dataset
from wemem.errors import InputError
from wemem.models import CustomModel, FullyConnected
from wemem.models.several_inputs import fed_from_rows
from wemem.models.table import model_for
from wemem.queries import sensitivity
from wemem.training import Ensemble

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 9, (240, 5))
MASK = np.arange(5) < RNG.integers(2, 6, 240)[:, None]
AGE = RNG.normal(0, 1, (240, 2)).astype(np.float32)
Y = ((IDS * MASK).sum(1) + AGE[:, 0] > 15).astype(np.int64)


class Reader(nn.Module):
    """Takes ids with a mask, and numbers, by name."""

    def __init__(self, length: int, numbers: int, classes: int) -> None:
        super().__init__()
        self.words, self.hidden = nn.Embedding(9, 6), nn.Linear(6 + numbers, 8)
        self.last, self.length = nn.Linear(8, classes), length

    def forward(self, input_ids: Tensor, attention_mask: Tensor, numbers: Tensor) -> Tensor:
        assert (input_ids.dtype, attention_mask.dtype, numbers.dtype) == (torch.int64, torch.bool, torch.float32)
        words = (self.words(input_ids) * attention_mask[..., None]).sum(1)
        logits: Tensor = self.last(self.hidden(torch.cat([words, numbers], 1)).relu())
        return logits


def reader(shapes: dict[str, tuple[int, ...]], classes: int) -> nn.Module:
    return Reader(shapes["input_ids"][0], shapes["numbers"][0], classes)


def data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {"input_ids": IDS, "attention_mask": MASK, "numbers": AGE}, Y


class Records(TorchDataset[Any]):
    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, i: int) -> Any:
        inputs = {"input_ids": IDS[i], "attention_mask": MASK[i], "numbers": torch.from_numpy(AGE[i])}
        match self.form:
            case "mapping":
                return {**inputs, "labels": int(Y[i])}
            case "pair":
                return inputs, Y[i]
            case _:
                return tuple(inputs.values()), Y[i]


@given(
    st.lists(
        st.tuples(st.sampled_from(["float", "int", "bool"]), st.lists(st.integers(1, 3), max_size=2)),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_packed_inputs_reach_the_model_as_they_were(parts):
    rng = np.random.default_rng(0)
    dtypes = {"float": np.float32, "int": np.int64, "bool": np.bool_}
    arrays: tuple[np.ndarray, ...] = tuple(
        rng.integers(-(2**24), 2**24, (4, *shape)).astype(dtypes[kind]) for kind, shape in parts
    )
    rows, inputs = pack("toy", arrays)
    received: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, *values: Tensor) -> Tensor:
            received.extend(values)
            return values[0]

    fed_from_rows(Watching(), inputs)(torch.from_numpy(rows))
    for given_array, value in zip(arrays, received, strict=True):
        np.testing.assert_array_equal(value.numpy(), given_array)


@pytest.mark.parametrize("form", ["mapping", "pair", "tuple"])
def test_torch_data_sets_of_several_inputs_are_read(form):
    from wemem.objects.inputs import loaded_data

    received = loaded_data(Records(form)).load()
    expected = dataset_of("x", data()[0] if form != "tuple" else tuple(data()[0].values()), Y)
    assert received.fingerprint == expected.fingerprint


def test_arrays_of_a_file_are_inputs_by_name(tmp_path):
    np.savez(tmp_path / "data.npz", allow_pickle=False, **data()[0], y=Y)
    received = load_dataset(str(tmp_path / "data.npz"), features=list(data()[0]))
    assert received.fingerprint == dataset_of("x", *data()).fingerprint


def test_model_with_several_inputs_goes_from_study_to_audit(tmp_path):
    study = {
        "model": {"kind": "test_several_inputs:reader"},
        "data": {"source": "test_several_inputs:data"},
        "attacks": ["confidence"],
    }
    study = table(Path(), defenses=["undefended"], pruning={"rounds": 2}) | study
    results = api.run(parse_study(study), tmp_path / "run", tmp_path / "store")
    assert results["runs"][-1]["defense"] == "undefended"
    assert results["runs"][-1]["sparsity"] == pytest.approx(0.6, abs=0.02)


def test_weights_keep_their_names_and_load_into_the_plain_model(tmp_path):
    module = Reader(5, 2, 2)
    result = wemem.prune(
        module, data(), np.arange(150), defense="undefended", architecture="test_several_inputs:reader",
        settings={"pruning": {"rounds": 2}, "finetune": {"epochs": 1}}, out=tmp_path / "out", store=tmp_path / "store",
        progress=False,
    )  # fmt: skip
    import safetensors.torch

    state = safetensors.torch.load_file(result.weights)
    assert state.keys() == module.state_dict().keys()
    assert float((state["hidden.weight"] == 0).float().mean()) == pytest.approx(0.6, abs=0.02)


def test_onnx_of_several_inputs_agrees_with_pytorch():
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    from wemem.exporting.onnx import onnx_bytes

    records = dataset_of("x", *data())
    module = model_for(CustomModel("test_several_inputs:reader"), records).build(records.input_shape, 2)
    _, parity = onnx_bytes(module, records.features[:64])
    assert parity.difference <= parity.allowed


def test_whole_numbers_among_several_inputs_are_replaced_and_not_moved():
    records = dataset_of("x", *data())

    class Watching:
        def __len__(self):
            return 1

        def logits(self, features):
            whole = features[:, :10]
            assert (whole == np.floor(whole)).all()
            return np.zeros((1, len(features), 2), np.float32)

    sensitivity(Watching(), records.features, np.full((1, 240, 2), 0.5, np.float32), seed=0, form=records.form)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, "inputs of as many records each"),
        ({"a": np.array(["x", "y"])}, "expected numbers in input 'a'"),
        ({"a": np.array([[2**24 + 1], [0]]), "b": np.zeros((2, 1))}, "up to 16,777,216 beside other inputs"),
        ({}, "inputs of as many records each"),
    ],
)
def test_inputs_that_cannot_be_packed_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        dataset_of("toy", inputs, [0, 1])


def test_model_of_one_input_is_refused():
    records: Dataset = dataset_of("x", *data())
    with pytest.raises(InputError, match="FullyConnected expected one input for each record, got 3"):
        Ensemble.initialize(model_for(FullyConnected(), records), records.input_shape, 2, [0])
