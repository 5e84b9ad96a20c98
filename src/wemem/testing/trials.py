"""Small data and small models, pruned by the stages of a study, on which defenses are checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.defenses import Defense, Observation, TrainingRecords
from wemem.pipeline.artifacts import MemorizationScores
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.training import Ensemble

#: Records of the small data set, those that no model uses, features, and classes.
RECORDS, UNUSED, FEATURES, CLASSES = 90, 18, 6, 3
#: Training records of each of the models.
TRAIN, MODELS = 54, 3


@dataclass(frozen=True)
class Trial:
    """Small models pruned in two rounds, by the same stages as in a study.

    Args:
        folder: folder of the store.
        seed: seed of data, roles and models.
        backend: ``vmapped`` or ``sequential``.
        other: True for other contents of the records that no model uses.
    """

    folder: Path
    seed: int
    backend: str = "vmapped"
    other: bool = False

    def on(self, backend: str) -> "Trial":
        """Same trial on another backend."""
        return Trial(self.folder, self.seed, backend)

    @property
    def altered(self) -> "Trial":
        """Same trial with other contents of the records that no model uses."""
        return Trial(self.folder, self.seed, other=True)

    @cached_property
    def pipeline(self) -> Pipeline:
        """Stages of a small study."""
        sgd: Mapping[str, Any] = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 16, "patience": None}
        table = {
            "data": {"source": "digits"}, "model": {"kind": "fc", "hidden": [12, 8], "dropout": 0.0},
            "training": {**sgd, "epochs": 3}, "finetune": {**sgd, "epochs": 3}, "pruning": {"rounds": 2},
            "backend": self.backend, "device": "cpu",
        }  # fmt: skip
        config = parse_study(table)
        return Pipeline.open(config, small_data(self.seed, self.other), Store(self.folder), Silent())

    def prune(self, defense: Defense) -> Ensemble:
        """Prune under a defense; the teachers that it asks for are trained first."""
        split, seeds = (
            small_split(self.pipeline.workspace.data.labels, self.seed),
            [self.seed + k for k in range(MODELS)],
        )
        (pruning,) = self.pipeline.workspace.config.prunings
        dense = self.pipeline.trainer.train("dense models", split, seeds)
        scores = [random_scores(split, k, self.seed) if defense.needs_scores else None for k in range(MODELS)]
        rounds = self.pipeline.pruner.prune("prune", dense, split, pruning, defense, seeds=seeds, scores=scores)
        return rounds[-1].ensemble


def small_data(seed: int, other: bool) -> Dataset:
    """Records around one random centre a class; with ``other``, other contents of unused ones."""
    rng = np.random.default_rng(seed)
    labels = np.arange(RECORDS) % CLASSES
    features = rng.normal(0, 1, (CLASSES, FEATURES))[labels] + rng.normal(0, 1, (RECORDS, FEATURES))
    if other:
        features[-UNUSED:], labels[-UNUSED:] = 100.0, (labels[-UNUSED:] + 1) % CLASSES
    return Dataset.from_arrays("conformance", features, labels)


def small_split(labels: Int64[np.ndarray, " N"], seed: int) -> Split:
    """Train and dev records of each model; the last records are held out from all of them."""
    roles = np.full((MODELS, RECORDS), Role.AUDIT, np.int8)
    for k, row in enumerate(roles):
        order = np.random.default_rng([seed, k]).permutation(RECORDS - UNUSED)
        row[order[:TRAIN]], row[order[TRAIN:]] = Role.TRAIN, Role.DEV
    return Split(roles, labels, "subsets")


def random_scores(split: Split, model: int, seed: int) -> MemorizationScores:
    """Memorization scores of one model's training records, none for any other record."""
    score = np.where(split.roles[model] == Role.TRAIN, np.random.default_rng([seed, 9]).random(RECORDS), np.nan)
    return MemorizationScores.given(score)


def known_records(seed: int, *, other: bool) -> TrainingRecords:
    """Training records of one model; with ``other``, other contents of all other records."""
    labels = small_data(seed, other=False).labels.copy()
    split = small_split(labels, seed)
    train, scores = split.records(0, Role.TRAIN), random_scores(split, 0, seed).memorization.score
    if other:
        outside = np.setdiff1d(np.arange(RECORDS), train)
        labels[outside], scores[outside] = (labels[outside] + 1) % CLASSES, 0.5
    observed = tuple(Observation(0.9, 0.6 - 0.1 * r, 0.8, 18) for r in range(2))
    return TrainingRecords(train, labels, scores, seed, observed)


def largest_difference(one: Ensemble, other: Ensemble) -> float:
    """Largest difference between two ensembles' arrays; infinite if their names differ."""
    a, b = one.arrays(), other.arrays()
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return float("inf")
    differences = [np.abs(a[n].astype(float) - b[n].astype(float)).max() for n in a]
    return float(max(differences))
