"""Upkeep of a store: listing, verification and removal, in a folder and in a bucket."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from s3_server import client, environment, new_bucket, paths_of
from stored import ARRAYS, META, key, same
from test_cli import done, refused
from wemem.store.store import Store
from wemem.store.upkeep import StageSize, damaged_entries, old_entries, remove_entries, sizes

obstore = pytest.importorskip("obstore", reason="wemem[cloud] is not installed")
MARKED = pytest.importorskip("wemem.store.bucket_backend").MARKED
pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")


@pytest.fixture(params=["folder", "bucket"])
def location(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "store")
    server = request.getfixturevalue("server")
    for name, value in environment(server, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    new_bucket(server, "upkeep")
    return f"s3://upkeep/{tmp_path.name}"


@pytest.fixture
def store(location):
    store = Store(location)
    for seed in range(3):
        store.put(key("dense", seed=seed), ARRAYS, META)
    store.put(key("round", seed=0), {}, {})
    return store


@pytest.fixture
def damage(request, location, server):
    """A function that flips the last bit of the arrays of an entry, where they are stored."""

    def flip(own):
        if not location.startswith("s3://"):
            (path,) = Path(location).glob(f"*/*/{own}/data.safetensors")
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            return
        objects = client(server, location)
        (name,) = (path for path in paths_of(objects) if str(own) in path and path.endswith(".safetensors"))
        obstore.put(objects, name, bytes(obstore.get(objects, name).bytes())[:-1] + b"?")

    return flip


def test_sizes_count_every_byte_by_stage(store):
    stages = sizes(store)
    assert {name: size.entries for name, size in stages.items()} == {"dense": 3, "round": 1}
    marks = len(MARKED) if "s3" in store.backend.place else 0
    assert sum(size.bytes for size in stages.values()) + marks == store.size()
    assert sizes(Store(store.backend.place)) == stages


def test_empty_store_has_no_stages(location):
    assert sizes(Store(location)) == {}
    assert damaged_entries(Store(location)) == {}


def test_damaged_entries_are_named_and_no_others(store, damage):
    assert damaged_entries(store) == {}
    damage(key("dense", seed=1))
    ((address, reason),) = damaged_entries(store).items()
    assert address.key == key("dense", seed=1)
    assert "data.safetensors was changed" in reason


def test_old_entries_go_and_others_stay(store):
    assert old_entries(store, timedelta(days=1)) == []
    assert old_entries(store, None) == []
    time.sleep(1.1)  # a listing of a bucket knows whole seconds
    assert len(old_entries(store, timedelta(0))) == 4
    remove_entries(store, old_entries(store, timedelta(0), ["dense"]))
    assert sizes(store).keys() == {"round"}
    assert store.get(key("dense", seed=0)) is None
    assert same(store.put(key("dense", seed=0), ARRAYS, META))


def test_remnants_are_counted_and_go_after_a_day(store, location, server, monkeypatch):
    own = key("dense", seed=1)
    if location.startswith("s3://"):
        objects = client(server, location)
        obstore.delete(objects, next(path for path in paths_of(objects) if str(own) in path and "meta.json" in path))
    else:
        (path,) = Path(store.backend.place).glob(f"*/*/{own}/meta.json")
        path.unlink()
    assert sizes(store)["dense"] == StageSize(2, sizes(store)["dense"].bytes, 1)
    assert old_entries(store, None) == []  # somebody may be writing it
    monkeypatch.setattr("wemem.store.upkeep.UNFINISHED", timedelta(0))
    time.sleep(1.1)
    remove_entries(store, old_entries(store, None))
    assert (sizes(store)["dense"].entries, sizes(store)["dense"].unfinished) == (2, 0)


def test_commands_list_verify_and_remove(store, location, damage, capsys, monkeypatch):
    assert "4 entries" in done(["store", "ls", location], capsys, monkeypatch)
    assert "0 damaged entries" in done(["store", "verify", location], capsys, monkeypatch)
    assert "would remove 0" in done(["store", "gc", location, "--older-than", "1", "--dry-run"], capsys, monkeypatch)
    time.sleep(1.1)
    assert "removed 4" in done(["store", "gc", location, "--older-than", "0"], capsys, monkeypatch)
    assert "0 entries" in done(["store", "ls", location], capsys, monkeypatch)


def test_store_that_is_not_there_is_refused_and_not_created(tmp_path, capsys, monkeypatch):
    assert "got no such folder" in refused(["store", "ls", str(tmp_path / "none")], capsys, monkeypatch)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    assert "between 0 and 36,500" in refused(["store", "gc", str(tmp_path), "--older-than", "nan"], capsys, monkeypatch)
