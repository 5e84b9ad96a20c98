"""The store: what determines a key, what survives a kill, and what is never believed."""

import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from wemem.errors import InputError
from wemem.files.documents import JSON_LIMIT
from wemem.files.hashing import sha256_of
from wemem.store.entry import DamagedError, read_entry
from wemem.store.fingerprint import COMPUTING, PACKAGE, code_fingerprint
from wemem.store.key import Key
from wemem.store.sources import source_fingerprint
from wemem.store.store import Store

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "masks": np.array([True, False, True]),
    "roles": np.array([[-1, 2]], dtype=np.int8),
}
META = {"seconds": 1.5, "history": [{"epochs": 3}], "note": "größer", "trust": None}


@dataclass(frozen=True)
class Window:
    width: float = 0.5
    order: str = "random"


@dataclass(frozen=True)
class Door:
    width: float = 0.5
    order: str = "random"


def key(stage, /, **determinants):
    return Key.of(stage, determinants)


class Role(IntEnum):
    TRAIN = 1


def same(entry, arrays=ARRAYS, meta=META):
    """Equal to the bit, types and shapes included."""
    return (
        set(entry.arrays) == set(arrays)
        and all(entry.arrays[n].dtype == a.dtype and entry.arrays[n].shape == a.shape for n, a in arrays.items())
        and all(entry.arrays[n].tobytes() == a.tobytes() for n, a in arrays.items())
        and json.dumps(entry.meta) == json.dumps(meta)
    )


def root_of(store):
    return Path(store.backend.place)


def folder_of(store, own):
    (folder,) = root_of(store).glob(f"*/*/{own}")
    return folder


def leftovers(store):
    return list(root_of(store).glob("tmp/*"))


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def store(tmp_path, warnings):
    return Store(tmp_path / "store", warnings.append)


# Keys


