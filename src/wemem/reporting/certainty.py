"""Certainty of a study's findings, and the differences it could have found, in sentences."""

from collections.abc import Sequence

from wemem.metrics.registry import LOW_FPR, METRICS
from wemem.results.arms import Arm
from wemem.results.differences import accuracy_difference, detectable, leakage_over_seeds, leakage_over_targets


def on_certainty(rows: Sequence[Arm], attacked: Sequence[Arm]) -> str:
    """The basis of the comparisons, their power, and what may make a leak look smaller than it is.

    Args:
        rows: all arms.
        attacked: the defended arms that are compared.
    """
    return " ".join([_on_basis(rows), *_on_power(attacked), *_on_adversary(rows)])


def _on_basis(rows: Sequence[Arm]) -> str:
    seeds = min(len(arm.runs) for arm in rows)
    if seeds == 1:
        return (
            "One seed: victims are called distinguishable where their intervals do not overlap, and another split or "
            "training run may change them; run more seeds to be surer."
        )
    return (
        f"{seeds} seeds: arms are called distinguishable where their paired difference excludes zero; which arm leaks "
        "least is stated with 95 % confidence whichever came first, and what is not distinguishable may still differ."
    )


def _on_power(attacked: Sequence[Arm]) -> list[str]:
    """The true difference between two arms that the study would have found with a probability of 80
    %.
    """
    if len(attacked) < 2:
        return []
    best = min(attacked, key=lambda arm: arm.strongest(LOW_FPR)[1].value)
    rivals = [arm for arm in attacked if arm is not best]
    level = 1 - 0.1 / len(rivals)  # two-sided, of the one-sided tests that may_leak_least makes
    leaks = [
        leakage_over_targets(arm, best, LOW_FPR) or leakage_over_seeds(arm, best, LOW_FPR) for arm in rivals
    ]  # fmt: skip
    accuracies = [accuracy_difference(arm, best) for arm in rivals]
    known = [(gaps, detectable([gap for gap in gaps if gap is not None], level)) for gaps in (leaks, accuracies)]
    leak, accuracy = (size for _, size in known)
    if leak is None:
        return ["It cannot say which difference it would have found: that takes two seeds or leave-one-out targets."]
    of_accuracy = "" if accuracy is None else f" or {100 * accuracy:.1f} points of accuracy"
    return [
        f"It would have separated two of these {len(attacked)} arms, with a probability of 80 %, at a true difference "
        f"of {100 * leak:.1f} points of {METRICS[LOW_FPR].phrase}{of_accuracy}; smaller ones it may well have missed."
    ]


def _on_adversary(rows: Sequence[Arm]) -> list[str]:
    sentences = []
    if not all(arm.adaptive(attack) for arm in rows for attack in arm.attacks):
        sentences.append("Some attacks were not adaptive, so that an adversary who knows the defense may find more.")
    counts: dict[str, set[int]] = {}
    for arm in rows:
        for run in arm.runs:
            for attack, audit in run["attacks"].items():
                counts.setdefault(attack, set()).add(audit["reference_models"])
    unlike = set().union(*(labels for labels in counts.values() if len(labels) > 1))
    if unlike:
        sentences.append(
            f"The adversary had {min(unlike)} reference models against some and {max(unlike)} against others: more "
            "find more, so what few attacked looks safer than it is. Differences between such arms leave these attacks "
            "out; set split.references for all arms alike."
        )
    return sentences
