"""The value that the strongest of several attacks reaches on a model that leaks nothing.

One attack at chance has a TPR of 1 % at 1 % FPR on average. The strongest of ten has more: it was
chosen for being high, and each of the ten is an estimate. Scores that do not depend on membership stay
as they are when membership is permuted among the audited records, so that permutations of it give the
distribution of the strongest attack under the null, with the dependence between attacks and the ties
that these very scores have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wemem.errors import InputError
from wemem.metrics.permutation import permutations
from wemem.metrics.registry import Metric, ScoredRecords

#: Permutations: 1,000 place the upper end at a level of 97.5 % with a standard error of 0.5 points.
DRAWS = 1000
#: Share of models without a leak whose strongest attack stays at or below the upper end. A summary
#: names a leak by either of two metrics, so that both together raise at most 5 % false alarms.
LEVEL = 0.975


@dataclass(frozen=True)
class Chance:
    """The strongest attack under the null.

    Args:
        expected: its mean value.
        high: the value that it exceeds with a probability of at most ``1 - LEVEL``.
    """

    expected: float
    high: float


def chance_of_strongest(
    metrics: Sequence[Metric], attacks: Sequence[ScoredRecords], rng: np.random.Generator, *, draws: int = DRAWS
) -> dict[str, Chance]:
    """The chance level of the strongest of several attacks, by permutation of membership.

    Attacks on the same records share each permutation, so that their dependence is kept. Attacks on other
    records are permuted on their own: the strongest of independent attacks is the higher one.

    Args:
        metrics: the metrics to measure by.
        attacks: their outputs on one target.
        rng: the generator for the permutations.
        draws: the number of permutations.

    Returns:
        By name of the metric.

    Raises:
        InputError: no attack.
    """
    if not attacks:
        raise InputError("expected at least one attack, got none")
    strongest = {metric.name: np.zeros(draws) for metric in metrics}
    for group in _on_the_same_records(attacks):
        done = 0
        for members in permutations(group[0].member, draws, rng):
            rows = slice(done, done + len(members))
            done += len(members)
            for metric in metrics:
                values = [strongest[metric.name][rows], *(metric.permuted(attack, members) for attack in group)]
                strongest[metric.name][rows] = np.max(values, axis=0)
    return {name: _chance(values) for name, values in strongest.items()}


def _on_the_same_records(attacks: Sequence[ScoredRecords]) -> list[list[ScoredRecords]]:
    groups: dict[bytes, list[ScoredRecords]] = {}
    for attack in attacks:
        groups.setdefault(attack.member.tobytes(), []).append(attack)
    return list(groups.values())


def _chance(values: np.ndarray) -> Chance:
    """The end is a value that was drawn: of B draws, the one at place ``ceil(LEVEL (B + 1))``."""
    place = min(len(values), int(np.ceil(LEVEL * (len(values) + 1))))
    return Chance(float(values.mean()), float(np.sort(values)[place - 1]))
