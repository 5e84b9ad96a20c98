"""The store: what was put comes back to the bit."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stored import ARRAYS, META, Role, Window, folder_of, key, leftovers, root_of, same
from wemem.files.hashing import sha256_of
from wemem.store.fingerprint import code_fingerprint
from wemem.store.key import TMP
from wemem.store.sources import source_fingerprint
from wemem.store.store import Store


@pytest.fixture
def store(tmp_path, warnings):
    return Store(tmp_path / "store", warnings.append)


def test_what_was_put_comes_back_to_the_bit(store):
    own = key("dense", seed=0)
    assert store.get(own) is None
    assert same(store.put(own, ARRAYS, META))
    found = store.get(own)
    assert found is not None
    assert same(found)
    assert same(Store(root_of(store)).get(own))
    assert leftovers(store) == []


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
def test_every_type_and_shape_comes_back_to_the_bit(store, dtype):
    bits = np.random.default_rng(0).integers(0, 256, (2, 3, 8), np.uint8)
    block = (bits[..., 0] > 127) if dtype == "?" else bits.view(np.uint8)[..., : np.dtype(dtype).itemsize].copy()
    square = block if dtype == "?" else block.view(dtype)[..., 0]  # NaN and subnormals among them
    arrays = {"square": square, "scalar": square[1:, 2].reshape(()), "empty": square[:0], "none": square[:, :0]}
    own = key("dense", dtype=dtype)
    store.put(own, arrays, {})
    assert same(store.get(own), arrays, {})


def test_views_and_foreign_byte_orders_come_back_with_equal_values(store):
    square = np.arange(12.0).reshape(3, 4)
    arrays = {"t": square.T, "step": square[:, ::2], "back": square[::-1], "big": square.astype(">f8")}
    own = key("dense")
    entry = store.put(own, arrays, {})
    for name, array in arrays.items():
        np.testing.assert_array_equal(entry.arrays[name], array)


def test_number_is_taken_as_an_array_without_axes(store):
    entry = store.put(key("dense"), {"mean": np.float64(0.1)}, {})
    assert entry.arrays["mean"].shape == ()
    assert entry.arrays["mean"] == 0.1


def test_tensors_are_taken_as_arrays(store):
    weights = torch.arange(6.0).reshape(2, 3).requires_grad_()
    entry = store.put(key("dense"), {"weights": weights, "t": weights.T, "mask": weights > 2}, {})
    np.testing.assert_array_equal(entry.arrays["weights"], weights.detach().numpy())
    np.testing.assert_array_equal(entry.arrays["t"], weights.detach().numpy().T)
    assert entry.arrays["mask"].dtype == np.bool_


def test_entry_is_the_same_when_put_and_when_found(store):
    own = key("dense")
    meta = {"tuple": (1, 2), "nan": float("nan"), "infinite": float("inf"), "role": Role.TRAIN, "third": 1 / 3}
    put, found = store.put(own, {}, meta), store.get(own)
    assert found is not None
    assert json.dumps(put.meta) == json.dumps(found.meta)
    assert put.meta["tuple"] == [1, 2]
    assert put.meta["third"] == 1 / 3
    assert len(put.arrays) == len(found.arrays) == 0


def test_arrays_belong_to_the_caller(store):
    entry = store.put(key("dense"), ARRAYS, META)
    entry.arrays["weights"][:] = -1
    assert same(entry)
    assert "weights" in entry.arrays
    assert "other" not in entry.arrays


def test_first_entry_of_a_key_stays(store):
    own = key("dense")
    store.put(own, ARRAYS, META)
    assert same(store.put(own, {"weights": np.zeros(1)}, {"seconds": 9}))
    assert same(store.get(own))
    assert leftovers(store) == []


def test_deleted_entry_is_gone_but_who_holds_it_can_read_it(store):
    own, other = key("dense", seed=0), key("dense", seed=1)
    entry = store.put(own, ARRAYS, META)
    store.put(other, {}, {})
    store.delete(own)
    store.delete(own)
    assert store.get(own) is None
    assert same(entry)
    assert store.get(other) is not None
    assert leftovers(store) == []


def test_entries_are_listed_while_another_process_ends_its_work(store, monkeypatch, tmp_path):
    store.put(key("dense"), ARRAYS, META)
    opened = os.scandir

    def scandir(path):
        if Path(path).parent.name == TMP:
            Path(path).rename(tmp_path / "gone")
        return opened(path)

    with store.backend.scratch() as scratch:
        (scratch / "entry").mkdir()
        monkeypatch.setattr(os, "scandir", scandir)
        assert len(store.listed()) == 1
        monkeypatch.undo()
        assert not scratch.exists()
        scratch.mkdir()


def test_size_counts_every_byte(store):
    before = store.size()
    own = key("dense")
    store.put(own, {"weights": np.zeros(1000)}, {})
    assert store.size() - before == sum(path.stat().st_size for path in folder_of(store, own).iterdir())
    store.delete(own)
    assert store.size() == before


def test_meta_tells_a_reader_what_determined_the_entry(store):
    own = key("dense", recipe=Window())
    store.put(own, ARRAYS, META)
    told = json.loads((folder_of(store, own) / "meta.json").read_text("utf-8"))
    assert told["origin"]["stage"] == "dense"
    spelled = {"kind": "stored:Window", "source": source_fingerprint(Window), "width": 0.5, "order": "random"}
    assert told["origin"]["determinants"] == {"recipe": spelled}
    assert told["origin"]["environment"]["code"] == code_fingerprint()
    assert sha256_of(told["origin"]) == own


def test_both_files_are_open_to_the_same_people(store):
    own = key("dense")
    store.put(own, ARRAYS, META)
    assert len({path.stat().st_mode for path in folder_of(store, own).iterdir()}) == 1
