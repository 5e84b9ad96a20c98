"""Leave-one-out: every model of a reference ensemble attacked by all the others.

Many targets for the price of one ensemble, and with them an interval that covers another training
run too, not only other records.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from wemem.attacks.base import Attack
from wemem.errors import InputError
from wemem.metrics.crossed import crossed_interval, pseudo_values, record_groups
from wemem.metrics.intervals import Estimate
from wemem.metrics.registry import Metric, ScoredRecords
from wemem.randomness import generator
from wemem.signals import Signals


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


def reference_accuracy(signals: Signals, *, seed: int) -> Crossed:
    """Mean accuracy of all models on the records that they were not trained on.

    Args:
        signals: of layout ``shared``.
        seed: of the study, for the groups of records.
    """
    rows = signals.audited(0)
    right = (signals.logits[:, rows].argmax(axis=-1) == signals.labels[rows]).astype(np.float64)
    membership = np.stack([signals.is_member(k) for k in range(signals.num_models)])
    groups = record_groups(len(rows), generator(seed, "record groups"))
    return Crossed(*pseudo_values(_accuracy, right, membership, groups), len(right))


def _accuracy(records: ScoredRecords) -> float:
    return float(records.nonmembers.mean())


def leave_one_out(signals: Signals, attacks: Mapping[str, Attack], *, seed: int) -> dict[str, TargetsResult]:
    """Attack every model with each attack that works on shared signals.

    Args:
        signals: signals of layout ``shared``, in which all models have the same audited rows.
        attacks: by label; those of layout ``shared`` are run.
        seed: for attacks that train something, and for the groups of records.

    Raises:
        InputError: another layout, or models with different audited rows.
    """
    rows = signals.audited(0)
    if signals.layout != "shared" or any(
        not np.array_equal(rows, signals.audited(k)) for k in range(signals.num_models)
    ):
        raise InputError("expected shared signals in which all models have the same audited rows, got others")
    membership = np.stack([signals.is_member(k) for k in range(signals.num_models)])
    return {
        label: TargetsResult(
            attack.name,
            np.stack([attack.score(signals, k, seed=seed) for k in range(signals.num_models)]),
            membership,
            seed,
        )
        for label, attack in attacks.items()
        if attack.layout == "shared"
    }
