"""The numbers of a report, part by part, as plain values: what the page, the figures and the tables
all show.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from wemem.metrics.intervals import Estimate, proportion
from wemem.metrics.registry import LOW_FPR, Metric, metrics_for
from wemem.reporting.comparison import sentences
from wemem.reporting.notes import notes
from wemem.reporting.summary import least_leaking
from wemem.results.arms import Arm, Run, audits_of, over_seeds
from wemem.results.blind import ROW, blind_estimate
from wemem.results.combine import Combined
from wemem.results.comparison import ACCURACY, Comparison, against_rivals, leaders
from wemem.results.curves import by_class, by_decile, front, roc_points

Value = dict[str, Any]
#: Arms that are drawn one beside another; more, and each kind is shown by the setting that leaks
#: least.
PANELS = 12


def named(arm: Arm) -> Value:
    """The fields that identify an arm."""
    return {"label": arm.label, "defense": arm.defense, "sparsity": arm.sparsity, "seeds": len(arm.runs)}


def headline(rows: Sequence[Arm]) -> list[Value]:
    """Accuracy of each arm, its strongest attack by each metric, and the same over leave-one-out
    targets.
    """
    found = []
    metrics = metrics_for("table", audits_of(rows))
    for arm in rows:
        audits = audits_of([arm])
        strongest = {metric.name: _strongest(arm, metric.name) for metric in metrics} if audits else {}
        counts = {name: min(audit[name] for audit in audits) for name in ("members", "nonmembers")} if audits else {}
        tested = min(run["accuracy"]["test_records"] for run in arm.runs)
        whole = {} if arm.whole_model_sparsity is None else {"whole_model_sparsity": arm.whole_model_sparsity}
        row = {**named(arm), **whole, "accuracy": asdict(arm.accuracy()), "test_records": tested, **strongest, **counts}
        found.append({**row, "leave_one_out": over} if (over := _leave_one_out(arm)) else row)
    return found


def plane(rows: Sequence[Arm]) -> list[Value]:
    """Accuracy against leakage, one panel a sparsity and measure; a front is of the pruned models
    of the panel.

    Each defense kind has a front of its own settings, and all pruned models together have one.
    """
    attacked = [arm for arm in rows if arm.attacks]
    panels = []
    for sparsity in dict.fromkeys(arm.sparsity for arm in attacked if not arm.is_control):
        pruned = [arm for arm in attacked if not arm.is_control and arm.sparsity == sparsity]
        controls = [arm for arm in attacked if arm.is_control and arm.sparsity in (0, sparsity)]
        for metric in metrics_for("headline", audits_of([*controls, *pruned])):
            overall = _front(pruned, metric.name)
            costs = [
                arm
                for kind in {a.defense for a in pruned}
                for arm in _front([a for a in pruned if a.defense == kind], metric.name)
            ]
            points = [
                {
                    **named(arm), "accuracy": asdict(arm.accuracy()), "leakage": _strongest(arm, metric.name),
                    "front": arm in overall, "front_of_kind": arm in costs,
                }
                for arm in [*controls, *pruned]
            ]  # fmt: skip
            chance = chance_of(points, metric)["expected"]
            panels.append({"measure": metric.name, "sparsity": sparsity, "chance": chance, "points": points})
    return panels


def curves(combined: Combined, rows: Sequence[Arm]) -> list[Value]:
    """The ROC curve of each arm's strongest attack."""
    return [
        {
            **named(arm), "attack": attack, "members": min(int(run.member.sum()) for run in runs),
            "nonmembers": min(int((~run.member).sum()) for run in runs),
            "points": [asdict(point) for point in roc_points(runs, attack)],
        }
        for arm, attack, runs in _followed(combined, rows)
    ]  # fmt: skip


def blind_row(results: Mapping[str, Any]) -> Value:
    """The blind baseline by each metric that needs no threshold, beside the name of its row; empty
    in results without it.
    """
    measured = {metric.name: blind_estimate(results, metric.name) for metric in metrics_for("table")}
    known = {name: asdict(estimate) for name, estimate in measured.items() if estimate is not None}
    return {"name": ROW, **known} if known else {}


