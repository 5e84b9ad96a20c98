"""What a study found, in sentences for people who do not read tables of attacks.

Two arms are said to differ only where the data says so: with two seeds or more, where the interval of their
seed-by-seed difference excludes zero; with one, where their intervals do not overlap. Everything else is "not
distinguishable", which is not "equal".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wemem.audit.intervals import Estimate, corrected_level, paired_difference
from wemem.render.arms import Arm, arms
from wemem.render.wording import per_cent, printable

#: The two measures of leakage that a summary tells of, and their words.
HEADLINE, LOW_FPR = "balanced_accuracy", "tpr_at_0.01"
MEASURES = {
    HEADLINE: "By attack accuracy, the paper's measure,",
    LOW_FPR: "By training records found while accusing at most 1 % of the others,",
}
#: Names in a row; more are counted.
NAMES = 4


@dataclass(frozen=True)
class Difference:
    """How much one arm is above another.

    Args:
        value: the first less the second.
        sign: 1 above, -1 below, 0 not distinguishable.
    """

    value: float
    sign: int


def plain_summary(results: Mapping[str, Any]) -> list[str]:
    """Whether pruning leaks, which defense leaks least and at what cost, and how sure that is, in two to five entries.

    Of several sparsities the highest is told of. Names are safe to print, but may hold what looks like markup.

    Args:
        results: the content of ``results.json``, with at least one run.
    """
    rows = arms(results)
    highest = max(arm.sparsity for arm in rows)
    dense = next((arm for arm in rows if arm.defense == "dense"), None)
    pruned = [arm for arm in rows if arm.defense != "dense" and arm.sparsity == highest]
    plain = next((arm for arm in pruned if arm.defense == "undefended"), None)
    attacked = [arm for arm in pruned if arm.attacks]
    told, chosen = [_on_pruning(rows, dense, plain)], []
    for metric in MEASURES if len(attacked) > 1 else ():
        values = [arm.strongest(metric)[1].value for arm in attacked]
        best = attacked[values.index(min(values))]
        told.append(_on_least(best, attacked, plain, metric))
        chosen.append(best)
    shown = [arm for arm in pruned if arm in (chosen or pruned) and arm is not plain]
    return [*told, _on_accuracy(dense, plain, shown), _on_certainty(rows)]


def adaptivity_gaps(results: Mapping[str, Any]) -> list[str]:
    """What knowing the defense is worth to the adversary, one sentence a run that was attacked both ways."""
    lines = []
    for run in results["runs"]:
        weaker = run.get("non_adaptive")
        if not weaker:
            continue
        metric = "balanced_accuracy"
        unknowing = max(weaker, key=lambda name: weaker[name][metric])
        knowing = max(weaker, key=lambda name: run["attacks"][name][metric])
        before, after = weaker[unknowing][metric], run["attacks"][knowing][metric]
        lines.append(
            f"{printable(run['label'])}, seed {run['seed']}: an adversary with shadows pruned without the defense "
            f"reaches {100 * before:.1f} % attack accuracy ({printable(unknowing)}), the adaptive one "
            f"{100 * after:.1f} % ({printable(knowing)}), {100 * (after - before):+.1f} points."
        )
    return lines


def leakage_difference(ours: Arm, theirs: Arm, metric: str, comparisons: int = 1) -> Difference:
    """Of the strongest of the attacks that both have; ``comparisons`` that are made at once widen the interval."""
    common = [attack for attack in ours.attacks if attack in theirs.attacks]
    if not common:
        return Difference(float("nan"), 0)
    by_seed = ours.strongest_by_seed(metric, common), theirs.strongest_by_seed(metric, common)
    return _difference(*by_seed, ours.strongest(metric)[1], theirs.strongest(metric)[1], comparisons)


def accuracy_difference(ours: Arm, theirs: Arm, comparisons: int = 1) -> Difference:
    """Of the test accuracies."""
    first, second = ({run["seed"]: run["accuracy"]["test"] for run in arm.runs} for arm in (ours, theirs))
    return _difference(first, second, ours.accuracy(), theirs.accuracy(), comparisons)


def by_seed(ours: Mapping[int, float], theirs: Mapping[int, float], level: float = 0.95) -> Estimate | None:
    """The mean difference over the seeds that both have; None for fewer than two, or if all differ by the same.

    >>> by_seed({0: 0.5}, {0: 0.25, 1: 0.75})
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    first, second = (np.array([values[seed] for seed in seeds], np.float64) for values in (ours, theirs))
    gap = paired_difference(first, second, level)
    return gap if gap.high - gap.low > 1e-9 else None


