"""Attacks on canaries: every model attacked by all the others, on records made to be memorized."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from wemem.attacks.base import Attack
from wemem.auditing.leave_one_out import leave_one_out
from wemem.metrics.over_targets import TargetsResult
from wemem.metrics.pooled import pooled_estimate
from wemem.metrics.registry import Metric
from wemem.randomness import generator
from wemem.signals import Signals


def attack_canaries(signals: Signals, attack: Attack, *, seed: int) -> TargetsResult:
    """Attack the canaries of every model with the help of all other models.

    Args:
        signals: of layout ``shared``; the audited rows are canaries, all others the population.
        attack: an attack by reference models.
        seed: the seed of the study.
    """
    return leave_one_out(signals, {attack.name: attack}, seed=seed)[attack.name]


def canary_rates(
    signals: Signals, result: TargetsResult, kinds: Mapping[str, Int64[np.ndarray, " n"]], metrics: Sequence[Metric]
) -> dict[str, dict[str, object]]:
    """Rates of one attack on each kind of canary, over all targets at one threshold.

    Args:
        signals: the signals that were attacked.
        result: the scores of the attack.
        kinds: the numbers of the canaries of each kind.
        metrics: metrics that need no threshold of the attack.

    Returns:
        By kind, the number of targets and canaries, and each metric with its interval, as
        ``results.json`` has them.
    """
    records = signals.records[signals.audited(0)]
    rates: dict[str, dict[str, object]] = {}
    for kind, own in kinds.items():
        columns = np.isin(records, own)
        scores, membership = result.scores[:, columns], result.membership[:, columns]
        rates[kind] = {"targets": len(scores), "records": int(columns.sum())}
        for metric in metrics:
            rng = generator(result.seed, "canaries/groups", kind)
            estimate = pooled_estimate(metric.value, scores, membership, rng)
            rates[kind][metric.name] = {"value": estimate.value, "ci": [estimate.low, estimate.high]}
    return rates
