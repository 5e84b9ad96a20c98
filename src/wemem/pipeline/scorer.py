"""Memorization scores from subset models."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wemem.data.split import Role, Split
from wemem.memorization import Memorization, estimate_memorization, halves_correlation, truth_values
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.pipeline.cache import Computed
from wemem.pipeline.stage import Effort, Stage, given
from wemem.pipeline.workspace import Workspace
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.keys import ScoresKey

#: Fields of :class:`~wemem.memorization.Memorization`, as they are stored.
FIELDS = ("score", "standard_error", "inside", "outside")


@dataclass(frozen=True)
class Scorer:
    """Scores records by models that were trained with and without them."""

    workspace: Workspace

    def key(self, split: Split, subset_models: Sequence[Key]) -> Key:
        """The key of what :meth:`plan` gives."""
        return ScoresKey(tuple(subset_models), split.fingerprint, self.workspace.config.scores.form).key()

    def plan(
        self, title: str, split: Split, subset_models: Sequence[Stage[TrainedModels]]
    ) -> Stage[MemorizationScores]:  # fmt: skip
        """Memorization scores of the records in a split; the subset models stay stored, for attacks
        use them too.

        Args:
            title: for the progress display.
            split: roles of the subset models.
            subset_models: the models, chunk by chunk.
        """
        key = self.key(split, [chunk.key for chunk in subset_models])

        def read(entry: Entry) -> MemorizationScores:
            memorization = Memorization(**{name: np.array(entry.arrays[name]) for name in FIELDS})
            seconds = float(entry.meta["seconds"]) + float(entry.meta["training_seconds"])
            trust = float(entry.meta["halves_correlation"])
            return MemorizationScores(key, memorization, trust, split.num_models, seconds)

        def compute() -> Computed:
            return self._estimate(split, [chunk.read() for chunk in subset_models])

        effort = Effort("query", float((split.roles != Role.UNUSED).any(axis=0).sum()) * split.num_models)
        return self.workspace.cache.stage(title, key, subset_models, compute, read, effort)

    def score(self, title: str, split: Split, subset_models: Sequence[TrainedModels]) -> MemorizationScores:
        """Estimate the scores of :meth:`plan` by models that are at hand, unless they are stored."""
        return self.plan(title, split, [given(chunk) for chunk in subset_models]).result()

    def _estimate(self, split: Split, subset_models: Sequence[TrainedModels]) -> Computed:
        space, start = self.workspace, time.perf_counter()
        pool = np.flatnonzero((split.roles != Role.UNUSED).any(axis=0))
        values = np.full(split.roles.shape, np.nan)
        labels, models = space.data.labels[pool], [chunk.queried(space.device) for chunk in subset_models]
        logits = np.concatenate(
            [
                np.concatenate([chunk.logits(space.data.features[part]) for chunk in models])
                for part in space.data.parts(pool)
            ],
            axis=1,
        )
        values[:, pool] = truth_values(logits, labels, space.config.scores.form)
        memorization = estimate_memorization(values, split.roles)
        trust = halves_correlation(values[:, pool], split.roles[:, pool], seed=0)
        arrays = {name: getattr(memorization, name) for name in FIELDS}
        trained = sum(chunk.seconds for chunk in subset_models)
        return arrays, {
            "halves_correlation": trust, "seconds": time.perf_counter() - start, "training_seconds": trained
        }  # fmt: skip
