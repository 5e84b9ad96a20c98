"""The store as the stages of one run use it: look a result up, or compute it and put it there."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from wemem.pipeline.progress import Progress
from wemem.pipeline.stage import NONE, Effort, Stage
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.store import Store

Arrays = Mapping[str, np.ndarray | Tensor]
Computed = tuple[Arrays, dict[str, Any]]

T = TypeVar("T")


class Cache:
    """Results by key, in a store, with progress shown of each that is looked up or computed.

    Args:
        store: keeps the results.
        progress: shows each result once.

    An entry is verified when it is read first. From then on the cache holds it open; its arrays
    stay on disk until they are used.
    """

    def __init__(self, store: Store, progress: Progress) -> None:
        self.store, self.progress = store, progress
        self._entries: dict[Key, Entry] = {}
        self._reported: set[Key] = set()

    def stage(
        self, title: str, key: Key, needs: Sequence[Stage[Any]], compute: Callable[[], Computed],
        read: Callable[[Entry], T], effort: Effort = NONE,
    ) -> "StoredStage[T]":  # fmt: skip
        """The stage whose result is one entry.

        Args:
            title: for the progress display.
            key: of everything that determines the result.
            needs: the stages that ``compute`` reads; they are in the store when it is called.
            compute: gives arrays and JSON-able values; ``seconds`` is added to the latter unless it
                is among them.
            read: makes the result from the entry.
            effort: the size of the computation.
        """
        return StoredStage(self, title, key, needs, compute, read, effort)

    def entry(self, stage: "StoredStage[Any]") -> Entry:
        """The entry of a stage, computed and stored first unless the store has it."""
        if stage.key in self._entries:
            return self._entries[stage.key]
        entry = self.store.get(stage.key)
        stored = entry is not None
        if not stored:
            stage.ensure_needs()
        self.begin(stage, stored=stored)
        if entry is None:
            start = time.perf_counter()
            arrays, meta = stage.compute()
            entry = self.store.put(stage.key, arrays, {"seconds": time.perf_counter() - start, **meta})
        self.progress.end(stored=stored)
        self._entries[stage.key] = entry
        return entry

    def begin(self, stage: Stage[Any], *, stored: bool) -> None:
        """Begin a stage in the progress display.

        Args:
            stage: the stage.
            stored: True if its result is in the store. The work behind it is not looked up then,
                and counts as done with it, as far as it was not reported before.
        """
        work = stage.effort.work
        for one in stage.upstream() if stored else ():
            if one.stores and one.key not in self._reported:
                work += one.effort.work
                self._reported.add(one.key)
        self._reported.add(stage.key)
        self.progress.begin(stage.title, work)


class StoredStage(Stage[T]):
    """A stage whose result is one entry of the store (:meth:`Cache.stage`)."""

    def __init__(
        self, cache: Cache, title: str, key: Key, needs: Sequence[Stage[Any]], compute: Callable[[], Computed],
        read: Callable[[Entry], T], effort: Effort,
    ) -> None:  # fmt: skip
        super().__init__(title, key, needs, effort)
        self.compute, self._cache, self._read = compute, cache, read

    @property
    def stores(self) -> tuple[Key, ...]:
        return (self.key,)

    def ensure(self) -> None:
        self._cache.entry(self)

    def read(self) -> T:
        return self._read(self._cache.entry(self))
