"""Stages that compute the soft targets of every model, by the teachers that its defense names."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from wemem.data.split import Role, Split
from wemem.data.teachers import Teachers, held_out
from wemem.defenses import Defense, Distillation
from wemem.pipeline.artifacts import SoftTargets, TrainedModels
from wemem.pipeline.cache import Computed
from wemem.pipeline.stage import Effort, Stage, given
from wemem.pipeline.trainer import Trainer
from wemem.pipeline.workspace import Workspace
from wemem.randomness import derive_seed
from wemem.store.entry import Entry
from wemem.store.key import Key
from wemem.store.keys import DenseTargetsKey, TeacherTargetsKey
from wemem.training.teacher_targets import (
    dense_log_probabilities,
    linear_log_probabilities,
    teacher_log_probabilities,
)


@dataclass(frozen=True)
class Teacher:
    """Gives every model of a defense that distills its soft targets."""

    workspace: Workspace
    trainer: Trainer

    def plan(
        self, title: str, dense: Stage[TrainedModels], split: Split, seeds: Sequence[int], defense: Defense
    ) -> Stage[SoftTargets] | None:
        """Log-probabilities by the teachers of each model on its own train records, 0 for other
        records.

        Args:
            title: for the progress display.
            dense: the unpruned models.
            split: their roles.
            seeds: one per model.
            defense: names its teachers; without any the result is None.
        """
        distillation = defense.capability(Distillation)
        if distillation is None:
            return None
        if isinstance(distillation.source, Teachers):
            return self._by_held_out_models(title, split, seeds, distillation.source)
        return self._by_dense_models(title, dense, split)

    def teach(
        self, title: str, dense: TrainedModels, split: Split, seeds: Sequence[int], defense: Defense
    ) -> SoftTargets | None:
        """Compute the soft targets of :meth:`plan` from models that are at hand, unless they are
        stored.
        """
        planned = self.plan(title, given(dense), split, seeds, defense)
        return None if planned is None else planned.result()

    def _by_dense_models(self, title: str, dense: Stage[TrainedModels], split: Split) -> Stage[SoftTargets]:
        """Soft targets by the unpruned models, each for the records that it was trained on."""
        space = self.workspace
        key = DenseTargetsKey(dense.key, space.data.fingerprint, split.fingerprint, space.device.type).key()

        def compute() -> Computed:
            ensemble = dense.read().ensemble
            return {"teacher_log_probs": dense_log_probabilities(ensemble, split, space.data, space.device)}, {}

        effort = Effort("query", float((split.roles == Role.TRAIN).sum()))
        return space.cache.stage(
            f"{title}: dense predictions", key, (dense,), compute, partial(_soft_targets, key), effort
        )  # fmt: skip

    def _by_held_out_models(
        self, title: str, split: Split, seeds: Sequence[int], source: Teachers
    ) -> Stage[SoftTargets]:
        """Soft targets by models that did not train on a record: the mean of their probabilities.

        They are trained on parts of each model's own train records.
        """
        space, parts = (
            self.workspace,
            held_out(split, source, seeds, self.workspace.data.features, self.workspace.data.table),
        )
        if source.linear(space.data):
            return self._by_linear_models(title, parts, split, source)
        own_seeds = [derive_seed(seed, "teacher", t) for seed in seeds for t in range(source.count)]
        teachers = self.trainer.plan_chunks(f"{title}: teachers", parts, own_seeds)
        models = tuple(chunk.key for chunk in teachers)
        key = TeacherTargetsKey(models, space.data.fingerprint, split.fingerprint, source).key()

        def compute() -> Computed:
            start, trained = time.perf_counter(), [chunk.read() for chunk in teachers]
            ensembles = [chunk.ensemble for chunk in trained]
            targets = teacher_log_probabilities(ensembles, parts, split, space.data, source, space.device)
            training = sum(chunk.seconds for chunk in trained)
            seconds = time.perf_counter() - start
            return {"teacher_log_probs": targets}, {"seconds": seconds, "training_seconds": training}

        answers = float((parts.roles == Role.AUDIT).sum()) * source.inputs_per_record
        return space.cache.stage(
            f"{title}: teachers' predictions", key, teachers, compute, partial(_soft_targets, key),
            Effort("query", answers),
        )  # fmt: skip

    def _by_linear_models(self, title: str, parts: Split, split: Split, source: Teachers) -> Stage[SoftTargets]:
        """Soft targets by linear discriminants that did not train on a record."""
        space = self.workspace
        key = TeacherTargetsKey((), space.data.fingerprint, parts.fingerprint, source).key()

        def compute() -> Computed:
            start = time.perf_counter()
            targets = linear_log_probabilities(parts, split, space.data, source)
            return {"teacher_log_probs": targets}, {"seconds": time.perf_counter() - start}

        answers = float((parts.roles == Role.AUDIT).sum()) * source.inputs_per_record
        return space.cache.stage(
            f"{title}: linear teachers", key, (), compute, partial(_soft_targets, key), Effort("query", answers)
        )


def _soft_targets(key: Key, entry: Entry) -> SoftTargets:
    seconds = float(entry.meta["seconds"]) + float(entry.meta.get("training_seconds", 0.0))
    return SoftTargets(key, np.array(entry.arrays["teacher_log_probs"]), seconds)
