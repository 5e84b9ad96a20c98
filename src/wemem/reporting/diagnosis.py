"""A diagnosis on the console: the scenario in plain words, its evidence as tables, and what to do."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wemem.metrics.intervals import Estimate
from wemem.results.wording import interval

#: Arms in the words of a reader, in the order of the tables.
ARMS = {
    "fresh": "fresh records each round",
    "reused": "the same records each round",
    "as_run": "as the study runs it",
    "iterative": "pruned iteratively",
    "one_shot": "pruned at once",
    "unpruned": "fine-tuned, not pruned",
}
GROUPS = {"all": "all records", "low": "typical records", "high": "memorable records"}
EFFECTS = {
    "reuse": "Reuse: typical records, shown in every round - in one",
    "memorability": "Memorability: shown in one round, memorable - typical",
    "interaction": "Interaction: beyond the sum of the two",
}
DECISIONS = {"counts": "counts", "excluded": "too small to matter", "open": "open"}
NAMES = {
    "reuse": "DATA REUSE drives memorization here.",
    "memorability": "INHERENT MEMORABILITY drives memorization here.",
    "both": "BOTH drive memorization here, data reuse and inherent memorability.",
    "neither": "NEITHER data reuse nor inherent memorability was found to drive memorization here.",
}
ADVICE = {
    "rsw": "Use RSW, the ranked sliding window: it shows each record in fewer epochs of a round.",
    "rmr": "Use RMR, the risky-memory regularization: strong weight decay on the steps that show memorable records.",
    "swmr": "Use SWMR, window and regularization together: fewer exposures, and strong decay where records are risky.",
}
LIMITS = (
    "What this cannot say: whether the defense suffices at these settings (measure it: wemem compare), what the dense "
    "model leaks by itself, or how it would be with another model, data or recipe. The controlled arms fine-tune on "
    "parts of the records, for only then can data be fresh, and parts leak more than the whole does: effects there are "
    "for telling factors apart, not forecasts of the leak. The pool is one half of one seed's records."
)


def estimate(entry: Mapping[str, Any]) -> Estimate:
    """A value with its interval, read from the file."""
    return Estimate(entry["value"], entry["ci"][0], entry["ci"][1])


def points(difference: Estimate) -> str:
    """A difference of shares in points, with its interval.

    >>> points(Estimate(0.314, 0.2, 0.4))
    '+31.4 [+20.0, +40.0]'
    """
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def measured(
    diagnosis: Mapping[str, Any], arm: str, group: str, *, round: int | None = None, exposures: int | None = None
) -> list[Mapping[str, Any]]:
    """Measurements of an arm and group: after one round, with one number of exposures, or all."""
    return [
        one
        for one in diagnosis["measured"]
        if (one["arm"], one["group"]) == (arm, group)
        and round in (None, one["round"])
        and exposures in (None, one["exposures"])
    ]


def diagnosis_sentences(diagnosis: Mapping[str, Any]) -> list[str]:
    """The finding, its evidence, the advice and the limits, one paragraph each.

    Args:
        diagnosis: the content of ``diagnosis.json``.
    """
    scenario, design = diagnosis["scenario"], diagnosis["design"]
    lines = [
        NAMES[scenario["name"]],
        *(_on_effect(diagnosis, effect) for effect in scenario["effects"]),
        _on_rule(diagnosis),
    ]
    by_name = {one["name"]: estimate(one["leakage"]) for one in diagnosis["comparisons"]}
    ordinary = estimate(measured(diagnosis, "as_run", "all", round=design["rounds"])[0]["leakage"])
    before = estimate(measured(diagnosis, "as_run", "all", round=0)[0]["leakage"])
    lines.append(
        f"An ordinary run of this study leaks {interval(ordinary)} % after its last round, {interval(before)} % "
        "before the first (50 % is chance). At equal length, in points of leakage: pruned iteratively, less pruned at "
        f"once {points(by_name['iterative - one_shot'])}; pruned iteratively, less fine-tuned without pruning "
        f"{points(by_name['iterative - unpruned'])}; fine-tuned without pruning, less the dense model it starts from "
        f"{points(by_name['unpruned - dense'])}."
    )
    lines += [*_on_controls(diagnosis), _on_scores(diagnosis)]
    if scenario["defense"] is None:
        lines.append(_on_nothing(diagnosis, ordinary))
    else:
        lines += [*_on_other(diagnosis), f"{ADVICE[scenario['defense']]} In the study file:"]
    return lines


def _on_other(diagnosis: Mapping[str, Any]) -> list[str]:
    """A remark where one factor counts and the other is neither shown nor excluded."""
    return [
        f"Beside it, {effect['name']} may matter by up to {100 * effect['ci'][1]:.1f} points; if more models "
        "(--models) show that it counts, the advice becomes SWMR, which acts on both."
        for effect in diagnosis["scenario"]["effects"]
        if effect["decision"] == "open" and effect["name"] in ("reuse", "memorability")
    ]


def _on_effect(diagnosis: Mapping[str, Any], effect: Mapping[str, Any]) -> str:
    rounds = diagnosis["design"]["rounds"]
    end = {
        (arm, group): 100 * measured(diagnosis, arm, group, round=rounds)[0]["leakage"]["value"]
        for arm in ("fresh", "reused")
        for group in ("low", "high")
    }
    size = f"{points(estimate(effect))} points"
    decision = {
        "counts": "counts", "excluded": "is too small to matter",
        "open": "is not established, and not excluded either",
    }[effect["decision"]]  # fmt: skip
    if effect["name"] == "reuse":
        return (
            f"Reuse {decision}: {size}. Typical records leak {end['fresh', 'low']:.1f} % if one round showed them, "
            f"{end['reused', 'low']:.1f} % if all {rounds} did; the same records, the same number of epochs a round."
        )
    if effect["name"] == "memorability":
        return (
            f"Memorability {decision}: {size}. Of records that were shown in one round, typical ones leak "
            f"{end['fresh', 'low']:.1f} %, memorable ones {end['fresh', 'high']:.1f} %."
        )
    return (
        f"What reuse adds to memorable records beyond what it adds to typical ones {decision}: {size}. Shown in all "
        f"rounds, memorable records leak {end['reused', 'high']:.1f} %; near 100 % there is no room for more."
    )


def _on_rule(diagnosis: Mapping[str, Any]) -> str:
    return (
        "The rule: an effect counts if its whole interval lies above "
        f"{100 * diagnosis['settings']['relevant']:g} points. The three intervals hold at once with 95 % confidence, "
        "over models (training runs and splits) and records. Leakage is how often a model that was trained on a record "
        "is surer of it than one that was not: the same record on both sides, so that hard records are not mistaken "
        "for leaking ones."
    )


def _on_controls(diagnosis: Mapping[str, Any]) -> list[str]:
    controls = [(one["name"], estimate(one["leakage"])) for one in diagnosis["controls"]]
    listed = "; ".join(f"{name}: {interval(control)} %" for name, control in controls)
    lines = [f"Controls, where nothing can leak (99 % intervals): {listed}."]
    if any(not control.low <= 0.5 <= control.high for _, control in controls):
        lines.append("WARNING: a control is off 50 %; take more models (--models) before you trust the effects.")
    return lines


def _on_scores(diagnosis: Mapping[str, Any]) -> str:
    trust = diagnosis["scores"]["halves_correlation"]
    if trust is None:
        return "Who is memorable was read from a file."
    note = "" if trust > 0.3 else "; so low, records hardly differ in memorability, or --set scores.models is too few"
    return f"Scores from two halves of the scoring models agree at rank correlation {trust:.2f}{note}."


def _on_nothing(diagnosis: Mapping[str, Any], ordinary: Estimate) -> str:
    opened = [effect for effect in diagnosis["scenario"]["effects"] if effect["decision"] == "open"]
    advice = "No defense is recommended on this evidence."
    if opened:
        most = max(effect["ci"][1] for effect in opened)
        advice += (
            f" It does not show that there is no effect: one of up to {100 * most:.1f} points is compatible with it; "
            "take more models (--models) to narrow that."
        )
    if ordinary.low > 0.5 + diagnosis["settings"]["relevant"]:
        advice += " An ordinary run does leak, though: see what it leaks before the first round, and at one exposure."
    return advice


def diagnosis_tables(diagnosis: Mapping[str, Any]) -> Group:
    """The effects, leakage by exposures, and leakage and memorization after every round."""
    parts: list[RenderableType] = []
    for table in (_effects(diagnosis), _exposures(diagnosis), _rounds(diagnosis)):
        parts += [table, Text()]
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _effects(diagnosis: Mapping[str, Any]) -> Table:
    table = _table("Effects on leakage, points", "Effect", "Points", "Decision")
    for effect in diagnosis["scenario"]["effects"]:
        table.add_row(EFFECTS[effect["name"]], Text(points(estimate(effect))), DECISIONS[effect["decision"]])
    return table


def _exposures(diagnosis: Mapping[str, Any]) -> Table:
    table = _table("Leakage by exposures, within a model, per cent", "Shown in", "Typical", "Memorable")
    for count in range(1, diagnosis["design"]["rounds"] + 1):
        cells = [measured(diagnosis, "dosed", group, exposures=count)[0] for group in ("low", "high")]
        rounds = "1 round" if count == 1 else f"{count} rounds"
        table.add_row(rounds, *(Text(interval(estimate(cell["leakage"]))) for cell in cells))
    return table


def _rounds(diagnosis: Mapping[str, Any]) -> Table:
    table = _table("After each round, per cent", "Round", "Sparsity", "Group", "Leakage", "Memorization")
    for arm, name in ARMS.items():
        table.add_row(Text(name, "bold"))
        for group in ("low", "high") if arm in ("fresh", "reused") else ("all",):
            for one in measured(diagnosis, arm, group):
                table.add_row(
                    f"  {one['round'] or 'before'}", f"{100 * one['sparsity']:.0f}", GROUPS[group].split()[0],
                    Text(interval(estimate(one["leakage"]))), Text(points(estimate(one["memorization"]))),
                )  # fmt: skip
        table.add_section()
    return table
