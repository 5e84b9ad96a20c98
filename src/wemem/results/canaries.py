"""The worst case of an arm: the attacks on its canaries, by kind."""

from dataclasses import dataclass

from wemem.metrics.intervals import Estimate
from wemem.results.arms import Arm, over_seeds


@dataclass(frozen=True)
class CanaryRate:
    """The strongest attack on one kind of canary, over the seeds.

    Args:
        kind: the kind of canary; see :data:`wemem.data.canaries.KINDS`.
        attack: the label of the attack.
        estimate: the rate, with the highest upper end of all attacks, because the attack was
            selected among them.
        targets: the number of attacked models.
        records: the number of canaries of a seed.
    """

    kind: str
    attack: str
    estimate: Estimate
    targets: int
    records: int


def canary_rates(arm: Arm, metric: str) -> list[CanaryRate]:
    """The strongest attack on each kind of canary by a metric; empty if a run has no canaries.

    Args:
        arm: the arm.
        metric: a metric that needs no threshold.
    """
    runs = [run.get("canaries") or {} for run in arm.runs]
    attacks = [name for name in runs[0] if all(name in run for run in runs)]
    found = []
    for kind in runs[0][attacks[0]] if attacks else ():
        by_attack = {}
        for name in attacks:
            rates = [run[name][kind] for run in runs if metric in run[name].get(kind, ())]
            if len(rates) == len(runs):
                ends = [Estimate(one[metric]["value"], *one[metric]["ci"]) for one in rates]
                by_attack[name] = over_seeds(ends), sum(one["targets"] for one in rates), rates[0]["records"]
        if by_attack:
            name = max(by_attack, key=lambda attack: by_attack[attack][0].value)
            estimate, targets, records = by_attack[name]
            high = max(one[0].high for one in by_attack.values())
            found.append(CanaryRate(kind, name, Estimate(estimate.value, estimate.low, high), targets, records))
    return found


def worst_case(arm: Arm, metric: str) -> CanaryRate | None:
    """The kind of canary with the highest rate; None without canaries.

    Its upper end is the highest of all kinds.
    """
    rates = canary_rates(arm, metric)
    if not rates:
        return None
    worst = max(rates, key=lambda rate: rate.estimate.value)
    high = max(rate.estimate.high for rate in rates)
    estimate = Estimate(worst.estimate.value, worst.estimate.low, high)
    return CanaryRate(worst.kind, worst.attack, estimate, worst.targets, worst.records)
