"""Queries of models, answered as their defense lets them."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from wemem.defenses import Defense, OutputPostprocessing
from wemem.pipeline.artifacts import Answers, TrainedModels
from wemem.pipeline.cache import Computed
from wemem.pipeline.stage import Effort, Stage
from wemem.pipeline.workspace import Workspace
from wemem.queries import DrawnCopies, postprocessed, query_models
from wemem.randomness import derive_seed
from wemem.store.entry import Entry
from wemem.store.keys import SignalsKey


@dataclass(frozen=True)
class Querier:
    """Queries models as an adversary would.

    Args:
        workspace: the study's.
        copies: the copies of records, which models of all stages share.
    """

    workspace: Workspace
    copies: DrawnCopies = field(default_factory=DrawnCopies, compare=False, repr=False)

    def plan(
        self, title: str, models: Stage[TrainedModels], count: int, records: Int64[np.ndarray, " N"],
        required_signals: frozenset[str], *, seed: int, defense: Defense | None = None, turn: int = 0,
    ) -> Stage[Answers]:  # fmt: skip
        """Answers of some models on some records.

        Args:
            title: for the progress display.
            models: the models.
            count: the number of models.
            records: numbers of the records.
            required_signals: names of :data:`~wemem.signals.EXTRAS`.
            seed: of the queries.
            defense: the one under which the models answer.
            turn: a number that differs between models queried with one seed, so that no two draw
                their answers alike.
        """
        space = self.workspace
        altered = defense if defense is not None and defense.capability(OutputPostprocessing) is not None else None
        key = SignalsKey(
            models.key, space.data.fingerprint, tuple(records.tolist()), tuple(sorted(required_signals)), seed,
            space.device.type, altered, None if altered is None else turn,
        ).key()  # fmt: skip

        def compute() -> Computed:
            answering = models.read().queried(space.device)
            if altered is not None:
                answering = postprocessed(answering, altered, seed=derive_seed(seed, "answers", turn))
            data, parts = space.data, space.data.parts(records)
            answers = [
                query_models(
                    answering, data.features[part], data.labels[part], required_signals,
                    seed=seed if len(parts) == 1 else derive_seed(seed, "part", i), form=data.form,
                    copies=self.copies,
                )
                for i, part in enumerate(parts)
            ]  # fmt: skip
            return {name: np.concatenate([one[name] for one in answers], axis=1) for name in answers[0]}, {}

        def read(entry: Entry) -> Answers:
            return Answers(key, entry.arrays, float(entry.meta["seconds"]))

        effort = Effort("query", float(count * len(records)))
        return space.cache.stage(title, key, (models,), compute, read, effort)
