"""Training of unpruned models, in chunks that are stored one by one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wemem.data.split import Split
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cache import Computed
from wemem.pipeline.cost import CHUNK, training_work
from wemem.pipeline.progress import show_epoch
from wemem.pipeline.stage import Effort, Stage
from wemem.pipeline.workspace import Workspace
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.keys import DenseKey
from wemem.training import Choice, History, fit


@dataclass(frozen=True)
class Trainer:
    """Trains models from scratch on their train records, by the study's ``[training]``."""

    workspace: Workspace

    def key(self, split: Split, seeds: Sequence[int]) -> Key:
        """The key of what :meth:`plan` gives."""
        return DenseKey(self.workspace.ensemble_inputs(split, seeds), self.workspace.config.training).key()

    def plan(self, title: str, split: Split, seeds: Sequence[int]) -> Stage[TrainedModels]:
        """Unpruned models, one per row of the split."""
        key, work = self.key(split, seeds), training_work(split, self.workspace.config.training)

        def read(entry: Entry) -> TrainedModels:
            return TrainedModels(key, self.workspace.untrained(seeds[:1]).with_arrays(entry.arrays), entry.meta)

        effort = Effort.training("train", work, len(seeds))
        return self.workspace.cache.stage(title, key, (), lambda: self._fit(split, seeds), read, effort)

    def plan_chunks(self, title: str, split: Split, seeds: Sequence[int]) -> list[Stage[TrainedModels]]:
        """Unpruned models in chunks of :data:`~wemem.pipeline.cost.CHUNK`: more models later cost
        only the new ones.
        """
        return [
            self.plan(
                f"{title} {chunk.start + 1}-{chunk.stop} of {len(seeds)}",
                split.select(chunk),
                [seeds[k] for k in chunk],
            )
            for chunk in chunks(len(seeds))
        ]

    def train(self, title: str, split: Split, seeds: Sequence[int]) -> TrainedModels:
        """Train the models of :meth:`plan`, unless they are stored."""
        return self.plan(title, split, seeds).result()

    def train_in_chunks(self, title: str, split: Split, seeds: Sequence[int]) -> list[TrainedModels]:
        """Train the models of :meth:`plan_chunks`, unless they are stored."""
        return [chunk.result() for chunk in self.plan_chunks(title, split, seeds)]

    def _fit(self, split: Split, seeds: Sequence[int]) -> Computed:
        space, start, epochs = self.workspace, time.perf_counter(), self.workspace.config.training.epochs
        fitted = fit(
            space.untrained(seeds), space.data, split, space.config.training, seeds=seeds,
            backend=space.config.backend, device=space.device,
            on_epoch=lambda epoch, running: show_epoch(space.cache.progress, epoch, epochs, running),
        )  # fmt: skip
        return fitted.ensemble.arrays(), {
            **training_summary(fitted.history, fitted.choice),
            "recipe_fingerprint": space.recipe_fingerprint(None, None),
            "seconds": time.perf_counter() - start,
        }


def chunks(models: int) -> list[range]:
    """The places of models, cut into chunks of :data:`~wemem.pipeline.cost.CHUNK`.

    >>> chunks(20)
    [range(0, 16), range(16, 20)]
    """
    return [range(start, min(start + CHUNK, models)) for start in range(0, models, CHUNK)]


def training_summary(history: tuple[History, ...], choice: Choice) -> dict[str, Any]:
    """The course of a training, as it is stored."""
    return {
        "backend": {"backend": choice.backend, "reason": choice.reason.as_json()},
        "dev_accuracy": [max(one.dev_accuracy) for one in history],
        "epochs": [len(one.dev_accuracy) for one in history],
        "records_seen": sum(one.records_seen for one in history),
    }
