"""What a study found, in sentences for people who do not read tables of attacks.

Two arms are said to differ only where the data says so: with two seeds or more, where the interval of their
seed-by-seed difference excludes zero; with one, where their intervals do not overlap. Everything else is "not
distinguishable", which is not "equal".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.metrics.intervals import Estimate, corrected_level
from wemem.metrics.registry import LOW_FPR, METRICS, PAPER, metrics_for
from wemem.results.arms import Arm, arms, audits_of, by_seed
from wemem.results.controls import effects
from wemem.results.wording import duration, per_cent, printable

#: The two metrics that a summary on the console reports.
SUMMARY = (PAPER, LOW_FPR)
#: Names in a row; more are counted.
NAMES = 4
#: Test accuracy that a protection may cost before a cheaper one is named beside it.
CHEAP = 0.02


@dataclass(frozen=True)
class Difference:
    """How much one arm is above another.

    Args:
        value: the first less the second.
        sign: 1 above, -1 below, 0 not distinguishable.
    """

    value: float
    sign: int


@dataclass(frozen=True, eq=False)
class _Cast:
    """The arms by the part they play; of several sparsities, the pruned ones are those of the highest."""

    rows: Sequence[Arm]
    dense: Arm | None
    plain: Arm | None
    pruned: Sequence[Arm]
    attacked: Sequence[Arm]


def plain_summary(results: Mapping[str, Any]) -> list[str]:
    """Whether pruning leaks, which defense leaks least and at what cost, and how sure that is, in two to five entries.

    Of several sparsities the highest is told of. Names are safe to print, but may hold what looks like markup.

    Args:
        results: the content of ``results.json``, with at least one run.
    """
    cast = _cast(results)
    told, chosen = [_on_pruning(cast.rows, cast.dense, cast.plain), *_on_controls(cast.rows)], []
    for metric in SUMMARY if len(cast.attacked) > 1 else ():
        best = least_leaking(cast.attacked, metric)
        told.append(_on_least(cast.attacked, cast.plain, metric))
        chosen.append(best)
    told += _on_turns(cast)
    shown = [arm for arm in cast.pruned if arm in (chosen or cast.pruned) and arm is not cast.plain]
    return [*told, _on_accuracy(cast.dense, cast.plain, shown), _on_certainty(cast.rows)]


def report_summary(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """What :func:`plain_summary` tells, for a report: by topic, with what was measured and what protection costs.

    Returns:
        Sentences under ``measured``, ``leaks``, ``protects``, ``costs`` and ``certainty``.
    """
    cast = _cast(results)
    protects, chosen = [], []
    for metric in metrics_for("headline", audits_of(cast.attacked)) if len(cast.attacked) > 1 else ():
        best = least_leaking(cast.attacked, metric.name)
        protects.append(_on_least(cast.attacked, cast.plain, metric.name))
        chosen.append(best)
    protects += _on_turns(cast)
    shown = [arm for arm in cast.pruned if arm in (chosen or cast.pruned[:NAMES]) and arm is not cast.plain]
    costs = [_on_accuracy(cast.dense, cast.plain, shown), *_on_time(shown), *_on_cheaper(cast, chosen)]
    return {
        "measured": [_on_measuring(results, cast)],
        "leaks": [_on_pruning(cast.rows, cast.dense, cast.plain), *_on_controls(cast.rows), *_on_only(cast)],
        "protects": protects or ["Fewer than two pruned models were attacked, so nothing here compares defenses."],
        "costs": costs,
        "certainty": [_on_certainty(cast.rows)],
    }


def dense_warning(results: Mapping[str, Any]) -> str | None:
    """That the model before pruning leaks and that no defense here changes it; None where it shows no leak."""
    dense = _cast(results).dense
    if dense is None or not dense.attacks or not any(dense.leaks(metric) for metric in SUMMARY):
        return None
    return (
        "The dense model leaks too, and no defense in this report protects it: the best guess whether a record was "
        f"trained on is right {_leak(dense, PAPER)} of the time, and the strongest attack finds "
        f"{_leak(dense, LOW_FPR)} of its training records while accusing at most 1 % of the others. The defenses act "
        "while the model is pruned; whoever can query the dense model attacks it as it is. Keep it to yourself, or "
        "release an unpruned one that is distilled too (wemem prune --defense oosd --set pruning.sparsity=0)."
    )


def least_leaking(candidates: Sequence[Arm], metric: str) -> Arm:
    """The arm whose strongest attack is weakest on average; the first of equals."""
    return min(candidates, key=lambda arm: arm.strongest(metric)[1].value)


def adaptivity_gaps(results: Mapping[str, Any]) -> list[str]:
    """What knowing the defense is worth to the adversary, one sentence a run that was attacked both ways."""
    lines = []
    for run in results["runs"]:
        weaker = run.get("non_adaptive")
        if not weaker:
            continue
        metric = PAPER
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


def _difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], own: Estimate, other: Estimate, comparisons: int
) -> Difference:
    """By the seeds that both have; by their intervals if there is but one, or if all of them differ by the same."""
    gap = by_seed(ours, theirs, corrected_level(0.95, comparisons))
    if gap is not None:
        return Difference(gap.value, (gap.low > 0) - (gap.high < 0))
    return Difference(own.value - other.value, (own.low > other.high) - (own.high < other.low))


def _cast(results: Mapping[str, Any]) -> _Cast:
    rows = arms(results)
    highest = max(arm.sparsity for arm in rows)
    dense = next((arm for arm in rows if arm.defense == "dense"), None)
    pruned = [arm for arm in rows if not arm.is_control and arm.sparsity == highest]
    plain = next((arm for arm in pruned if arm.defense == "undefended"), None)
    return _Cast(rows, dense, plain, pruned, [arm for arm in pruned if arm.attacks])


def _on_pruning(rows: Sequence[Arm], dense: Arm | None, plain: Arm | None) -> str:
    if not any(arm.attacks for arm in rows):
        return "No attack was run, so nothing here tells what leaks."
    if dense is None or not dense.attacks:
        return "The model before pruning was not attacked, so nothing here tells what pruning adds to the leak."
    if plain is None or not plain.attacks:
        return "Pruning without a defense was not attacked, so nothing here tells what pruning alone adds to the leak."
    words = {1: "leaks more than", -1: "leaks less than", 0: "leaks neither distinguishably more nor less than"}
    accuracy, found = (words[leakage_difference(plain, dense, metric).sign] for metric in SUMMARY)
    verdict = f"{accuracy} the dense one" + (
        "" if accuracy == found else f" by attack accuracy, and {found} it by training records found"
    )
    if not any(plain.leaks(metric) for metric in SUMMARY):
        verdict = f"shows no leak above chance, and {verdict}"
    return (
        f"Pruned to {per_cent(plain.sparsity)} sparsity without a defense, the model {verdict}: the best guess "
        f"whether a record was trained on is right {_leak(plain, PAPER)} of the time (dense "
        f"{_leak(dense, PAPER)}, {_chance(plain, PAPER)}), and the strongest attack finds {_leak(plain, LOW_FPR)} of "
        f"the training records (dense {_leak(dense, LOW_FPR)}, {_chance(plain, LOW_FPR)}) while accusing at most 1 % "
        "of the others."
    )


def _on_controls(rows: Sequence[Arm]) -> list[str]:
    """The share of the leak that is due to seeing the records again, to pruning, and to pruning round by round."""
    found = {effect.cause: effect for effect in effects(rows, LOW_FPR)}
    if not {"reuse", "pruning"} <= found.keys():
        return []
    words = {
        "reuse": "fine-tuning again without pruning adds",
        "pruning": "pruning adds",
        "schedule": "pruning round by round rather than at once adds",
    }
    parts = [
        f"{words[cause]} {100 * effect.change:+.1f} points"
        + ("" if effect.sign else " (not distinguishable from none)")
        for cause, effect in found.items()
    ]
    exposures = found["pruning"].exposures
    shown = (
        ""
        if exposures is None
        else f" Pruning showed {exposures:.2f} times as many records as the same rounds unpruned."
    )
    return [f"By {METRICS[LOW_FPR].phrase}: {'; '.join(parts)}.{shown}"]


def _on_least(attacked: Sequence[Arm], plain: Arm | None, metric: str) -> str:
    told = {arm: arm.strongest(metric)[1] for arm in attacked}
    begin = f"By {METRICS[metric].phrase},"
    return _least(
        begin, told, plain, lambda arm, best, rivals: leakage_difference(arm, best, metric, rivals),
        lambda arm: arm.leaks(metric),
    )  # fmt: skip


def _on_turns(cast: _Cast) -> list[str]:
    """The same by all members of the reference ensembles in turn; many targets tell arms apart sooner."""
    found = {arm: turns for arm in cast.attacked if (turns := arm.in_turn(LOW_FPR)) is not None}
    if len(found) < 2:
        return []
    targets = [turns[2] for turns in found.values()]
    span = "-".join(dict.fromkeys(f"{end:,}" for end in (min(targets), max(targets))))
    begin = f"With every reference model attacked in turn ({span} targets),"
    return [_least(begin, {arm: turns[1] for arm, turns in found.items()}, cast.plain, _in_turn_difference)]


def _least(
    begin: str, told: Mapping[Arm, Estimate], plain: Arm | None, difference: Callable[[Arm, Arm, int], Difference],
    leaks: Callable[[Arm], bool] = lambda arm: True,
) -> str:  # fmt: skip
    """Which arm leaks least, and what it is not distinguishable from, undefended pruning first.

    Args:
        begin: of the sentence.
        told: what each arm leaks.
        plain: undefended pruning.
        difference: of two arms that are two of so many compared at once.
        leaks: whether an arm leaks more than by chance.
    """
    best = min(told, key=lambda arm: told[arm].value)
    if best is plain:
        return f"{begin} no defense leaks less than pruning without one ({_share(told[best].value)})."
    rivals = sorted((arm for arm in told if arm is not best), key=lambda arm: arm is not plain)
    alike = [arm for arm in rivals if difference(arm, best, len(rivals)).sign <= 0]
    against = f" against {_share(told[plain].value)} without a defense" if plain is not None and plain in told else ""
    quiet = "" if leaks(best) else ", no more than by chance"
    others = f"but is not distinguishable from {_names(alike)}" if alike else "distinguishably less than every other"
    return f"{begin} {_name(best)} leaks least, {_share(told[best].value)}{against}{quiet}, {others}."


def _in_turn_difference(ours: Arm, theirs: Arm, comparisons: int) -> Difference:
    """As :func:`leakage_difference`, by all members of the reference ensembles."""
    common = [attack for attack in ours.turns(LOW_FPR) if attack in theirs.turns(LOW_FPR)]
    own, other = ours.in_turn(LOW_FPR), theirs.in_turn(LOW_FPR)
    if not common or own is None or other is None:
        return Difference(float("nan"), 0)
    first, second = (arm.in_turn_by_seed(LOW_FPR, common) for arm in (ours, theirs))
    return _difference(first, second, own[1], other[1], comparisons)


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


def _on_measuring(results: Mapping[str, Any], cast: _Cast) -> str:
    data, defended = results["data"], [arm for arm in cast.pruned if arm.defense != "undefended"]
    kinds = len({arm.defense for arm in defended})
    attacks = len({attack for arm in cast.rows for attack in arm.attacks})
    seeds = len({run["seed"] for run in results["runs"]})
    sparsities = " and ".join(per_cent(s) for s in sorted({arm.sparsity for arm in cast.rows if arm.sparsity}))
    return (
        f"Models of {printable(data['name'])} ({data['records']:,} records, {data['classes']} classes) were "
        + (f"pruned to {sparsities} sparsity under {_count(len(defended), 'setting')} of {_count(kinds, 'defense')}, "
           if sparsities else "left unpruned, ")
        + f"and {_count(attacks, 'attack')} tried to tell the records they were trained on from others, "
        f"over {_count(seeds, 'seed')}."
    )  # fmt: skip


def _on_only(cast: _Cast) -> list[str]:
    """The leak of a model that has neither the dense one nor an undefended one to be compared with."""
    if len(cast.attacked) != 1 or cast.plain is not None or (cast.dense is not None and cast.dense.attacks):
        return []
    arm = cast.attacked[0]
    return [
        f"Of {_name(arm)} the best guess whether a record was trained on is right {_leak(arm, PAPER)} of the time "
        f"({_chance(arm, PAPER)}), and the strongest attack finds {_leak(arm, LOW_FPR)} of the training records "
        f"({_chance(arm, LOW_FPR)}) while accusing at most 1 % of the others."
    ]


def _on_time(shown: Sequence[Arm]) -> list[str]:
    """What defending added to fine-tuning."""
    parts = []
    for arm in shown:
        whole, more = arm.seconds("finetune"), arm.seconds("defense_overhead")
        if whole is not None and more is not None and arm.defense != "undefended":
            parts.append(f"{_name(arm)} {more:+.1f} s (to {duration(whole)})")
    return [f"Fine-tuning time against undefended: {', '.join(parts)}."] if parts else []


def _on_cheaper(cast: _Cast, chosen: Sequence[Arm]) -> list[str]:
    """Which setting leaks least of those that cost little, where those that leak least cost more."""
    plain, lines = cast.plain, []
    if plain is None:
        return []
    floor = plain.accuracy().value - CHEAP
    cheap = [arm for arm in cast.attacked if arm.accuracy().value >= floor]
    for metric, best in zip(SUMMARY, chosen, strict=False):
        if best.accuracy().value < floor and cheap:
            other = least_leaking(cheap, metric)
            lines.append(
                f"By {METRICS[metric].phrase}, {_name(other)} leaks least ({_leak(other, metric)}) of the settings "
                f"that cost at most {100 * CHEAP:.0f} points of test accuracy; {_name(best)} costs more."
            )
    return lines


def _count(number: int, word: str) -> str:
    """A number and its noun.

    >>> _count(1, "seed"), _count(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {word}{'' if number == 1 else 's'}"


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
            "seed and widened for all that are compared at once, excludes zero; what is not distinguishable may still "
            "differ."
        )
    if not all(arm.adaptive(attack) for arm in rows for attack in arm.attacks):
        told += " Some attacks were not adaptive, so that an adversary who knows the defense may find more."
    counts: dict[str, set[int]] = {}
    for arm in rows:
        for run in arm.runs:
            for attack, audit in run["attacks"].items():
                counts.setdefault(attack, set()).add(audit["reference_models"])
    unlike = set().union(*(own for own in counts.values() if len(own) > 1))
    if unlike:
        told += (
            f" The adversary had {min(unlike)} reference models against some and {max(unlike)} against others: more "
            "find more, so what few attacked looks safer than it is."
        )
    return told


def _leak(arm: Arm, metric: str) -> str:
    return _share(arm.strongest(metric)[1].value)


def _chance(arm: Arm, metric: str) -> str:
    """The chance level of the strongest attack."""
    chance = arm.chance(metric)
    return f"by chance {_share(METRICS[metric].chance if chance is None else chance.expected)}"


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
