"""The store as the stages of one run use it: look a result up, or compute it and put it there."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from wemem.pipeline.progress import Progress
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.store import Store

Arrays = Mapping[str, np.ndarray | Tensor]
Computed = tuple[Arrays, dict[str, Any]]


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

    def remember(self, title: str, key: Key, compute: Callable[[], Computed], work: float = 0) -> Entry:
        """The result of a key, computed and stored first unless the store has it.

        Args:
            title: for the progress display.
            key: of everything that determines the result.
            compute: gives arrays and JSON-able values; ``seconds`` is added to the latter unless it
                is among them.
            work: the share of the planned work, as :class:`~wemem.pipeline.cost.CostModel` measures
                it.
        """
        if key in self._entries:
            return self._entries[key]
        entry = self.store.get(key)
        self.progress.begin(title, work)
        stored = entry is not None
        if entry is None:
            start = time.perf_counter()
            arrays, meta = compute()
            entry = self.store.put(key, arrays, {"seconds": time.perf_counter() - start, **meta})
        self.progress.end(stored=stored)
        self._entries[key] = entry
        return entry