def _difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], own: Estimate, other: Estimate, comparisons: int
) -> Difference:
    """By the seeds that both have; by their intervals if there is but one, or if all of them differ by the same."""
    gap = by_seed(ours, theirs, corrected_level(0.95, comparisons))
    if gap is not None:
        return Difference(gap.value, (gap.low > 0) - (gap.high < 0))
    return Difference(own.value - other.value, (own.low > other.high) - (own.high < other.low))


def _on_pruning(rows: Sequence[Arm], dense: Arm | None, plain: Arm | None) -> str:
    if not any(arm.attacks for arm in rows):
        return "No attack was run, so nothing here tells what leaks."
    if dense is None or not dense.attacks:
        return "The model before pruning was not attacked, so nothing here tells what pruning adds to the leak."
    if plain is None or not plain.attacks:
        return "Pruning without a defense was not attacked, so nothing here tells what pruning alone adds to the leak."
    words = {1: "leaks more than", -1: "leaks less than", 0: "leaks neither distinguishably more nor less than"}
    accuracy, found = (words[leakage_difference(plain, dense, metric).sign] for metric in MEASURES)
    verdict = f"{accuracy} the dense one" + (
        "" if accuracy == found else f" by attack accuracy, and {found} it by training records found"
    )
    return (
        f"Pruned to {per_cent(plain.sparsity)} sparsity without a defense, the model {verdict}: the best guess "
        f"whether a record was trained on is right {_leak(plain, HEADLINE)} of the time (dense "
        f"{_leak(dense, HEADLINE)}, by chance 50 %), and the strongest attack finds {_leak(plain, LOW_FPR)} of the "
        f"training records (dense {_leak(dense, LOW_FPR)}) while accusing at most 1 % of the others."
    )


def _on_least(best: Arm, attacked: Sequence[Arm], plain: Arm | None, metric: str) -> str:
    if best is plain:
        return f"{MEASURES[metric]} no defense leaks less than pruning without one ({_leak(best, metric)})."
    rivals = sorted((arm for arm in attacked if arm is not best), key=lambda arm: arm is not plain)
    alike = [arm for arm in rivals if leakage_difference(arm, best, metric, len(rivals)).sign <= 0]
    against = f" against {_leak(plain, metric)} without a defense" if plain is not None and plain.attacks else ""
    others = f"but is not distinguishable from {_names(alike)}" if alike else "distinguishably less than every other"
    return f"{MEASURES[metric]} {_name(best)} leaks least, {_leak(best, metric)}{against}, {others}."


def _on_accuracy(dense: Arm | None, plain: Arm | None, shown: Sequence[Arm]) -> str:
    parts = [f"{_name(arm)} {_share(arm.accuracy().value)}" for arm in (dense, plain) if arm is not None]
    base = plain or dense
    for arm in shown:
        part = f"{_name(arm)} {_share(arm.accuracy().value)}"
        if base is not None:
            gap = accuracy_difference(arm, base, len(shown))
            where = f"{100 * abs(gap.value):.1f} points {'above' if gap.value >= 0 else 'below'} {_name(base)}"
            part += f" ({where})" if gap.sign else f" ({where}, not distinguishable)"
        parts.append(part)
    return f"Test accuracy: {', '.join(parts)}."


def _on_certainty(rows: Sequence[Arm]) -> str:
    seeds = min(len(arm.runs) for arm in rows)
    if seeds == 1:
        told = (
            "One seed: results are called distinguishable where their intervals do not overlap, and another split or "
            "training run may change them; run more seeds to be surer."
        )
    else:
        told = (
            f"{seeds} seeds: results are called distinguishable where the 95 % interval of their difference, seed by "
            "seed, excludes zero; what is not distinguishable may still differ."
        )
    if not all(arm.adaptive(attack) for arm in rows for attack in arm.attacks):
        told += " Some attacks were not adaptive, so that an adversary who knows the defense may find more."
    return told


def _leak(arm: Arm, metric: str) -> str:
    return _share(arm.strongest(metric)[1].value)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _name(arm: Arm) -> str:
    return printable(arm.label)


def _names(rows: Sequence[Arm]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of many, the first and how many more."""
    names = [_name(arm) for arm in rows]
    if len(names) > NAMES:
        names = [*names[: NAMES - 1], f"{len(names) - NAMES + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