def chance_of(points: Sequence[Value], metric: Metric) -> Value:
    """The chance level of the strongest attack: mean over arms, and their highest upper end.

    Args:
        points: values with the measured leakage under ``leakage``.
        metric: its level for a single attack stands in where results have none.
    """
    known = [point["leakage"] for point in points if "chance" in point["leakage"]]
    if not known:
        return {"expected": metric.chance, "high": None}
    return {
        "expected": float(np.mean([one["chance"] for one in known])),
        "high": max(one["chance_high"] for one in known),
    }


def rounds(rows: Sequence[Arm]) -> list[Value]:
    """Accuracy along the pruning rounds, and the leak along them where it was measured."""
    lines = []
    for arm in rows:
        length = min(len(run["rounds"]) for run in arm.runs)
        steps = [[run["rounds"][r] for run in arm.runs] for r in range(length)]
        if steps and arm.defense != "dense":
            lines.append({**named(arm), "rounds": [_round(arm.runs, step) for step in steps]})
    return lines


def deciles(combined: Combined, rows: Sequence[Arm]) -> list[Value]:
    """The share of members found in each decile of memorization."""
    return [
        {**named(arm), "attack": attack, "groups": [asdict(group) for group in groups]}
        for arm, attack, runs in _followed(combined, rows)
        if (groups := by_decile(runs, attack))
    ]


def classes(combined: Combined, rows: Sequence[Arm]) -> list[Value]:
    """The share of members found in each class."""
    return [
        {**named(arm), "attack": attack, "groups": [asdict(group) for group in by_class(runs, attack)]}
        for arm, attack, runs in _followed(combined, rows)
    ]


def times(rows: Sequence[Arm]) -> list[Value]:
    """The cost of each arm: mean, least and most over its runs of each quantity that was measured."""
    bars = []
    for arm in rows:
        seconds = {
            **{f"{of}_seconds": [run["seconds"].get(of) for run in arm.runs] for of in _timed(arm)},
            "records_seen": [run["records_seen"] for run in arm.runs],
            "peak_memory_mib": [run.get("peak_memory_mib") for run in arm.runs],
        }
        bars.append({**named(arm), **{name: _span(values) for name, values in seconds.items() if _span(values)}})
    return bars


def selections(combined: Combined) -> list[Value]:
    """Settings chosen on dev data, where a study did so; the floor is the accuracy that a setting
    must keep.
    """
    selected = []
    for source in combined.sources:
        selection = source.results.get("selection")
        if selection:
            rule = selection["rule"]
            floor = rule["undefended_dev_accuracy"] - rule["max_accuracy_drop"]
            selected.append({"folder": source.name, **selection, "floor": floor})
    return selected


def comparisons(results: Mapping[str, Any]) -> Value:
    """The arms that leak least against their rivals, paired by seed: sentences, and the numbers in
    them.
    """
    of = leaders(results)
    pairs = [
        {
            "defense": one.defense, "rival": one.rival, "sparsity": one.sparsity, "seeds": list(one.seeds),
            "leakage": {metric: _difference(one, metric) for metric in one.leakage},
            "accuracy": _difference(one, ACCURACY),
        }
        for one in (against_rivals(results, of) if of else [])
    ]  # fmt: skip
    return {"leaders": of, "pairs": pairs, "sentences": sentences(results, of) if of else []}


def provenance(combined: Combined, rows: Sequence[Arm]) -> Value:
    """Sources of the numbers: folders, studies and arms."""
    return {
        "folders": [
            {
                "folder": source.name,
                **{key: source.results[key] for key in ("study", "data", "environment", "scores")},
                "notes": notes(source.results),
            }
            for source in combined.sources
        ],
        "arms": [
            {
                **named(arm),
                "settings": _settings(arm),
                "seed_values": [run["seed"] for run in arm.runs],
                "adaptive": all(run["certificate"]["adaptive"] for run in arm.runs),
                "adversary_models": min(run["certificate"]["models"] for run in arm.runs),
                "backend": sorted({run["backend"]["backend"] for run in arm.runs}),
                **{key: arm.runs[0][key] for key in ("privacy", "auto") if arm.runs[0].get(key)},
            }
            for arm in rows
        ],
    }


