"""The value that the strongest of several attacks reaches on a model that leaks nothing.

One attack at chance has a TPR of 1 % at 1 % FPR on average. The strongest of ten has a higher
value, because it was chosen as the highest of ten estimates. Under the null hypothesis scores do
not depend on membership, so that any permutation of membership among the audited records is equally
likely. Permutations therefore give the distribution of the strongest attack under the null, with
the ties of the scores and the dependence between the attacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wemem.errors import InputError
from wemem.metrics.permutation import permutations
from wemem.metrics.registry import Metric, ScoredRecords

#: The number of permutations; with 1,000 the level of the upper end, 97.5 %, has a standard error
#: of 0.5 points.
DRAWS = 1000
#: The share of models without a leak whose strongest attack stays at or below the upper end. A
#: summary reports a leak by either of two metrics, so that both together raise at most 5 % false
#: alarms.
LEVEL = 0.975


@dataclass(frozen=True)
class Chance:
    """The distribution of the strongest attack under the null hypothesis.

    Args:
        expected: the mean value of the strongest attack.
        high: the value that the strongest attack exceeds with a probability of at most ``1 -
            LEVEL``.
    """

    expected: float
    high: float


def chance_of_strongest(
    metrics: Sequence[Metric], attacks: Sequence[ScoredRecords], rng: np.random.Generator, *, draws: int = DRAWS
) -> dict[str, Chance]:
    """Estimate the chance level of the strongest of several attacks, by permutation of membership.

    Attacks on the same records share each permutation, so that their dependence is preserved.
    Attacks on different records are permuted independently.

    Args:
        metrics: the metrics for which the chance level is estimated.
        attacks: the outputs of the attacks on one target.
        rng: the generator of the permutations.
        draws: the number of permutations.

    Returns:
        The chance level by name of the metric.

    Raises:
        InputError: there is no attack.
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
    """The mean and the upper end of B draws; the upper end is the draw of rank ``ceil(LEVEL (B +
    1))``.
    """
    place = min(len(values), int(np.ceil(LEVEL * (len(values) + 1))))
    return Chance(float(values.mean()), float(np.sort(values)[place - 1]))
