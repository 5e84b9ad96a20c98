"""Models that train together, each with its own records, on one device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Real
from torch import Tensor

from wemem.defenses import TrainingRecords
from wemem.training.ensemble import Ensemble
from wemem.training.views import ViewedRecords


@dataclass(frozen=True, eq=False)
class Cohort:
    """S models before their first step, with everything that they train on.

    Args:
        ids: number of each model in the plan of steps.
        ensemble: the models.
        records: train records of each model, with its seed.
        dev: dev records of each model.
        labels: labels of the whole data set.
        views: the records of the data set, and their augmentation views, by number.
        risk: risk of each record for each model, where the defense's loss reads it.
        teacher_log_probs: teacher log-probabilities by model, record and class, where the defense's loss reads them.
    """

    ids: list[int]
    ensemble: Ensemble
    records: Sequence[TrainingRecords]
    dev: Sequence[Int64[np.ndarray, " _"]]
    labels: Int64[Tensor, " N"]
    views: ViewedRecords
    risk: Float[Tensor, "S N"] | None = None
    teacher_log_probs: Float[Tensor, "S M C"] | None = None

    @property
    def features(self) -> Real[Tensor, "N ..."]:
        """Features of the whole data set."""
        return self.views.features

    @property
    def seeds(self) -> list[int]:
        """The seed of each model."""
        return [own.seed for own in self.records]
