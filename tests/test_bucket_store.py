"""A store in a bucket, against a real S3 server: what a folder guarantees holds there too."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from s3_server import URL, another_machine, paths_of
from stored import ARRAYS, META, key, same
from wemem.files.documents import JSON_LIMIT
from wemem.files.hashing import sha256_of
from wemem.store.backend import Address
from wemem.store.store import Store

obstore = pytest.importorskip("obstore", reason="wemem[cloud] is not installed")
pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")


# What was put


def test_an_entry_has_the_bytes_of_a_folders_entry(store, objects, tmp_path):
    own = key("dense", seed=0)
    assert store.get(own) is None
    assert same(store.put(own, ARRAYS, META))
    folder = tmp_path / "folder"
    Store(folder).put(own, ARRAYS, META)
    (there,) = folder.glob("dense/*/*")
    data, meta = (path for path in paths_of(objects) if str(own) in path)
    assert bytes(obstore.get(objects, data).bytes()) == (there / "data.safetensors").read_bytes()
    mine, theirs = json.loads(bytes(obstore.get(objects, meta).bytes())), json.loads((there / "meta.json").read_bytes())
    for content in (mine, theirs):
        del content["created"], content["sha256"]
    assert mine == theirs
    assert Path(data).name == f"{theirs['data']['sha256']}.safetensors"


def test_another_machine_reads_what_was_put_to_the_bit(store, monkeypatch, tmp_path):
    own = key("dense", seed=0)
    store.put(own, ARRAYS, META)
    assert same(another_machine(monkeypatch, tmp_path).get(own))


def test_entry_of_several_parts_comes_back_to_the_bit(store, monkeypatch, tmp_path):
    own, arrays = key("dense"), {"weights": np.random.default_rng(0).random(2_000_000)}  # 16 MB
    store.put(own, arrays, META)
    assert same(another_machine(monkeypatch, tmp_path).get(own), arrays)


def test_first_of_two_writers_stays_and_both_get_it(store, objects, monkeypatch, tmp_path):
    own, other = key("dense"), another_machine(monkeypatch, tmp_path)
    store.put(own, ARRAYS, META)
    assert same(other.put(own, {"weights": np.zeros(1)}, {"seconds": 9}))
    assert same(another_machine(monkeypatch, tmp_path).get(own))
    assert sum(path.endswith("meta.json") for path in paths_of(objects)) == 1


def test_writers_at_the_same_time_agree_on_the_first(store, monkeypatch, tmp_path):
    stores = [another_machine(monkeypatch, tmp_path) for _ in range(4)]
    own, start, entries = key("dense"), threading.Barrier(4), []

    def write(number):
        start.wait()
        entries.append(stores[number].put(own, {"by": np.array(number)}, {"by": number}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = {entry.meta["by"] for entry in entries}
    found = another_machine(monkeypatch, tmp_path).get(own)
    assert found is not None
    assert found.arrays["by"] == found.meta["by"] == winner


def test_deleted_entry_leaves_no_object_and_its_holder_can_read_it(store, objects, monkeypatch, tmp_path):
    own = key("dense")
    entry = store.put(own, ARRAYS, META)
    store.delete(own)
    store.delete(own)
    assert store.get(own) is None
    assert another_machine(monkeypatch, tmp_path).get(own) is None
    assert paths_of(objects) == ["wemem-store.json"]
    assert same(entry)


# Look-ups


def test_look_ups_list_nothing_and_are_made_at_once(store, gate):
    keys = [key("dense", seed=seed) for seed in range(64)]
    for own in keys[::2]:
        store.put(own, {}, {})
    gate.seen.clear()
    together, most, lock = 0, 0, threading.Lock()

    def arrive(number):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.05)

    def leave(number):
        nonlocal together
        with lock:
            together -= 1

    gate.before, gate.after = arrive, leave
    assert store.present(keys) == frozenset(keys[::2])
    assert len(gate.seen) == 64
    assert all(request.startswith("HEAD") for request in gate.seen)
    assert most > 8


def test_entries_are_read_at_once_and_missing_ones_are_left_out(store, monkeypatch, tmp_path):
    keys = [key("dense", seed=seed) for seed in range(6)]
    for seed, own in enumerate(keys[:4]):
        store.put(own, {"seed": np.array(seed)}, {})
    entries = another_machine(monkeypatch, tmp_path).get_all(keys)
    assert {own: int(entry.arrays["seed"]) for own, entry in entries.items()} == {k: i for i, k in enumerate(keys[:4])}


def test_cache_is_read_first_and_without_a_request(store, gate):
    own = key("dense")
    store.put(own, ARRAYS, META)
    gate.seen.clear()
    assert same(store.get(own))
    assert gate.seen == []


# What is not believed


def rewritten(objects, path, change):
    content = bytearray(bytes(obstore.get(objects, path).bytes()))
    obstore.put(objects, path, bytes(change(content)))


def flipped(content):
    content[-1] ^= 1
    return content


DAMAGES = {
    "data has a flipped bit": lambda o, data, meta: rewritten(o, data, flipped),
    "data is truncated": lambda o, data, meta: rewritten(o, data, lambda c: c[:20]),
    "data is longer": lambda o, data, meta: rewritten(o, data, lambda c: c + b"?"),
    "no data": lambda o, data, meta: obstore.delete(o, data),
    "meta is truncated": lambda o, data, meta: rewritten(o, meta, lambda c: c[:99]),
    "meta is empty": lambda o, data, meta: obstore.put(o, meta, b"{}"),
    "meta is a list": lambda o, data, meta: obstore.put(o, meta, b"[]"),
    "meta is deep": lambda o, data, meta: obstore.put(o, meta, b"[" * 100_000),
    "meta is no text": lambda o, data, meta: obstore.put(o, meta, b"\xff\xfe"),
    "meta is huge": lambda o, data, meta: obstore.put(o, meta, b" " * (JSON_LIMIT + 1)),
    "meta was changed": lambda o, data, meta: rewritten(o, meta, lambda c: c.replace(b"1.5", b"1.6")),
    "meta names another place": lambda o, data, meta: sealed(o, meta, {"sha256": "../../" + "a" * 58, "bytes": 1}),
    "meta names a negative size": lambda o, data, meta: sealed(o, meta, {"sha256": "a" * 64, "bytes": -1}),
    "meta names a huge size": lambda o, data, meta: sealed(o, meta, {"sha256": Path(data).stem, "bytes": 2**60}),
}


def sealed(objects, meta, data):
    content = json.loads(bytes(obstore.get(objects, meta).bytes()))
    del content["sha256"]
    content["data"] = data
    obstore.put(objects, meta, json.dumps({"sha256": sha256_of(content), **content}).encode())


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_entry_is_never_used_but_removed_and_written_again(store, objects, monkeypatch, tmp_path, damage):
    own, warnings = key("dense"), list[str]()
    store.put(own, ARRAYS, META)
    data, meta = (path for path in paths_of(objects) if str(own) in path)
    damage(objects, data, meta)
    other = another_machine(monkeypatch, tmp_path, warnings.append)
    assert other.get(own) is None
    (warning,) = warnings
    assert warning.startswith(f"removed a damaged entry from the store, it is computed again: {URL}/dense/")
    assert "\n" not in warning
    assert paths_of(objects) == ["wemem-store.json"]
    assert same(other.put(own, ARRAYS, META))
    assert same(another_machine(monkeypatch, tmp_path).get(own))


def test_entry_of_another_key_is_not_taken_for_this_one(store, objects, monkeypatch, tmp_path):
    mine, other, warnings = key("dense", seed=0), key("dense", seed=1), list[str]()
    store.put(other, ARRAYS, META)
    for path in paths_of(objects):
        if str(other) in path:
            there = f"{Address.of(mine).path}/{Path(path).name}"
            obstore.put(objects, there, bytes(obstore.get(objects, path).bytes()))
    assert another_machine(monkeypatch, tmp_path, warnings.append).get(mine) is None
    assert "another key" in warnings[0]


def test_damaged_entry_of_the_cache_is_read_from_the_bucket_again(store, gate, tmp_path, warnings):
    own = key("dense")
    store.put(own, ARRAYS, META)
    (cached,) = (tmp_path / "cache").glob("*/dense/*/*/data.safetensors")
    cached.write_bytes(cached.read_bytes()[:-1] + b"?")
    gate.seen.clear()
    assert same(store.get(own))
    assert len(gate.seen) == 2
    assert warnings == []
    assert same(store.get(own))
    assert len(gate.seen) == 2


# Kills

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from stored import ARRAYS, META, key
from wemem.store.store import Store
Store(sys.argv[2]).put(key("dense"), ARRAYS, META)
"""


@pytest.mark.slow
def test_killed_at_any_request_an_entry_is_absent_or_whole(gate, objects, monkeypatch, tmp_path):
    own, left = key("dense"), []
    tests = str(Path(__file__).parent)
    # the first request opens the store; then come the arrays, then their description
    for moment, number in (("before", 2), ("before", 3), ("after", 3)):
        gate.seen.clear()
        paths_of_python = os.pathsep.join(sys.path)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tests, URL], env={**os.environ, "PYTHONPATH": paths_of_python}
        )

        def kill(seen, number=number, writer=writer):
            if seen != number:
                return None
            writer.kill()
            writer.wait()
            return 0.0  # the request is lost too

        setattr(gate, moment, kill)
        assert writer.wait(120) == -9
        gate.before = gate.after = lambda number: None
        left.append([Path(path).suffix for path in paths_of(objects) if str(own) in path])
        other = another_machine(monkeypatch, tmp_path)
        assert (other.get(own) is not None) == (".json" in left[-1])
        assert same(other.put(own, ARRAYS, META))
        assert same(another_machine(monkeypatch, tmp_path).get(own))
        other.delete(own)
    assert left == [[], [".safetensors"], [".safetensors", ".json"]]
