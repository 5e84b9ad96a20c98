"""Training of a single model, on the records that a study or a user names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.files.record_tables import read_members
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cost import training_work
from wemem.pipeline.loading import load_data
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pipeline.study_split import study_split
from wemem.pipeline.victim import training_fingerprint
from wemem.randomness import derive_seed
from wemem.store.store import Store
from wemem.study.feasibility import require_logits
from wemem.study.single_model import split_of_members
from wemem.training import choose_device


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """An unpruned model, with the records that it was trained on.

    Args:
        stage: the model, as an ensemble of one.
        members: the training records.
        dev: the records on whose accuracy the weights were selected.
        fingerprint: of the training, for a certificate.
        accuracy: the accuracy on dev records, and on records that played no part in the training.
        dev_from_training: True if the dev records were taken from the given members, for lack of
            others.
        class_names: the names of the classes, if the data name them.
    """

    stage: TrainedModels
    members: Int64[np.ndarray, " n"]
    dev: Int64[np.ndarray, " d"]
    fingerprint: str
    accuracy: Mapping[str, float | None]
    dev_from_training: bool
    class_names: tuple[str, ...] = ()

    def certified(self) -> dict[str, Any]:
        """The entries of a certificate on the course of the training."""
        summary = self.stage.meta
        return {"accuracy": dict(self.accuracy), "epochs": summary["epochs"][0], "backend": summary["backend"]}


def train_model(config: StudyConfig, members: Path | None, store: Store, progress: Progress) -> TrainedModel:
    """Train one unpruned model by the study's ``[training]``.

    Args:
        config: the study; its defenses and attacks play no part.
        members: the file that lists the training records; None for those of the victim that the
            study itself would train.
        store: the store of stage results.
        progress: receives the training.

    Raises:
        InputError: the study has a ``[victim]``, or model, members or data cannot be used.
    """
    config = config_for_training(config)
    data, seed = load_data(config, progress), config.seeds[0]
    split, taken = split_for_training(config, data, members)
    pipeline = Pipeline.open(config, data, store, progress)
    require_logits(pipeline)
    progress.plan(training_work(split, config.training))
    models = pipeline.trainer.train("train", split, [derive_seed(seed, "member", 0)])
    accuracy = {"dev": _accuracy(models, config, data, split, Role.DEV),
                "test": _accuracy(models, config, data, split, Role.AUDIT)}  # fmt: skip
    return TrainedModel(
        models, split.records(0, Role.TRAIN), split.records(0, Role.DEV), training_fingerprint(pipeline.workspace),
        accuracy, taken, data.class_names,
    )  # fmt: skip


def config_for_training(config: StudyConfig) -> StudyConfig:
    """The study of the training of one model.

    Raises:
        InputError: the study has a ``[victim]``.
    """
    if config.victim is not None:
        raise InputError("expected a study that trains its model, got one with [victim]; leave that table out")
    return replace(
        config, defenses={"undefended": Undefended()}, budgets={}, grids={}, references={}, controls=(), canaries=0,
        seeds=config.seeds[:1],
    )  # fmt: skip


def split_for_training(config: StudyConfig, data: Dataset, members: Path | None) -> tuple[Split, bool]:
    """The roles of the records, and whether the dev records are taken from the members."""
    if members is None:
        return study_split(config, data, config.seeds[0]).select([0]), False
    data.require_all_records("members")
    return split_of_members(config, data, read_members(str(members), len(data), data.ids))


def _accuracy(models: TrainedModels, config: StudyConfig, data: Dataset, split: Split, role: Role) -> float | None:
    """The accuracy on the records of one role; None without any."""
    records, device = split.records(0, role), choose_device(config.device)
    right = [models.first(data.features[part], device).argmax(1) == data.labels[part] for part in data.parts(records)]
    return float(np.concatenate(right).mean()) if len(records) else None
