"""The training records of one model, as a defense sees them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from wemem.errors import InputError


@dataclass(frozen=True)
class Observation:
    """Confidence and accuracy of one model before a round of fine-tuning.

    Args:
        train_confidence: mean probability of the true class on its training records.
        dev_confidence: mean probability of the true class on its dev records.
        dev_accuracy: share of its dev records that it classifies correctly.
        dev_records: number of its dev records.
    """

    train_confidence: float
    dev_confidence: float
    dev_accuracy: float
    dev_records: int

    @property
    def gap(self) -> float:
        """Confidence on training records minus confidence on dev records."""
        return self.train_confidence - self.dev_confidence


@dataclass(frozen=True, eq=False)
class TrainingRecords:
    """Everything that a defense may know of one model's training data.

    Args:
        train: int64, shape ``(n,)``, the records that the model trains on.
        labels: int64, shape ``(N,)``, labels of the whole data set.
        scores: float64, shape ``(N,)``, memorization scores, NaN for records without one; None if
            none were estimated.
        seed: seed of the model, for a defense that draws at random.
        rounds: observations before each round up to this one, for a defense with the capability
            :class:`~wemem.defenses.capabilities.RoundObservation`; otherwise empty.
    """

    train: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"] | None
    seed: int
    rounds: tuple[Observation, ...] = ()

    def scores_of(self, records: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Memorization scores of some training records.

        Raises:
            InputError: a record has no score.
        """
        if self.scores is None:
            raise InputError("expected memorization scores, got none; let the study estimate them or give a score file")
        scores = np.asarray(self.scores[records])
        if np.isnan(scores).any():
            missing = int(records[np.isnan(scores)][0])
            raise InputError(
                f"expected a memorization score for every training record, got none for record {missing}; "
                "use more subset models, or a score file that covers all records"
            )
        return scores
