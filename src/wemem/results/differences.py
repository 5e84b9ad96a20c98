"""Paired differences between two arms.

An attack counts only where as many other models helped it against both arms. With more of them it
finds more, so an arm that few helped to attack would look safer than it is.

Arms of one study and seed attack the same leave-one-out targets on the same records. Where both
arms have pseudo-values, a difference is paired by target and record, and its interval covers other
targets and other records (:mod:`wemem.metrics.crossed`). Otherwise it is paired by seed, and its
interval covers other seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr

from wemem.metrics.crossed import Spread, crossed_spread, mean_of
from wemem.metrics.intervals import Estimate
from wemem.results.arms import Arm

Basis = Literal["targets", "seeds"]


@dataclass(frozen=True)
class Difference:
    """The difference of one arm minus another.

    Args:
        value: the mean difference, as a fraction.
        spread: the mean difference with its standard error; None with one seed, or if the
            difference is equal for all seeds.
        basis: the unit of pairing.
        count: the number of targets or of seeds.
        apart: the sign of a difference without a standard error: 1 or -1 where the intervals of the
            arms do not overlap, else 0.
    """

    value: float
    spread: Spread | None
    basis: Basis
    count: int
    apart: int = 0

    @property
    def interval(self) -> Estimate | None:
        """The 95 % interval of this difference alone; None without a standard error."""
        return None if self.spread is None else self.spread.interval()

    @property
    def p_value(self) -> float | None:
        """The two-sided p-value by Student's t; None without a standard error."""
        if self.spread is None:
            return None
        if self.spread.error == 0:
            return float(self.value == 0)
        return float(2 * stdtr(self.spread.freedom, -abs(self.value) / self.spread.error))

    def sign(self, level: float = 0.95) -> int:
        """The sign of a significant difference, else 0."""
        if self.spread is None:
            return self.apart
        ends = self.spread.interval(level)
        return (ends.low > 0) - (ends.high < 0)

    def exceeds(self, level: float) -> bool:
        """True if the first arm is significantly above the second by a one-sided test."""
        return self.sign(2 * level - 1) > 0


def leakage_difference(ours: Arm, theirs: Arm, metric: str) -> Difference | None:
    """The strongest attack on one arm minus the strongest on the other.

    Attacks that both arms have, helped by equally many other models, are compared. Leave-one-out
    targets are used only if the strongest attack on each victim was run on the targets. Otherwise
    an arm could look safe because its strongest attack was not run on them.

    Returns:
        None if the arms have no such attack.
    """
    on_targets = _common_on_targets(ours, theirs, metric)
    if all(arm.strongest(metric)[0] in on_targets for arm in (ours, theirs)):
        return leakage_over_targets(ours, theirs, metric)
    return leakage_over_seeds(ours, theirs, metric)


def leakage_over_targets(ours: Arm, theirs: Arm, metric: str) -> Difference | None:
    """The strongest attack on the leave-one-out targets of one arm minus that on the other's.

    For an arm whose defense alters answers, all attacks count, with those on its weights. Results
    of version 1 lack pseudo-values; their means are compared by seed.

    Returns:
        None if the arms have no attack on targets in common.
    """
    attacks = _common_on_targets(ours, theirs, metric)
    if not attacks:
        return None
    strongest = [
        max(
            _counting(arm, other, arm.leave_one_out_attacks(metric), attacks),
            key=lambda name: _mean(arm, name, metric),
        )
        for arm, other in ((ours, theirs), (theirs, ours))
    ]
    first, second = (
        {run["seed"]: run["leave_one_out"][name][metric] for run in arm.runs}
        for arm, name in zip((ours, theirs), strongest, strict=True)
    )
    paired = _over_targets(first, second)
    one, other = ours.leave_one_out(metric), theirs.leave_one_out(metric)
    if paired is not None or one is None or other is None:
        return paired
    means = [{seed: measured["value"] for seed, measured in runs.items()} for runs in (first, second)]
    return _over_seeds(means[0], means[1], one[1], other[1])


def leakage_over_seeds(ours: Arm, theirs: Arm, metric: str) -> Difference | None:
    """The difference of the strongest attacks over seeds; None without an attack and a seed in
    common.
    """
    common = _common(ours, theirs, ours.attacks)
    if not common:
        return None
    first, second = (
        arm.strongest_by_seed(metric, _counting(arm, other, arm.attacks, common))
        for arm, other in ((ours, theirs), (theirs, ours))
    )
    return _over_seeds(first, second, ours.strongest(metric)[1], theirs.strongest(metric)[1])


