"""Entries that are damaged: never used, and removed with a warning."""

import hashlib
import json
import os
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from stored import ARRAYS, META, folder_of, key, leftovers, root_of, same
from wemem.files.documents import JSON_LIMIT
from wemem.files.hashing import sha256_of
from wemem.store.entry import DamagedError, read_entry
from wemem.store.store import Store


@pytest.fixture
def store(tmp_path, warnings):
    return Store(tmp_path / "store", warnings.append)


def test_no_flipped_bit_goes_unnoticed(store):
    own = key("dense")
    store.put(own, ARRAYS, META)
    folder = folder_of(store, own)
    for name in ("data.safetensors", "meta.json"):
        whole = (folder / name).read_bytes()
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            (folder / name).write_bytes(damaged)
            try:
                entry = read_entry(folder, own.origin)
            except DamagedError:
                continue
            assert name == "meta.json"
            assert json.loads(damaged) == json.loads(whole)  # white space, or another spelling of the same
            assert same(entry)
        (folder / name).write_bytes(whole)
    assert same(store.get(own))


def test_no_truncation_goes_unnoticed(store):
    own = key("dense")
    store.put(own, ARRAYS, META)
    folder = folder_of(store, own)
    for name in ("data.safetensors", "meta.json"):
        whole = (folder / name).read_bytes()
        for length in range(0, len(whole), 7):
            (folder / name).write_bytes(whole[:length])
            with pytest.raises(DamagedError):
                read_entry(folder, own.origin)
        (folder / name).write_bytes(whole)


def sealed(folder, data):
    """Replace the data and vouch for it."""
    (folder / "data.safetensors").write_bytes(data)
    told = json.loads((folder / "meta.json").read_bytes())
    del told["sha256"]
    told["data"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "meta.json").write_text(json.dumps({"sha256": sha256_of(told), **told}))


def replaced_by_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("something")


def replaced_by_a_lost_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def with_linked_data(folder):
    (folder / "data.safetensors").rename(folder.parent / "elsewhere")
    (folder / "data.safetensors").symlink_to(folder.parent / "elsewhere")


def with_a_pipe(folder):
    (folder / "meta.json").unlink()
    os.mkfifo(folder / "meta.json")


DAMAGES = {
    "flipped byte": lambda f: (f / "data.safetensors").write_bytes((f / "data.safetensors").read_bytes()[:-1] + b"?"),
    "truncated": lambda f: os.truncate(f / "data.safetensors", 20),
    "foreign data": lambda f: save_file({"weights": np.zeros(6, np.float32)}, f / "data.safetensors"),
    "no data": lambda f: (f / "data.safetensors").unlink(),
    "no meta": lambda f: (f / "meta.json").unlink(),
    "empty": lambda f: [path.unlink() for path in f.iterdir()],
    "meta is a list": lambda f: (f / "meta.json").write_text("[]"),
    "meta is a number": lambda f: (f / "meta.json").write_text("1"),
    "meta is empty": lambda f: (f / "meta.json").write_text("{}"),
    "meta is no text": lambda f: (f / "meta.json").write_bytes(b"\xff\xfe\xff"),
    "meta is deep": lambda f: (f / "meta.json").write_text("[" * 100_000),
    "meta is huge": lambda f: os.truncate(f / "meta.json", JSON_LIMIT + 1),
    "meta is a pipe": with_a_pipe,
    "sealed nonsense": lambda f: sealed(f, b"nonsense"),
    "sealed huge header": lambda f: sealed(f, struct.pack("<Q", 2**60) + b"{}"),
    "sealed huge tensor": lambda f: sealed(
        f,
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F64","shape":[9999999999],"data_offsets":[0,8]}}'.ljust(64) + bytes(8),
    ),
    "data is a link": with_linked_data,
    "a file": replaced_by_a_file,
    "a lost link": replaced_by_a_lost_link,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_entry_is_never_used_but_removed_with_a_warning(store, warnings, damage):
    own = key("dense")
    store.put(own, ARRAYS, META)
    folder = folder_of(store, own)
    damage(folder)
    assert store.get(own) is None
    (warning,) = warnings
    assert str(folder) in warning
    assert "\n" not in warning
    assert not os.path.lexists(folder)
    assert store.get(own) is None
    assert len(warnings) == 1
    assert same(store.put(own, ARRAYS, META))
    assert same(store.get(own))
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_put_replaces_a_damaged_entry(store, warnings, damage):
    own = key("dense")
    store.put(own, ARRAYS, META)
    damage(folder_of(store, own))
    assert same(store.put(own, ARRAYS, META))
    assert same(store.get(own))
    assert len(warnings) <= 1  # none where the folder was empty


def test_entry_of_another_key_is_not_taken_for_this_one(store, warnings):
    mine, other = key("dense", seed=0), key("dense", seed=1)
    store.put(other, ARRAYS, META)
    there = root_of(store) / "dense" / mine[:2] / mine
    shutil.copytree(folder_of(store, other), there)
    assert store.get(mine) is None
    assert "another key" in warnings[0]
    assert same(store.get(other))


def test_damage_is_told_as_a_python_warning_where_nobody_listens(tmp_path):
    store, own = Store(tmp_path), key("dense")
    store.put(own, ARRAYS, META)
    (folder_of(store, own) / "meta.json").unlink()
    with pytest.warns(UserWarning, match="removed a damaged entry"):
        assert store.get(own) is None
