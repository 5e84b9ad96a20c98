"""The models that train together, each with its own records, on one device."""

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
        ids: the number of each model in the plan of steps.
        ensemble: the models.
        records: the train records of each model, with its seed.
        dev: the dev records of each model.
        labels: the labels of the whole data set.
        views: the records of the data set, and their augmentation views, by number.
        risk: the risk of each record for each model; None if the defense's loss does not use it.
        teacher_log_probs: the teacher log-probabilities by model, record and class; None if the
            defense's loss does not use them.
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
        """The features of the whole data set."""
        return self.views.features

    @property
    def seeds(self) -> list[int]:
        """The seed of each model."""
        return [of_model.seed for of_model in self.records]
