"""The cache of one run: each result is computed, verified and shown once."""

import numpy as np

from wemem.pipeline.cache import Cache
from wemem.pipeline.progress import Silent
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.store import Store

KEY = Key.of("dense", {"seed": 0})


class Shown(Silent):
    def __init__(self):
        self.stages: list[tuple[str, bool]] = []
        self.title = ""

    def begin(self, stage: str, work: float) -> None:
        self.title = stage

    def end(self, *, stored: bool) -> None:
        self.stages.append((self.title, stored))


def stage_of(cache, calls, key=KEY):
    def compute():
        calls.append(1)
        return {"weights": np.arange(3.0)}, {"note": "whole"}

    return cache.stage("train", key, (), compute, lambda entry: entry)


def test_a_result_is_computed_read_and_shown_once(tmp_path, monkeypatch):
    calls, reads, shown = list[int](), list[Key](), Shown()
    get = Store.get

    def counted(store: Store, key: Key) -> Entry | None:
        reads.append(key)
        return get(store, key)

    monkeypatch.setattr(Store, "get", counted)
    cache = Cache(Store(tmp_path), shown)
    entries = [stage_of(cache, calls).result() for _ in range(3)]
    assert len(calls) == len(reads) == 1
    assert shown.stages == [("train", False)]
    assert all(np.array_equal(entry.arrays["weights"], np.arange(3.0)) for entry in entries)
    assert entries[0].meta["note"] == "whole"
    assert entries[0].meta["seconds"] >= 0


def test_the_next_run_finds_the_result(tmp_path):
    calls, shown = list[int](), Shown()
    stage_of(Cache(Store(tmp_path), Silent()), calls).result()
    stage_of(Cache(Store(tmp_path), shown), calls).result()
    assert len(calls) == 1
    assert shown.stages == [("train", True)]


def test_another_key_is_another_result(tmp_path):
    calls, cache = list[int](), Cache(Store(tmp_path), Silent())
    stage_of(cache, calls).result()
    stage_of(cache, calls, Key.of("dense", {"seed": 1})).result()
    assert len(calls) == 2