json_values = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 0.1, float("inf"), "", "1", "a", "none"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def spelled(value):
    """What makes two JSON values the same, told without JSON."""
    if isinstance(value, dict):
        return ("mapping", sorted((name, spelled(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("list", [spelled(item) for item in value])
    return (type(value).__name__, repr(value))


@given(json_values, json_values)
def test_keys_are_equal_exactly_when_values_and_their_types_are(a, b):
    assert (key("stage", value=a) == key("stage", value=b)) == (spelled(a) == spelled(b))
    assert key("stage", value=a) == key("stage", value=a)


def test_order_of_a_mapping_does_not_count():
    assert key("stage", a=1, b={"c": 2, "d": 3}) == key("stage", b={"d": 3, "c": 2}, a=1)


def test_one_is_neither_one_point_zero_nor_true_and_zero_has_a_sign():
    values = [1, 1.0, True, "1", [1], 0.0, -0.0, 0, False, None]
    assert len({key("stage", value=value) for value in values}) == len(values)


def test_neighbouring_floats_have_different_keys():
    assert key("stage", rate=0.1) != key("stage", rate=float(np.nextafter(0.1, 1)))


def test_tuple_is_as_good_as_a_list_and_an_enum_as_its_value():
    assert key("stage", seeds=(0, (1, 2))) == key("stage", seeds=[0, [1, 2]])
    assert key("stage", role=Role.TRAIN) == key("stage", role=1)


def test_dataclasses_differ_by_class_and_by_field():
    values = [Window(), Window(width=0.6), Window(order="high_first"), Door(), {"width": 0.5, "order": "random"}]
    assert len({key("stage", defense=value) for value in values}) == len(values)
    assert key("stage", defense=Window()) == key("stage", defense=Window())


def test_stage_names_and_keys_of_other_stages_count():
    first, second = key("dense", seed=0), key("dense", seed=1)
    assert key("round", dense=first) != key("round", dense=second)
    assert key("round", dense=first) == key("round", dense=str(first))
    assert key("round", seed=0) != key("dense", seed=0)
    assert key("stage", a=1) != key("stage", b=1)
    assert key("stage") != key("stage", a=None)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("wemem.store.fingerprint.code_fingerprint", lambda: "another program"),
        ("numpy.__version__", "another version"),
        ("scipy.__version__", "another version"),
        ("sklearn.__version__", "another version"),
        ("torch.__version__", "another version"),
        ("torch.get_num_threads", lambda: 77),
        ("torch.backends.cpu.get_cpu_capability", lambda: "another processor"),
    ],
)
def test_program_libraries_threads_and_processor_count(monkeypatch, what, other):
    before = key("stage", a=1)
    monkeypatch.setattr(what, other)
    assert key("stage", a=1) != before


def test_determinant_may_have_any_name():
    assert len({key("stage", **{name: 0}) for name in ("stage", "environment", "determinants", "self", "key")}) == 5


@pytest.mark.parametrize(
    "value",
    [float("nan"), [1, {"a": np.nan}], Path("weights"), np.arange(3), np.int64(1), {1: 2}, {1}, b"x", Window, 1j],
    ids=repr,
)
def test_what_has_no_json_is_refused(value):
    with pytest.raises(InputError, match=r"expected stage\.value.*give a fingerprint"):
        key("stage", value=value)


@pytest.mark.parametrize("stage", ["", "tmp", "..", "a/b", "A", "dense\n", "a.b"])
def test_stage_that_is_no_folder_name_is_refused(stage):
    with pytest.raises(InputError, match="expected a stage named by"):
        key(stage)


def test_any_change_of_code_that_computes_changes_the_fingerprint(tmp_path):
    def fingerprint(name, **files):
        for file, text in files.items():
            path = (tmp_path / name / file.replace("__", "/")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return code_fingerprint(tmp_path / name, ("signals.py", "data"))

    first = fingerprint("first", signals="x = 1", data__split="y = 2", report__html="z", cli="z")
    assert fingerprint("shown", signals="x = 1", data__split="y = 2", report__html="other", cli="other") == first
    assert fingerprint("edited", signals="x = 1", data__split="y = 3") != first
    assert fingerprint("moved", signals="x = 1", data__parts="y = 2") != first
    assert fingerprint("more", signals="x = 1", data__split="y = 2", data__more="x = 1") != first
    documented = '"""Text."""\nx = 1  # why'
    assert fingerprint("documented", signals=documented, data__split='"""Text."""\ny = 2') == first
    assert fingerprint("text", signals='x = """Text."""', data__split="y = 2") != first


def computing_files():
    return {
        path for path in PACKAGE.rglob("*.py")
        if any(path == PACKAGE / name or path.is_relative_to(PACKAGE / name) for name in COMPUTING)
    }  # fmt: skip


def test_every_file_that_writes_to_the_store_is_in_the_fingerprint():
    writes = re.compile(r"\.(put|remember)\(")
    writing = {path for path in PACKAGE.rglob("*.py") if writes.search(path.read_text("utf-8"))}
    writing -= {PACKAGE / "execution/ray.py"}  # puts arrays into the memory of nodes, not into the store
    assert len(writing) > 3
    assert writing <= computing_files()


def test_no_part_of_the_package_is_neither_computing_nor_known_not_to():
    others = {
        "__init__.py", "__main__.py", "api.py", "blocks", "cli", "config", "diagnosis", "errors.py", "evidence",
        "execution",
        "exporting", "integrations", "notes.py", "objects", "reporting", "resolve.py", "results", "store", "study",
        "testing",
    }  # fmt: skip
    known = others | {name.partition("/")[0] for name in COMPUTING}
    assert {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")} <= known
    assert all((PACKAGE / name).exists() for name in COMPUTING)


# What was put


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
    spelled = {"kind": "test_store:Window", "source": source_fingerprint(Window), "width": 0.5, "order": "random"}
    assert told["origin"]["determinants"] == {"recipe": spelled}
    assert told["origin"]["environment"]["code"] == code_fingerprint()
    assert sha256_of(told["origin"]) == own


def test_both_files_are_open_to_the_same_people(store):
    own = key("dense")
    store.put(own, ARRAYS, META)
    assert len({path.stat().st_mode for path in folder_of(store, own).iterdir()}) == 1


# What is not believed


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


# Disks


def nothing_new(store, own):
    return store.get(own) is None and leftovers(store) == [] and not list(root_of(store).glob(f"*/*/{own}"))


def test_full_disk_is_one_line_and_leaves_nothing(store, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    own = key("dense")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"^expected a store at [^\n]*No space left[^\n]*free space[^\n]*--store$"):
            store.put(own, ARRAYS, META)
    assert nothing_new(store, own)
    assert same(store.put(own, ARRAYS, META))


@pytest.mark.parametrize("size", [10, 100_000], ids=["meta", "data"])
def test_write_that_the_system_refuses_halfway_is_one_line_and_leaves_nothing(store, size):
    own = key("dense")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(InputError, match=r"^expected a store at [^\n]*File too large[^\n]*--store$"):
            store.put(own, {"weights": np.zeros(size)}, {"note": "x" * 10_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert nothing_new(store, own)


def test_file_in_place_of_the_folder_is_refused_at_once(tmp_path):
    (tmp_path / "store").write_text("mine")
    with pytest.raises(InputError, match=r"expected a store at .*store .*--store"):
        Store(tmp_path / "store")
    assert (tmp_path / "store").read_text() == "mine"


def test_file_in_place_of_a_stage_is_refused_and_kept(store):
    (root_of(store) / "dense").write_text("mine")
    own = key("dense")
    assert store.get(own) is None
    with pytest.raises(InputError, match="expected a store at"):
        store.put(own, ARRAYS, META)
    assert (root_of(store) / "dense").read_text() == "mine"
    assert leftovers(store) == []


def test_read_that_the_disk_refuses_is_no_damage(store, warnings, monkeypatch):
    def broken(path, flags):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    own = key("dense")
    store.put(own, ARRAYS, META)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", broken)
        with pytest.raises(InputError, match="Input/output error"):
            store.get(own)
    assert warnings == []
    assert same(store.get(own))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([1j]), np.array([1], "M8[s]")], ids=repr)
def test_arrays_of_other_things_than_numbers_are_refused(store, array):
    with pytest.raises(InputError, match=r"expected booleans or numbers .*'names'"):
        store.put(key("dense"), {"names": array}, {})
    assert leftovers(store) == []


# Processes


def test_leftovers_of_the_dead_are_swept_and_entries_are_not(store):
    own = key("dense")
    store.put(own, ARRAYS, META)
    shutil.copytree(folder_of(store, own), root_of(store) / "tmp" / "killed" / own)
    (root_of(store) / "tmp" / "file").write_text("half")
    again = Store(root_of(store))
    assert leftovers(again) == []
    assert same(again.get(own))


def test_sweep_leaves_a_living_writer_alone(store, monkeypatch):
    seen = []

    def while_it_writes(folder, origin):
        Store(root_of(store))
        seen.append(sorted(path.name for path in folder.iterdir()))
        return read_entry(folder, origin)

    own = key("dense")
    with monkeypatch.context() as patch:
        patch.setattr("wemem.store.folder.read_entry", while_it_writes)
        assert same(store.put(own, ARRAYS, META))
    assert seen == [["data.safetensors", "meta.json"]]
    assert same(store.get(own))


def forked(child):
    """The process id of a copy of this process that runs ``child`` and nothing else."""
    pid = os.fork()
    if pid:
        return pid
    try:
        child()
        os._exit(0)
    finally:
        os._exit(1)


def died(pid):
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def refuse_to_warn(line):
    raise AssertionError(line)


def state_after(root, own, arrays):
    """What a killed process left, seen by the next one: ``absent`` or ``whole``, or an assertion fails."""
    store = Store(root, refuse_to_warn)
    assert leftovers(store) == []
    found = store.get(own)
    assert found is None or same(found, arrays)
    assert same(store.put(own, arrays, META), arrays)
    store.delete(own)
    return "absent" if found is None else "whole"


def kill_at_every_step(root):
    """Kill a writer before its first, second, ... system event, until one comes through."""
    own, states = key("dense"), list[str]()
    Store(root)
    while True:
        steps_left = len(states) + 1

        def child(steps_left=steps_left):
            store = Store(root)

            def count(event, arguments):
                nonlocal steps_left
                steps_left -= 1
                if not steps_left:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            store.put(own, ARRAYS, META)

        killed = died(forked(child))
        states.append(state_after(root, own, ARRAYS))
        if not killed:
            return states


def kill_at_many_moments(root):
    """Kill a process that puts and deletes a larger entry over and over, somewhere in its first two rounds."""
    own, arrays, states = key("dense"), {"weights": np.arange(100_000.0)}, list[str]()
    read, write = os.pipe()

    def child():
        store = Store(root)
        os.write(write, b"!")
        while True:
            store.put(own, arrays, META)
            store.delete(own)

    begin = time.perf_counter()
    state_after(root, own, arrays)
    one_round = time.perf_counter() - begin
    for moment in range(20):
        pid = forked(child)
        os.read(read, 1)
        time.sleep(one_round * moment / 10)
        os.kill(pid, signal.SIGKILL)
        assert died(pid)
        states.append(state_after(root, own, arrays))
    return states


def put_at_once(root):
    """Several processes put the same keys: who each of them was told was first, by key."""
    keys = [key("dense", seed=seed) for seed in range(25)]
    read, write = os.pipe()

    def child(number):
        store = Store(root, refuse_to_warn)
        for own in keys:
            entry = store.put(own, ARRAYS, {"by": number})
            found = store.get(own)
            assert found is not None
            assert same(found, meta=entry.meta)
            os.write(write, f"{own} {entry.meta['by']}\n".encode())

    children = [forked(lambda number=number: child(number)) for number in range(4)]
    os.close(write)
    with os.fdopen(read) as lines:
        told = [line.split() for line in lines]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert leftovers(Store(root)) == []
    return [[by for name, by in told if name == own] for own in keys]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What the three functions above return, from a process that may fork because it has no threads."""
    code = (
        "import json, pathlib, sys; from test_store import *; root = pathlib.Path(sys.argv[1]);"
        "told = [f(root / f.__name__) for f in (kill_at_every_step, kill_at_many_moments, put_at_once)];"
        "print(json.dumps(told))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path_factory.mktemp("stores")],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_any_step_an_entry_is_absent_or_whole(outcomes):
    states = outcomes[0]
    appeared = states.index("whole")
    assert appeared > 5  # it was killed at many steps before the entry was there
    assert states == ["absent"] * appeared + ["whole"] * (len(states) - appeared)


def test_killed_at_any_moment_an_entry_is_absent_or_whole(outcomes):
    assert len(outcomes[1]) == 20  # and none of them was anything else: see state_after


def test_processes_that_put_the_same_key_agree_on_the_first(outcomes):
    assert [(len(told), len(set(told))) for told in outcomes[2]] == [(4, 1)] * 25
