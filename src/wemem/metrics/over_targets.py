"""Metrics of an attack on several targets with the same audited records: means over the targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wemem.metrics.crossed import crossed_interval, pseudo_values, record_groups
from wemem.metrics.intervals import Estimate
from wemem.metrics.registry import METRICS, Metric, ScoredRecords
from wemem.randomness import generator


@dataclass(frozen=True, eq=False)
class Crossed:
    """A mean over targets with its pseudo-values.

    Args:
        value: the mean.
        table: pseudo-values, shape ``(T, G)``; see :mod:`wemem.metrics.crossed`.
        targets: T.
    """

    value: float
    table: Float[np.ndarray, "T G"]
    targets: int

    @property
    def estimate(self) -> Estimate:
        """The value with its interval, which covers other targets and other records."""
        return crossed_interval(self.value, self.table)

    def as_json(self) -> dict[str, object]:
        """Its form in ``results.json``, without pseudo-values."""
        estimate = self.estimate
        return {"value": estimate.value, "ci": [estimate.low, estimate.high]}

    def as_comparable_json(self) -> dict[str, object]:
        """Its form in ``results.json`` with pseudo-values, by which arms are compared, to six
        digits.
        """
        table = [[float(f"{value:.6g}") for value in row] for row in self.table.tolist()]
        return {**self.as_json(), "pseudo_values": table}


@dataclass(frozen=True, eq=False)
class TargetsResult:
    """One attack on ``T`` targets with the same ``N`` audited records.

    Args:
        name: the name of the attack.
        scores: float64, shape ``(T, N)``.
        membership: bool, shape ``(T, N)``.
        seed: of the study, for the groups of records.
    """

    name: str
    scores: Float[np.ndarray, "T N"]
    membership: Bool[np.ndarray, "T N"]
    seed: int

    def measure(self, metric: Metric) -> Crossed:
        """Mean over targets of a metric that needs no threshold, each target by its own scores."""
        groups = record_groups(self.scores.shape[1], generator(self.seed, "record groups"))
        return Crossed(*pseudo_values(metric.value, self.scores, self.membership, groups), len(self.scores))

    def summary(self, metrics: Sequence[Metric]) -> dict[str, Any]:
        """The numbers of targets and records and some metrics, in the form of ``results.json``.

        Arms are compared by the headline metrics. Pseudo-values of the others would only enlarge
        the file.
        """
        measured = {metric: self.measure(metric) for metric in metrics}
        return {
            "targets": len(self.scores),
            "records": self.scores.shape[1],
            **{
                metric.name: mean.as_comparable_json() if metric.place == "headline" else mean.as_json()
                for metric, mean in measured.items()
            },
        }


def metrics_over_targets() -> list[Metric]:
    """The metrics of a leave-one-out audit: those that need no threshold."""
    return [metric for metric in METRICS.values() if not metric.needs_threshold]


def reference_accuracy(correct: Bool[np.ndarray, "T N"], membership: Bool[np.ndarray, "T N"], *, seed: int) -> Crossed:
    """Mean accuracy of all models on the records that they were not trained on.

    Args:
        correct: true where the model predicts the class of the record.
        membership: true where the model was trained on the record.
        seed: of the study, for the groups of records.
    """
    groups = record_groups(correct.shape[1], generator(seed, "record groups"))
    return Crossed(*pseudo_values(_accuracy, correct.astype(np.float64), membership, groups), len(correct))


def _accuracy(records: ScoredRecords) -> float:
    return float(records.nonmembers.mean())
