"""Disks that refuse, and processes that die or write at once: an entry is absent or whole."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stored import ARRAYS, META, folder_of, key, leftovers, root_of, same
from wemem.errors import InputError
from wemem.store.entry import read_entry
from wemem.store.store import Store


@pytest.fixture
def store(tmp_path, warnings):
    return Store(tmp_path / "store", warnings.append)


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
        "import json, pathlib, sys; from test_store_disks import *; root = pathlib.Path(sys.argv[1]);"
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