def _settings(arm: Arm) -> Value:
    """Settings of all seeds, or of each seed where each found its own for a budget."""
    settings = [run["settings"] for run in arm.runs]
    if all(one == settings[0] for one in settings):
        return dict(settings[0])
    return {f"seed {run['seed']}": f"{run['defense']} {run['settings']}" for run in arm.runs}


def featured(rows: Sequence[Arm]) -> list[Arm]:
    """The arms that figures show one beside another: all attacked ones of the highest sparsity, or
    the least leaking setting of each kind where those are more than :data:`PANELS`. Undefended
    comes first and the dense model last.
    """
    highest = max(arm.sparsity for arm in rows)
    shown = [arm for arm in rows if arm.attacks and (arm.is_control or arm.sparsity == highest)]
    if len(shown) > PANELS:
        kinds = dict.fromkeys(arm.defense for arm in shown)
        shown = [least_leaking([arm for arm in shown if arm.defense == kind], LOW_FPR) for kind in kinds]
    order = {"undefended": 0, "dense": 2}
    return sorted(shown, key=lambda arm: order.get(arm.defense, 1))


def _strongest(arm: Arm, metric: str) -> Value:
    attack, estimate = arm.strongest(metric)
    chance = arm.chance(metric)
    level = {} if chance is None else {"chance": chance.expected, "chance_high": chance.high}
    entry = {**asdict(estimate), "attack": attack, "adaptive": arm.adaptive(attack)}
    return {**entry, **level, "leaks": arm.leaks(metric)}


def _leave_one_out(arm: Arm) -> Value:
    """The strongest attack over leave-one-out targets by each metric that needs no threshold."""
    over_targets = {m.name: arm.leave_one_out(m.name) for m in metrics_for("table") if not m.needs_threshold}
    return {
        metric: {**asdict(one[1]), "attack": one[0], "targets": one[2]}
        for metric, one in over_targets.items()
        if one is not None
    }


def _front(candidates: Sequence[Arm], metric: str) -> list[Arm]:
    accuracy = [arm.accuracy().value for arm in candidates]
    return [candidates[i] for i in front(accuracy, [arm.strongest(metric)[1].value for arm in candidates])]


def _followed(combined: Combined, rows: Sequence[Arm]) -> Iterator[tuple[Arm, str, Any]]:
    """Each attacked arm whose scores are stored, with its strongest attack and the scores by it."""
    for arm in rows:
        if arm.attacks:
            attack = arm.strongest(LOW_FPR)[0]
            if runs := combined.of(arm, attack):
                yield arm, attack, runs


def _round(runs: Sequence[Run], step: Sequence[Mapping[str, Any]]) -> Value:
    """One round over seeds. Of one seed the interval of accuracy is Clopper and Pearson's; the leak
    has none.
    """
    tested = [run["accuracy"]["test_records"] for run in runs]
    shares = [proportion(round(one["test_accuracy"] * n), n) for one, n in zip(step, tested, strict=True)]
    entry = {
        "round": step[0]["round"],
        "sparsity": step[0]["sparsity"],
        "test_accuracy": asdict(over_seeds(shares)),
    }
    leaks = [one["confidence_auc"] for one in step if one.get("confidence_auc") is not None]
    if len(leaks) == len(step):
        leak = over_seeds([Estimate(value, value, value) for value in leaks])
        ends = (None, None) if leak.low == leak.high else (leak.low, leak.high)
        entry["confidence_auc"] = dict(zip(("value", "low", "high"), (leak.value, *ends), strict=True))
    return entry


def _timed(arm: Arm) -> list[str]:
    return list(dict.fromkeys(name for run in arm.runs for name in run["seconds"]))


def _span(values: Sequence[float | None]) -> Value | None:
    known = [value for value in values if value is not None]
    return {"mean": float(np.mean(known)), "least": min(known), "most": max(known)} if known else None


def _difference(one: Comparison, name: str) -> Value:
    gap = one.differences[name]
    ends = gap.interval
    return {
        "value": gap.value,
        "low": ends.low if ends else None,
        "high": ends.high if ends else None,
        "shown": name in one.shown,
        "paired_by": gap.basis,
        "pairs": gap.count,
    }
