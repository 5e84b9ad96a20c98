"""Leave-one-out: every member of a reference ensemble attacked in turn, by all the others.

Many targets for the price of one ensemble, and with them an interval that covers another training run too, not only
other records.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from wemem.attacks.base import Attack
from wemem.errors import InputError
from wemem.metrics.intervals import Estimate, pigeonhole_bootstrap
from wemem.metrics.registry import Metric, ScoredRecords
from wemem.randomness import generator
from wemem.signals import Signals


@dataclass(frozen=True, eq=False)
class TargetsResult:
    """One attack on ``T`` targets that judge the same ``N`` records.

    Args:
        name: of the attack.
        scores: float64, shape ``(T, N)``.
        membership: bool, shape ``(T, N)``.
        seed: for the bootstrap.
    """

    name: str
    scores: Float[np.ndarray, "T N"]
    membership: Bool[np.ndarray, "T N"]
    seed: int

    def measure(self, metric: Metric, level: float = 0.95) -> Estimate:
        """Mean over targets of a metric that needs no threshold, each target by its own scores."""

        def mean(scores: Float[np.ndarray, "T N"], membership: Bool[np.ndarray, "T N"]) -> float:
            rows = zip(scores, membership, strict=True)
            return float(np.mean([metric.value(ScoredRecords(score, member)) for score, member in rows]))

        rng = generator(self.seed, "bootstrap", self.name)
        return pigeonhole_bootstrap(mean, self.scores, self.membership, rng, level=level)


def leave_one_out(signals: Signals, attacks: Mapping[str, Attack], *, seed: int) -> dict[str, TargetsResult]:
    """Attack every member in turn with each attack that works on shared signals.

    Args:
        signals: of layout ``shared``: all members judge the same rows.
        attacks: by label; those of layout ``shared`` are run.
        seed: for attacks that train something, and for the bootstrap.

    Raises:
        InputError: another layout, or members that judge different rows.
    """
    rows = signals.audited(0)
    if signals.layout != "shared" or any(
        not np.array_equal(rows, signals.audited(k)) for k in range(signals.num_models)
    ):
        raise InputError("expected shared signals in which all members judge the same rows, got others")
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
