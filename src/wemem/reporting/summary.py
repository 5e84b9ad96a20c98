"""The findings of a study, in sentences for people who do not read tables of attacks.

Two arms are said to differ only where the data show it: over several seeds or leave-one-out
targets, where the error of their paired difference excludes zero; with one seed and one target,
where their intervals do not overlap. Everything else is "not distinguishable", which is not
"equal".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.metrics.registry import LOW_FPR, LOW_RATE, METRICS, PAPER, metrics_for
from wemem.reporting.certainty import on_certainty
from wemem.results.arms import Arm, arms, audits_of
from wemem.results.controls import effects
from wemem.results.differences import accuracy_difference, leakage_difference, may_leak_least
from wemem.results.wording import duration, names, per_cent, printable

#: The two metrics that a summary on the console reports.
SUMMARY = (PAPER, LOW_FPR)
#: One sentence for readers who do not know the term.
FPR_MEANS = (
    f"At {per_cent(LOW_RATE)} FPR means: while the attack takes at most {per_cent(LOW_RATE)} of the other records for "
    "training records."
)
#: Arms whose costs are listed where none stands out.
SHOWN = 4
#: Test accuracy that a protection may cost before a cheaper one is named beside it.
CHEAP = 0.02


@dataclass(frozen=True, eq=False)
class _Cast:
    """The arms by their role; of several sparsities, the pruned ones are those of the highest."""

    rows: Sequence[Arm]
    dense: Arm | None
    plain: Arm | None
    pruned: Sequence[Arm]
    attacked: Sequence[Arm]


def plain_summary(results: Mapping[str, Any]) -> list[str]:
    """The findings for a terminal in two to six entries: leak of pruning, best defense, its cost,
    and certainty.

    Of several sparsities, the highest is reported. Names are safe to print, but may hold what looks
    like markup.

    Args:
        results: the content of ``results.json``, with at least one run.
    """
    cast = _cast(results)
    entries, chosen = [_on_pruning(cast.rows, cast.dense, cast.plain), *_on_controls(cast.rows)], []
    for metric in SUMMARY if len(cast.attacked) > 1 else ():
        best = least_leaking(cast.attacked, metric)
        entries.append(_on_least(cast.attacked, cast.plain, metric))
        chosen.append(best)
    entries += _on_targets(cast)
    shown = [arm for arm in cast.pruned if arm in (chosen or cast.pruned) and arm is not cast.plain]
    return [*entries, _on_accuracy(cast.dense, cast.plain, shown), on_certainty(cast.rows, cast.attacked)]


def report_summary(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """The findings for a report, by topic.

    Returns:
        Sentences under ``recommendation``, ``measured``, ``leaks``, ``protects``, ``costs`` and
        ``certainty``.
    """
    cast = _cast(results)
    protects, chosen = [], []
    for metric in metrics_for("headline", audits_of(cast.attacked)) if len(cast.attacked) > 1 else ():
        best = least_leaking(cast.attacked, metric.name)
        protects.append(_on_least(cast.attacked, cast.plain, metric.name))
        chosen.append(best)
    protects += _on_targets(cast)
    shown = [arm for arm in cast.pruned if arm in (chosen or cast.pruned[:SHOWN]) and arm is not cast.plain]
    costs = [_on_accuracy(cast.dense, cast.plain, shown), *_on_time(shown), *_on_cheaper(cast, chosen)]
    return {
        "recommendation": _recommendation(cast),
        "measured": [_on_measuring(results, cast)],
        "leaks": [_on_pruning(cast.rows, cast.dense, cast.plain), *_on_controls(cast.rows), *_on_only(cast)],
        "protects": protects or ["Fewer than two pruned models were attacked, so defenses are not compared."],
        "costs": costs,
        "certainty": [on_certainty(cast.rows, cast.attacked)],
    }


def dense_warning(results: Mapping[str, Any]) -> str | None:
    """A warning that the model before pruning leaks and that no defense changes it; None where it
    shows no leak.
    """
    dense = _cast(results).dense
    if dense is None or not dense.attacks or not dense.leaks_by_any():
        return None
    return (
        "The dense model leaks too, and no defense in this report protects it: the strongest attack tells training "
        f"records from others with a balanced accuracy of {_leak(dense, PAPER)}, and finds {_leak(dense, LOW_FPR)} of "
        f"its training records at {per_cent(LOW_RATE)} FPR. The defenses act while the model is pruned; whoever can "
        "query the dense model attacks it as it is. Keep it to yourself, or release an unpruned one that is distilled "
        "too (wemem prune --defense oosd --set pruning.sparsity=0)."
    )


def least_leaking(candidates: Sequence[Arm], metric: str) -> Arm:
    """The arm whose strongest attack is weakest on average; the first of equals."""
    return min(candidates, key=lambda arm: arm.strongest(metric)[1].value)


def adaptivity_gaps(results: Mapping[str, Any]) -> list[str]:
    """The value of knowing the defense to the adversary, one sentence a run that was attacked both
    ways.
    """
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
            f"reaches {100 * before:.1f} % balanced accuracy ({printable(unknowing)}), the adaptive one "
            f"{100 * after:.1f} % ({printable(knowing)}), {100 * (after - before):+.1f} points."
        )
    return lines


def _cast(results: Mapping[str, Any]) -> _Cast:
    rows = arms(results)
    highest = max(arm.sparsity for arm in rows)
    dense = next((arm for arm in rows if arm.defense == "dense"), None)
    pruned = [arm for arm in rows if not arm.is_control and arm.sparsity == highest]
    plain = next((arm for arm in pruned if arm.defense == "undefended"), None)
    return _Cast(rows, dense, plain, pruned, [arm for arm in pruned if arm.attacks])


def _on_pruning(rows: Sequence[Arm], dense: Arm | None, plain: Arm | None) -> str:
    if not any(arm.attacks for arm in rows):
        return "No attack was run, so leakage was not measured."
    if dense is None or not dense.attacks:
        return "The model before pruning was not attacked, so the leak that pruning adds was not measured."
    if plain is None or not plain.attacks:
        return "Pruning without a defense was not attacked, so the leak that pruning alone adds was not measured."
    words = {1: "leaks more than", -1: "leaks less than", 0: "leaks neither distinguishably more nor less than"}
    gaps = [leakage_difference(plain, dense, metric) for metric in SUMMARY]
    first, second = (words[0 if gap is None else gap.sign()] for gap in gaps)
    finding = f"{first} the dense one" + (
        "" if first == second else f" by {METRICS[PAPER].phrase}, and {second} it by {METRICS[LOW_FPR].phrase}"
    )
    if not plain.leaks_by_any():
        finding = f"shows no leak above chance by any metric, which does not prove that there is none, and {finding}"
    return (
        f"Pruned to {per_cent(plain.sparsity)} sparsity without a defense, the model {finding}: the strongest attack "
        f"tells training records from others with a balanced accuracy of {_leak(plain, PAPER)} (dense "
        f"{_leak(dense, PAPER)}, {_chance(plain, PAPER)}), and finds {_leak(plain, LOW_FPR)} of the training records "
        f"at {per_cent(LOW_RATE)} FPR (dense {_leak(dense, LOW_FPR)}, {_chance(plain, LOW_FPR)}). {FPR_MEANS}"
    )


def _on_controls(rows: Sequence[Arm]) -> list[str]:
    """The share of the leak that is due to seeing the records again, to pruning, and to pruning
    round by round.
    """
    causes = {effect.cause: effect for effect in effects(rows, LOW_FPR)}
    if not {"reuse", "pruning"} <= causes.keys():
        return []
    words = {
        "reuse": "fine-tuning again without pruning adds",
        "pruning": "pruning adds",
        "schedule": "pruning round by round rather than at once adds",
    }
    parts = [
        f"{words[cause]} {100 * effect.change:+.1f} points"
        + ("" if effect.sign else " (not distinguishable from none)")
        for cause, effect in causes.items()
    ]
    exposures = causes["pruning"].exposures
    shown = (
        ""
        if exposures is None
        else f" Pruning showed {exposures:.2f} times as many records as the same rounds unpruned."
    )
    return [f"By {METRICS[LOW_FPR].phrase}: {'; '.join(parts)}.{shown}"]


def _on_least(attacked: Sequence[Arm], plain: Arm | None, metric: str) -> str:
    """The victim that leaks least by a metric."""
    leak = {arm: arm.strongest(metric)[1].value for arm in attacked}
    return _least(f"By {METRICS[metric].phrase},", leak, plain, may_leak_least(attacked, metric), metric)


def _on_targets(cast: _Cast) -> list[str]:
    """The arm that leaks least over all leave-one-out targets, which tell arms apart sooner than
    the victims do.
    """
    known = {arm: measured for arm in cast.attacked if (measured := arm.leave_one_out(LOW_FPR)) is not None}
    if len(known) < 2:
        return []
    targets = [measured[2] for measured in known.values()]
    span = "-".join(dict.fromkeys(f"{end:,}" for end in (min(targets), max(targets))))
    begin = f"Over {span} leave-one-out targets, by {METRICS[LOW_FPR].phrase},"
    leak = {arm: measured[1].value for arm, measured in known.items()}
    candidates = may_leak_least(list(known), LOW_FPR, over_targets=True)
    return [_least(begin, leak, cast.plain, candidates, None)]


def _least(
    begin: str, leak: Mapping[Arm, float], plain: Arm | None, candidates: Sequence[Arm], metric: str | None
) -> str:
    """The arm that leaks least, and those that may truly leak least in its place, undefended
    pruning first.

    Args:
        begin: the beginning of the sentence.
        leak: the leak of each arm.
        plain: undefended pruning.
        candidates: the arms of which each may be the one that truly leaks least.
        metric: the metric by which chance is known; None over leave-one-out targets.
    """
    best = min(leak, key=lambda arm: leak[arm])
    if best is plain:
        return f"{begin} no defense leaks less than pruning without one ({_share(leak[best])})."
    alike = sorted((arm for arm in candidates if arm is not best), key=lambda arm: arm is not plain)
    against = f" against {_share(leak[plain])} without a defense" if plain is not None and plain in leak else ""
    quiet = ", no more than by chance" if metric is not None and not best.leaks(metric) else ""
    others = (
        f"but is not distinguishable from {names([arm.label for arm in alike])}"
        if alike else "distinguishably less than every other"
    )  # fmt: skip
    sentence = f"{begin} {_name(best)} leaks least, {_share(leak[best])}{against}{quiet}, {others}."
    return sentence + _on_answers(best, leak)


def _on_answers(best: Arm, leak: Mapping[Arm, float]) -> str:
    """A warning where the arm protects its answers only, and the one that leaks least of those that
    protect weights.
    """
    if not best.answers_only:
        return ""
    others = [arm for arm in leak if not arm.answers_only]
    warning = f" {_name(best)} protects answers to queries only: whoever has the weights attacks a bare model."
    if not others:
        return warning
    second = min(others, key=lambda arm: leak[arm])
    return f"{warning} Of those that protect the weights, {_name(second)} leaks least, {_share(leak[second])}."


def _on_accuracy(dense: Arm | None, plain: Arm | None, shown: Sequence[Arm]) -> str:
    parts = [f"{_name(arm)} {_share(arm.accuracy().value)}" for arm in (dense, plain) if arm is not None]
    base = plain or dense
    for arm in shown:
        part = f"{_name(arm)} {_share(arm.accuracy().value)}"
        if base is not None:
            part += f" ({_accuracy_gap(arm, base, len(shown))})"
        parts.append(part)
    return f"Test accuracy: {', '.join(parts)}."


def _accuracy_gap(arm: Arm, base: Arm, comparisons: int) -> str:
    """The difference in accuracy, decided at a level that allows for all comparisons (Bonferroni)."""
    gap = accuracy_difference(arm, base)
    if gap is None:
        return f"no seed in common with {_name(base)}"
    where = f"{100 * abs(gap.value):.1f} points {'above' if gap.value >= 0 else 'below'} {_name(base)}"
    over = f" over {gap.count} leave-one-out models" if gap.basis == "targets" else ""
    return f"{where}{over}" + ("" if gap.sign(1 - 0.05 / comparisons) else ", not distinguishable")


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
        f"The strongest attack on {_name(arm)} tells training records from others with a balanced accuracy of "
        f"{_leak(arm, PAPER)} ({_chance(arm, PAPER)}), and finds {_leak(arm, LOW_FPR)} of the training records at "
        f"{per_cent(LOW_RATE)} FPR ({_chance(arm, LOW_FPR)}). {FPR_MEANS}"
    ]


def recommended(results: Mapping[str, Any]) -> Arm | None:
    """The arm that a summary recommends for release: the least leak among those that protect the
    weights and cost little accuracy; None where nothing can be compared.
    """
    fit = _fit(_cast(results))
    return least_leaking(fit, LOW_FPR) if fit else None


def _fit(cast: _Cast) -> list[Arm]:
    """The arms that protect the weights and cost little accuracy, with undefended pruning among
    them; none where nothing can be compared.
    """
    plain = cast.plain
    if plain is None or plain not in cast.attacked or len(cast.attacked) < 2:
        return []
    return [arm for arm in cast.attacked if not arm.answers_only and _is_cheap(arm, plain)]


def _is_cheap(arm: Arm, plain: Arm) -> bool:
    """True if an arm costs little accuracy against undefended pruning, over leave-one-out models
    where both have them.
    """
    gap = accuracy_difference(arm, plain)
    return (arm.accuracy().value - plain.accuracy().value if gap is None else gap.value) >= -CHEAP


def _recommendation(cast: _Cast) -> list[str]:
    """The arm to release, with the reason."""
    plain, fit = cast.plain, _fit(cast)
    if plain is None or not fit:
        return ["None: that takes undefended pruning and at least one defense, both attacked."]
    best = least_leaking(fit, LOW_FPR)
    which = (
        f"among arms that protect the weights and cost at most {100 * CHEAP:.0f} points of test accuracy "
        f"({len(fit)} here)"
    )
    if best is plain:
        return [f"None: {which}, no defense leaks less than pruning without one by {METRICS[LOW_FPR].phrase}."]
    alike = [arm.label for arm in may_leak_least(fit, LOW_FPR) if arm is not best]
    doubt = f" It is not distinguishable from {names(alike)}, which may do as well." if alike else ""
    chance = best.chance(LOW_FPR)
    level = METRICS[LOW_FPR].chance if chance is None else chance.expected
    still = f" It still leaks: by chance it would be {_share(level)}." if best.leaks(LOW_FPR) else ""
    return [
        f"{_name(best)}: {which}, it leaks least, {_leak(best, LOW_FPR)} by {METRICS[LOW_FPR].phrase} against "
        f"{_leak(plain, LOW_FPR)} without a defense.{doubt}{still}"
    ]


def _on_time(shown: Sequence[Arm]) -> list[str]:
    """Fine-tuning time that each defense adds."""
    parts = []
    for arm in shown:
        whole, more = arm.seconds("finetune"), arm.seconds("defense_overhead")
        if whole is not None and more is not None and arm.defense != "undefended":
            parts.append(f"{_name(arm)} {more:+.1f} s (to {duration(whole)})")
    return [f"Fine-tuning time against undefended: {', '.join(parts)}."] if parts else []


def _on_cheaper(cast: _Cast, chosen: Sequence[Arm]) -> list[str]:
    """The setting that leaks least of those that cost little, where those that leak least cost
    more.
    """
    plain, lines = cast.plain, []
    if plain is None:
        return []
    cheap = [arm for arm in cast.attacked if _is_cheap(arm, plain)]
    for metric, best in zip(SUMMARY, chosen, strict=False):
        if not _is_cheap(best, plain) and cheap:
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