def accuracy_difference(ours: Arm, theirs: Arm) -> Difference | None:
    """The difference in test accuracy: of all reference models if known, else of the victims."""
    first, second = (
        {run["seed"]: run["reference_accuracy"] for run in arm.runs if "reference_accuracy" in run}
        for arm in (ours, theirs)
    )
    over_targets = _over_targets(first, second) if first and second else None
    if over_targets is not None:
        return over_targets
    ours_by_seed, theirs_by_seed = (
        {run["seed"]: run["accuracy"]["test"] for run in arm.runs} for arm in (ours, theirs)
    )
    return _over_seeds(ours_by_seed, theirs_by_seed, ours.accuracy(), theirs.accuracy())


def may_leak_least(candidates: Sequence[Arm], metric: str, *, over_targets: bool = False) -> list[Arm]:
    """A 95 % confidence set for the arm that truly leaks least (as in Hsu 1984).

    An arm is left out if it leaks significantly more than another, by one-sided tests at ``0.05 /
    (n - 1)`` each. The arm that truly leaks least is in ``n - 1`` of these tests. So it is left out
    with a probability of at most 5 %, whichever arm has the lowest estimate.

    Args:
        candidates: the arms to choose from.
        metric: the name of the metric of leakage.
        over_targets: whether leave-one-out targets are compared in place of the victims.
    """
    compare = leakage_over_targets if over_targets else leakage_over_seeds
    level = 1 - 0.05 / max(1, len(candidates) - 1)
    return [
        one for one in candidates
        if not any(
            (gap := compare(one, other, metric)) is not None and gap.exceeds(level)
            for other in candidates if other is not one
        )
    ]  # fmt: skip


def holm(p_values: Sequence[float | None], error: float = 0.05) -> list[bool]:
    """Holm's (1979) step-down rule: true for every rejected hypothesis; None is never rejected.

    >>> holm([0.01, 0.04, None, 0.02])
    [True, True, False, True]
    >>> holm([0.01, 0.04, 0.04])
    [True, False, False]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    rejected = [False] * len(p_values)
    for step, (p, i) in enumerate(order):
        if p > error / (len(order) - step):
            break
        rejected[i] = True
    return rejected


def _common_on_targets(ours: Arm, theirs: Arm, metric: str) -> list[str]:
    on_targets = theirs.leave_one_out_attacks(metric)
    return [name for name in _common(ours, theirs, ours.leave_one_out_attacks(metric)) if name in on_targets]


def _common(ours: Arm, theirs: Arm, attacks: Sequence[str]) -> list[str]:
    """The attacks, among some on the first arm, that equally many other models helped against the
    second.
    """
    return [name for name in attacks if name in theirs.attacks and ours.helpers(name) == theirs.helpers(name)]


def _counting(arm: Arm, other: Arm, attacks: Sequence[str], common: list[str]) -> list[str]:
    """The attacks that count for an arm: the common ones, and where its defense alters answers, the
    further ones that as many models helped as some attack on the other arm.
    """
    if not arm.answers_only:
        return common
    numbers = {other.helpers(name) for name in other.attacks}
    further = [name for name in attacks if name not in other.attacks and arm.helpers(name) in numbers]
    return [*common, *further]


def _mean(arm: Arm, attack: str, metric: str) -> float:
    return float(np.mean([run["leave_one_out"][attack][metric]["value"] for run in arm.runs]))


def _over_targets(first: Mapping[int, Mapping[str, Any]], second: Mapping[int, Mapping[str, Any]]) -> Difference | None:
    """The difference over targets; None unless all common seeds have pseudo-values of equal shapes."""
    seeds = sorted(first.keys() & second.keys())
    spreads, targets = [], 0
    for seed in seeds:
        one, other = first[seed], second[seed]
        tables = [np.asarray(measured.get("pseudo_values", ()), np.float64) for measured in (one, other)]
        if tables[0].ndim != 2 or tables[0].shape != tables[1].shape:
            return None
        spreads.append(crossed_spread(one["value"] - other["value"], tables[0] - tables[1]))
        targets += len(tables[0])
    if not spreads:
        return None
    mean = mean_of(spreads)
    return Difference(mean.value, mean if mean.error > 0 else None, "targets", targets)


def _over_seeds(
    first: Mapping[int, float], second: Mapping[int, float], one: Estimate, other: Estimate
) -> Difference | None:
    """The difference over seeds; its spread is None for one seed, or if all seeds differ equally."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    gaps = np.array([first[seed] - second[seed] for seed in seeds], np.float64)
    apart = (one.low > other.high) - (one.high < other.low)
    spread = None
    if len(seeds) > 1 and np.ptp(gaps) > 1e-9:
        spread = Spread(float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps))), len(gaps) - 1.0)
    return Difference(float(gaps.mean()), spread, "seeds", len(seeds), apart)


def detectable(differences: Sequence[Difference], level: float = 0.95) -> float | None:
    """The true difference that is detected with 80 % power, as a median; None without a standard
    error.
    """
    known = [gap.spread.detectable(level) for gap in differences if gap.spread is not None]
    return float(np.median(known)) if known else None
