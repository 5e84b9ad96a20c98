"""Results of the stages of a study: models, memorization scores, soft targets, signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Real

from wemem.exporting.onnx import OnnxModel
from wemem.memorization import Memorization
from wemem.pipeline.answers import OnDevice, ShippedFirst
from wemem.queries import Queried
from wemem.signals import Signals
from wemem.store.key import Key
from wemem.store.keys import ScoreFileKey, SelectionKey
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class TrainedModels:
    """An ensemble, and how it was made.

    Args:
        key: the key of everything that made it.
        ensemble: the models.
        meta: costs, histories and recipe fingerprints, as stored.
        shipped: an audited ONNX file, which is then model 0; the models of the ensemble follow.
    """

    key: Key
    ensemble: Ensemble
    meta: Mapping[str, Any]
    shipped: OnnxModel | None = None

    def select(self, models: Sequence[int]) -> "TrainedModels":
        """Some of the models, under a key of their own; the same value if they are all of them."""
        if list(models) == list(range(len(self.ensemble))) or self.shipped is not None:
            return self
        recipes = self.meta.get("recipe_fingerprint")
        each = (
            {} if recipes is None or isinstance(recipes, str) else {"recipe_fingerprint": [recipes[k] for k in models]}
        )
        key = SelectionKey(self.key, tuple(models)).key()
        return replace(self, key=key, ensemble=self.ensemble.select(models), meta={**self.meta, **each})

    def queried(self, device: torch.device) -> Queried:
        """All models as they answer queries, those of the ensemble on a device."""
        models = OnDevice(self.ensemble, device)
        return models if self.shipped is None else ShippedFirst(self.shipped, models)

    def first(self, features: Real[np.ndarray, "N ..."], device: torch.device) -> Float32[np.ndarray, "N C"]:
        """Answers of model 0 alone."""
        if self.shipped is not None:
            return self.shipped.logits(features)
        return np.asarray(self.ensemble.select([0]).logits(features, device=device)[0])

    @property
    def provenance(self) -> tuple[str, ...]:
        """The recipe fingerprint of each model."""
        recipes = self.meta["recipe_fingerprint"]
        return (recipes,) * len(self.ensemble) if isinstance(recipes, str) else tuple(recipes)

    def qualified(self, difference: str, models: Sequence[int]) -> "TrainedModels":
        """The same models with a difference from the recipe in the fingerprints of some, so that
        they equal no other's.
        """
        recipes = [f"{recipe}:{difference}" if k in models else recipe for k, recipe in enumerate(self.provenance)]
        return replace(self, meta={**self.meta, "recipe_fingerprint": recipes})

    @property
    def seconds(self) -> float:
        """Wall time when it was computed, without that of teachers."""
        return float(self.meta["seconds"])

    @property
    def teachers_seconds(self) -> float:
        """Wall time of training and querying teachers; 0 where there were none."""
        return float(self.meta.get("teachers_seconds", 0.0))


@dataclass(frozen=True, eq=False)
class MemorizationScores:
    """One party's memorization scores, how far they can be trusted, and their cost.

    Args:
        key: the key of everything that made them.
        memorization: the scores by record.
        halves_correlation: the correlation of scores from two halves of the subset models.
        models: the number of subset models; 0 for scores from a file.
        seconds: wall time of training and scoring.
    """

    key: Key
    memorization: Memorization
    halves_correlation: float
    models: int
    seconds: float

    @classmethod
    def given(cls, score: Float64[np.ndarray, " N"]) -> "MemorizationScores":
        """Scores that come from elsewhere, NaN for records without one."""
        unknown, none = np.full(len(score), np.nan), np.zeros(len(score), np.int64)
        key = ScoreFileKey(tuple(None if np.isnan(one) else float(one) for one in score)).key()
        return cls(key, Memorization(score, unknown, none, none), float("nan"), 0, 0.0)


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Predictions of each model's teachers on its train records, and their cost.

    Args:
        key: the key of everything that made them.
        log_probabilities: shape ``(K, M, C)``, by model and number of a record or view.
        seconds: wall time of training and querying the teachers.
    """

    key: Key
    log_probabilities: Float32[np.ndarray, "K M C"]
    seconds: float


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of some models to queries, by the names of :class:`~wemem.signals.Signals`.

    Args:
        key: the key of everything that made them.
        arrays: ``logits`` and the extra signals.
        seconds: wall time of the queries.
    """

    key: Key
    arrays: Mapping[str, np.ndarray]
    seconds: float


@dataclass(frozen=True, eq=False)
class CollectedSignals:
    """Everything that the adversary of one layout sees.

    Args:
        key: the key of everything that made them.
        signals: the signals.
        seconds: wall time of the queries.
    """

    key: Key
    signals: Signals
    seconds: float
