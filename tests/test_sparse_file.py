"""The compact file: equal to the bit, the smallest of three ways, and nothing hostile gets through."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from wemem.errors import InputError
from wemem.exporting.sparse import FORMAT, read_sparse, sparse_bytes

DTYPES = ["float32", "float16", "float64", "int64", "int8", "uint8", "bool"]


def encodings(content: bytes) -> dict[str, Any]:
    (size,) = struct.unpack("<Q", content[:8])
    told: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][FORMAT])
    return told


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(a, b)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits at all, NaN payloads and negative zeros among them, with any share of zeros."""
    dtype, shape = np.dtype(draw(st.sampled_from(DTYPES))), draw(npst.array_shapes(min_dims=0, max_side=9, min_side=0))
    count = int(np.prod(shape))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = rng.integers(0, 2 if dtype.kind == "b" else 256, (count, dtype.itemsize), np.uint8)
    bits[rng.random(count) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))] = 0
    return torch.from_numpy(bits.view(dtype).reshape(shape))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sparse")


@given(state=st.dictionaries(st.text("abc./é", max_size=5), tensors(), max_size=4))
def test_what_is_read_equals_what_was_written_to_the_bit(folder, state):
    content = sparse_bytes(state)
    (folder / "w").write_bytes(content)
    found = read_sparse(folder / "w")
    assert found.keys() == state.keys()
    assert all(same_bits(found[name], state[name]) for name in state)
    assert content == sparse_bytes(dict(reversed(state.items())))


@pytest.mark.parametrize("size", [0, 1])
def test_a_tensor_of_at_most_one_element_comes_back_from_any_stride(folder, size):
    strided = torch.ones(3)[:size].as_strided((size,), (0,))
    (folder / "w").write_bytes(sparse_bytes({"w": strided}))
    assert same_bits(read_sparse(folder / "w")["w"], torch.ones(size))


def test_bfloat16_comes_back(folder):
    state = {"w": torch.tensor([0, 1.5, 0, 0, 0, 0, 0, -0.0]).bfloat16()}
    (folder / "w").write_bytes(sparse_bytes(state))
    assert same_bits(read_sparse(folder / "w")["w"], state["w"])


@pytest.mark.parametrize(
    ("nonzero", "expected", "size"),
    [
        (range(0, 4096, 1), "dense", 4 * 4096),
        (range(0, 4096, 2), "bitmask", 4096 // 8 + 4 * 2048),
        (range(0, 4096, 16), "gaps", (4 + 1) * 256),
        (range(0, 4096, 512), "gaps", (4 + 2) * 8),
        ((), "gaps", 0),
    ],
)
def test_the_smallest_way_is_taken(nonzero, expected, size):
    w = torch.zeros(64, 64)
    w.view(-1)[list(nonzero)] = 1.0
    content = sparse_bytes({"w": w})
    (header,) = struct.unpack("<Q", content[:8])
    assert encodings(content)["w"]["encoding"] == expected
    assert len(content) == 8 + header + size


def test_gaps_beyond_one_and_two_bytes_come_back(folder):
    for place in (255, 256, 65535, 65536, 200_000):
        w = torch.zeros(200_001)
        w[place] = 2.0
        (folder / "w").write_bytes(sparse_bytes({"w": w}))
        assert torch.equal(read_sparse(folder / "w")["w"], w)


def test_plain_pytorch_loads_what_was_read(folder):
    layer, other = torch.nn.Linear(20, 30), torch.nn.Linear(20, 30)
    layer.weight.data[:, ::2] = 0
    (folder / "w").write_bytes(sparse_bytes(layer.state_dict()))
    other.load_state_dict(read_sparse(folder / "w"))
    assert torch.equal(layer.weight, other.weight)


def bitmask(shape, bits, values):
    return {"encoding": "bitmask", "shape": shape}, {"bitmask": np.array(bits, np.uint8), "values": values}


def gaps(shape, width, distances, values):
    return {"encoding": "gaps", "shape": shape, "width": width}, {
        "gaps": np.array(distances, np.uint8),
        "values": values,
    }


ONE = np.ones(1, np.float32)
TWO = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (bitmask([9], [1], ONE), "bitmask of 1 bytes"),
        (bitmask([3], [8], ONE), "beyond the end"),
        (bitmask([3], [3], ONE), "1 values for 2 places"),
        (bitmask([3], [[1]], ONE), "shape or type"),
        (bitmask([3], [1], ONE[None]), "shape or type"),
        (bitmask([-3], [1], ONE), "of shape"),
        (bitmask([True], [1], ONE), "of shape"),
        (bitmask([1.0], [1], ONE), "of shape"),
        (bitmask("3", [1], ONE), "of shape"),
        (bitmask([1] * 65, [1], ONE), "of shape"),
        (gaps([3], 1, [3], ONE), "beyond the end"),
        (gaps([3], 1, [1, 0], TWO), "one element twice"),
        (gaps([1], 1, [0, 1], TWO), "one element twice"),
        (gaps([3], 1, [1], TWO), "2 values for 1 places"),
        (gaps([3], 3, [1], ONE), "gaps of 3 bytes"),
        (gaps([3], "1", [1], ONE), "gaps of '1' bytes"),
        (gaps([3], 2, [1], ONE), "damaged or foreign"),
        (gaps([2**20, 2**40], 1, [1], ONE), "fit into"),
        (bitmask([2**62, 2**62], [1], ONE), "fit into"),
        (({"encoding": "pickle"}, {}), "damaged or foreign"),
        (({}, {}), "damaged or foreign"),
        (([], {}), "damaged or foreign"),
        (({"encoding": "dense"}, {}), "its tensors are not those"),
        (({"encoding": "dense"}, {"dense": ONE, "values": TWO}), "its tensors are not those"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(stored, message, folder):
    how, parts = stored
    tensors = {f"{part}/w": torch.from_numpy(array) for part, array in parts.items()}
    (folder / "w").write_bytes(safetensors.torch.save(tensors, {FORMAT: json.dumps({"w": how})}))
    with pytest.raises(InputError, match=message) as refused:
        read_sparse(folder / "w")
    assert "\n" not in str(refused.value)


def test_a_small_file_that_unfolds_to_more_than_the_limit_is_refused(folder):
    (folder / "w").write_bytes(sparse_bytes({"w": torch.zeros(2**20)}))
    assert (folder / "w").stat().st_size < 1000
    with pytest.raises(InputError, match="fit into"):
        read_sparse(folder / "w", memory_gib=2**-10)
    assert len(read_sparse(folder / "w", memory_gib=2**-7)["w"]) == 2**20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**24 + 1) + b"{}",
        b"PK\x03\x04 and more",
        safetensors.torch.save({"w": torch.ones(2)}),
        safetensors.torch.save({"w": torch.ones(2)}, {FORMAT: "not JSON"}),
        safetensors.torch.save({"w": torch.ones(2)}, {FORMAT: "[" * 5000}),
        safetensors.torch.save({"w": torch.ones(2)}, {FORMAT: "3"}),
    ],
)
def test_foreign_files_are_refused_in_one_line(content, folder):
    (folder / "w").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged or foreign|expected JSON|at most 64 deep") as refused:
        read_sparse(folder / "w")
    assert "\n" not in str(refused.value)


def test_every_truncation_is_refused(folder):
    w = torch.zeros(64)
    w[::3] = 1.0
    whole = sparse_bytes({"w": w, "b": torch.ones(3)})
    for size in range(0, len(whole), 5):
        (folder / "w").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_sparse(folder / "w")


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="absent"):
        read_sparse(tmp_path / "absent")
