"""Defenses against each other, seed by seed, in sentences.

Every interval is at 95 % on its own: of twenty pairs without any difference one is expected to show one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from wemem.metrics.intervals import Estimate
from wemem.metrics.registry import LOW_FPR, METRICS, PAPER, metrics_for
from wemem.results.arms import Arm, arms, audits_of, by_seed, require_labels
from wemem.results.wording import per_cent, printable

#: Said once, below all pairs.
ONE_SEED = "Of one shared seed there is no interval over seeds: another seed may show otherwise, so run more."


@dataclass(frozen=True)
class Gap:
    """How much one arm is above another, as a mean over seeds.

    Args:
        value: the first less the second, as a fraction.
        interval: at 95 %; None with one seed, or if all seeds differ by the same.
    """

    value: float
    interval: Estimate | None

    @property
    def shown(self) -> bool:
        """Whether there is an interval, and it excludes 0."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high


@dataclass(frozen=True, eq=False)
class Comparison:
    """A defense against a rival at equal sparsity.

    Args:
        defense: its label.
        rival: its label.
        sparsity: of both.
        seeds: that both were run with, at least one.
        leakage: by metric, of the strongest of the attacks that both have; empty if they have none in common.
        accuracy: on test records.
    """

    defense: str
    rival: str
    sparsity: float
    seeds: tuple[int, ...]
    leakage: Mapping[str, Gap]
    accuracy: Gap


def pairwise(results: Mapping[str, Any]) -> list[Comparison]:
    """Every arm against every other of its sparsity with which it shares a seed, both ways round.

    Args:
        results: the content of ``results.json``.
    """
    pairs = permutations(arms(results), 2)
    found = (_compare(ours, theirs) for ours, theirs in pairs if ours.sparsity == theirs.sparsity)
    return [comparison for comparison in found if comparison.seeds]


def sentences(results: Mapping[str, Any], of: Sequence[str]) -> list[str]:
    """How the defenses of some labels compare with their rivals, one sentence a pair.

    Args:
        results: the content of ``results.json``.
        of: labels. A pair of two of them is told of once, from the side of the one named first.

    Returns:
        The sentences, and a warning below them if one rests on a single seed.

    Raises:
        InputError: an unknown label.
    """
    told = against_rivals(results, of)
    alone = any(len(one.seeds) == 1 for one in told)
    return [*map(_sentence, told), *([ONE_SEED] if alone else [])]


def against_rivals(results: Mapping[str, Any], of: Sequence[str]) -> list[Comparison]:
    """What :func:`sentences` tells, as numbers and in its order.

    Raises:
        InputError: an unknown label.
    """
    require_labels(arms(results), of)
    compared, order = pairwise(results), list(dict.fromkeys(of))
    return [
        one for i, label in enumerate(order) for one in compared if one.defense == label and one.rival not in order[:i]
    ]


def leaders(results: Mapping[str, Any]) -> list[str]:
    """The labels that leak least by the paper's metric and by TPR at a low FPR, on average over their runs.

    The dense model is none of them. They were chosen by the very figures that :func:`sentences` compares, which
    flatters them a little.
    """
    pruned = [arm for arm in arms(results) if not arm.is_control and arm.attacks]
    least = [min(pruned, key=lambda arm: arm.strongest(metric)[1].value).label for metric in (PAPER, LOW_FPR) if pruned]
    return list(dict.fromkeys(least))


def _compare(ours: Arm, theirs: Arm) -> Comparison:
    common = [attack for attack in ours.attacks if attack in theirs.attacks]
    first, second = ({run["seed"]: run["accuracy"]["test"] for run in arm.runs} for arm in (ours, theirs))
    headlines = metrics_for("headline", audits_of((ours, theirs))) if common else []
    leaks = {
        metric.name: tuple(arm.strongest_by_seed(metric.name, common) for arm in (ours, theirs)) for metric in headlines
    }
    seeds = first.keys() & second.keys()
    for one, other in leaks.values():
        seeds = seeds & one.keys() & other.keys()
    leakage = {metric: _gap(one, other, seeds) for metric, (one, other) in leaks.items() if seeds}
    accuracy = _gap(first, second, seeds) if seeds else Gap(float("nan"), None)
    return Comparison(ours.label, theirs.label, ours.sparsity, tuple(sorted(seeds)), leakage, accuracy)


def _gap(ours: Mapping[int, float], theirs: Mapping[int, float], seeds: set[int]) -> Gap:
    value = float(np.mean([ours[seed] - theirs[seed] for seed in sorted(seeds)]))
    first, second = ({seed: values[seed] for seed in seeds} for values in (ours, theirs))
    return Gap(value, by_seed(first, second))


def _sentence(one: Comparison) -> str:
    defense, rival = printable(one.defense), printable(one.rival)
    parts: list[str] = []
    for metric, gap in one.leakage.items():
        if gap.shown or gap.interval is None:
            told = _amount(gap, "less", "more")
            told = told if parts else f"{defense} leaks {told} than {rival}"
        else:
            told = "no difference shown"
            told = told if parts else f"{defense} against {rival}: {told}"
        parts.append(f"{told} by {METRICS[metric].phrase}{_ends(gap, first=not parts)}")
    if not parts:
        parts.append(f"{defense} against {rival}: no attack was run on both")
    plain = one.accuracy.shown or one.accuracy.interval is None
    accuracy = (
        f"at {_amount(one.accuracy, 'less', 'more')} test accuracy" if plain else "no difference shown in test accuracy"
    )
    parts.append(accuracy + _ends(one.accuracy, first=False))
    return f"{', '.join(parts)}, {per_cent(one.sparsity)} sparsity, {_on_seeds(one)}."


def _amount(gap: Gap, below: str, above: str) -> str:
    """The size of a gap and its direction.

    >>> _amount(Gap(-0.112, None), "less", "more")
    '11.2 points less'
    """
    return f"{100 * abs(gap.value):.1f} points {below if gap.value < 0 else above}"


def _ends(gap: Gap, first: bool) -> str:
    """The interval, turned to the direction that was told; signed, with its value, where none was."""
    if gap.interval is None:
        return ""
    name, low, high = "95 % interval " if first else "", 100 * gap.interval.low, 100 * gap.interval.high
    if not gap.shown:
        return f" ({100 * gap.value:+.1f} points, {name}{low:.1f} to {high:.1f})"
    low, high = (-high, -low) if gap.value < 0 else (low, high)
    return f" ({name}{low:.1f} to {high:.1f})"


def _on_seeds(one: Comparison) -> str:
    if len(one.seeds) == 1:
        return "one shared seed"
    told = f"{len(one.seeds)} seeds"
    alike = any(gap.interval is None for gap in (*one.leakage.values(), one.accuracy))
    return f"{told}; where no interval stands, all seeds differ by the same, which is no certainty" if alike else told
