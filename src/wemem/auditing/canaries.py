"""Rates on canaries: records made to be memorized, over all models attacked by the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int64

from wemem.metrics.pooled import pooled_estimate
from wemem.metrics.registry import Metric
from wemem.randomness import generator
from wemem.signals import Signals


@dataclass(frozen=True, eq=False)
class CanaryRecords:
    """The attacks on the ``N`` canaries of ``T`` targets.

    Args:
        records: int64, shape ``(N,)``: the numbers of the canaries.
        kinds: the kind of each canary.
        membership: bool, shape ``(T, N)``.
        scores: by attack, scores of shape ``(T, N)``, or their ranks among all of one kind.
    """

    records: Int64[np.ndarray, " N"]
    kinds: Sequence[str]
    membership: Bool[np.ndarray, "T N"]
    scores: Mapping[str, Float[np.ndarray, "T N"]]

    @classmethod
    def of(
        cls, signals: Signals, kinds: Mapping[str, Int64[np.ndarray, " n"]],
        scores: Mapping[str, Float[np.ndarray, "T N"]],
    ) -> Self:  # fmt: skip
        """The canaries of some signals, with the scores of attacks on them.

        Args:
            signals: the signals that were attacked.
            kinds: the numbers of the canaries of each kind.
            scores: by attack, the scores of every target.
        """
        records = signals.records[signals.audited(0)]
        names = {int(record): kind for kind, own in kinds.items() for record in own}
        membership = np.stack([signals.is_member(k) for k in range(signals.num_models)])
        return cls(records, [names[int(record)] for record in records], membership, scores)

    def rates(self, attack: str, metrics: Sequence[Metric], *, seed: int) -> dict[str, dict[str, object]]:
        """Rates of one attack on each kind of canary, over all targets at one threshold.

        Args:
            attack: the name of the attack among the scores.
            metrics: metrics that need no threshold of the attack.
            seed: the seed of the study.

        Returns:
            By kind, the number of targets and canaries, and each metric with its interval, as
            ``results.json`` has them.
        """
        return {
            kind: self._rates_of(kind, self.scores[attack], metrics, seed)
            for kind in dict.fromkeys(self.kinds)
        }  # fmt: skip

    def _rates_of(
        self, kind: str, score: Float[np.ndarray, "T N"], metrics: Sequence[Metric], seed: int
    ) -> dict[str, object]:  # fmt: skip
        columns = np.array([one == kind for one in self.kinds])
        scores, membership = score[:, columns], self.membership[:, columns]
        rates: dict[str, object] = {"targets": len(scores), "records": int(columns.sum())}
        for metric in metrics:
            rng = generator(seed, "canaries/groups", kind)
            estimate = pooled_estimate(metric.value, scores, membership, rng)
            rates[metric.name] = {"value": estimate.value, "ci": [estimate.low, estimate.high]}
        return rates
