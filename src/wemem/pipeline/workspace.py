"""The workspace that all parts of the pipeline share: settings, data, device and cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Split
from wemem.data.teachers import Teachers
from wemem.defenses import Defense, Distillation
from wemem.files.hashing import sha256_of
from wemem.models.table import model_for
from wemem.pipeline.cache import Cache
from wemem.pipeline.memory_estimate import require_memory
from wemem.pipeline.progress import Progress
from wemem.pruning import Pruning
from wemem.randomness import derive_seed
from wemem.store.behavior import behavior_fingerprint
from wemem.store.fingerprint import spelled
from wemem.store.keys import Architecture, EnsembleInputs
from wemem.store.store import Store
from wemem.training import Ensemble, choose_device


@dataclass(frozen=True, eq=False)
class Workspace:
    """Settings, data, device and cache of one study.

    Args:
        config: the study.
        data: its data set.
        cache: looks results up and keeps them.
        device: where models compute.
        architecture: the model, with the behavior of a user's own.
    """

    config: StudyConfig
    data: Dataset
    cache: Cache
    device: torch.device
    architecture: Architecture

    @classmethod
    def open(cls, config: StudyConfig, data: Dataset, store: Store, progress: Progress) -> "Workspace":
        """The workspace of a study on one data set, through one store.

        Raises:
            InputError: models that cannot fit into memory, a user's model that cannot be built, or
                a device that is not there.
        """
        require_memory(config, data)
        architecture = Architecture(config.model, behavior_fingerprint(config.model, data))
        return cls(config, data, Cache(store, progress), choose_device(config.device), architecture)

    def untrained(self, seeds: Sequence[int]) -> Ensemble:
        """Untrained models, each initialized from its seed."""
        init = [derive_seed(seed, "init") for seed in seeds]
        model = model_for(self.config.model, self.data)
        return Ensemble.initialize(model, self.data.input_shape, self.data.classes, init)

    def ensemble_inputs(self, split: Split, seeds: Sequence[int]) -> EnsembleInputs:
        """Everything that training an ensemble reads, for keys."""
        return EnsembleInputs(
            self.architecture, self.data.fingerprint, split.fingerprint, tuple(seeds),
            self.config.backend, self.device.type,
        )  # fmt: skip

    def recipe_fingerprint(self, pruning: Pruning | None, defense: Defense | None, last_round: int = -1) -> str:
        """Fingerprint of architecture, schedule, mask rule, fine-tuning, defense and its settings;
        not of the data, nor of how others than the victim are scored.

        Two models with the same one were made in the same way, and attacking one with the other is
        adaptive.

        Args:
            pruning: None for a model that is not pruned.
            defense: None for a model that is not pruned.
            last_round: the round after which the model was taken.
        """
        distillation = None if defense is None else defense.capability(Distillation)
        scores = {name: value for name, value in spelled(self.config.scores).items() if name != "drawn_from"}
        recipe = {
            "architecture": self.architecture,
            "shape": [*self.data.input_shape, self.data.classes],
            "pruning": pruning,
            "defense": defense,
            "scores": scores if defense is not None and defense.needs_scores else None,
            "teachers": self.config.training if distillation and isinstance(distillation.source, Teachers) else None,
            "last_round": last_round,
        }
        if self.data.table is not None:
            recipe["table"] = self.data.table
        if self.data.inputs is not None:
            recipe["inputs"] = self.data.inputs
        return sha256_of(spelled(recipe, "recipe"))
