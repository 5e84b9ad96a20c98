"""The tables that end a run on the console: every attack, and accuracy beside the strongest of
them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wemem.metrics.rates import mean_fpr
from wemem.metrics.registry import Metric, metrics_for
from wemem.reporting.breakable import Name
from wemem.reporting.canaries import READING, canary_table
from wemem.results.arms import Arm, arms, audits_of
from wemem.results.blind import ROW, blind_estimate
from wemem.results.wording import interval, per_cent, printable

#: Mean true FPR over the stated one from which readers are warned.
COARSE = 1.25


def results_table(results: Mapping[str, Any]) -> Group:
    """All attacks, then one row per defense and sparsity, then how to read them; for 80 columns and
    more.

    What most people want stands last, where a terminal shows it.

    Args:
        results: the content of ``results.json``.
    """
    rows = arms(results)
    parts: list[RenderableType] = []
    if any(arm.attacks for arm in rows):
        parts += [attack_table(rows, results), Text()]
    if (canaries := canary_table(rows)) is not None:
        parts += [canaries, Text(READING, "dim"), Text()]
    return Group(*parts, accuracy_table(rows), Text(), *(Text(note, "dim") for note in _notes(rows)))


def attack_table(rows: Sequence[Arm], results: Mapping[str, Any]) -> Table:
    """One row an attack, below a line that names the arm; then the blind baseline, and chance.

    Args:
        rows: the arms.
        results: the content of ``results.json``, for the blind baseline.
    """
    table = _table("Attacks")
    heading = ("Defense, sparsity", "  Attack")
    metrics = metrics_for("table", audits_of(rows))
    blind = [blind_estimate(results, metric.name) for metric in metrics]
    names = [f"  {_marked(arm, attack)}" for arm in rows for attack in arm.attacks]
    titles = [f"{printable(arm.label)}, {per_cent(arm.sparsity)}" for arm in rows]
    shown = [*heading, *map(printable, names), *titles, *([ROW] if any(blind) else [])]
    table.add_column("\n".join(heading), overflow="fold", width=_room(shown, 22))
    for metric in metrics:
        table.add_column(metric.label, overflow="fold")
    for arm, title in zip(rows, titles, strict=True):
        if arm.attacks:
            table.add_row(Name(title, "bold"))
        for attack in arm.attacks:
            values = [Text(interval(arm.measure(attack, metric.name))) for metric in metrics]
            table.add_row(Name(_marked(arm, attack), indent=2), *values)
        table.add_section()
    if any(blind):
        table.add_row(ROW, *(Text("-" if one is None else interval(one)) for one in blind), style="dim")
    table.add_row("chance", *_chance(metrics), style="dim")
    return table


def accuracy_table(rows: Sequence[Arm]) -> Table:
    """One row an arm: what it does to accuracy, the strongest attack by each measure, and its time."""
    metrics = metrics_for("headline", audits_of(rows)) if any(arm.attacks for arm in rows) else []
    table = _table("Accuracy and the strongest attack" if metrics else "Accuracy")
    names = [text for arm in rows for text in (printable(arm.label), _sparsity(arm))]
    table.add_column("Defense", overflow="fold", width=_room(names, 15))
    table.add_column("Test accuracy", overflow="fold")
    for metric in metrics:
        table.add_column(metric.label, overflow="fold")
    table.add_column("Seconds", justify="right", overflow="fold")
    for arm in rows:
        strongest = [_strongest(arm, metric.name) for metric in metrics]
        table.add_row(_title(arm), Text(interval(arm.accuracy())), *strongest, _seconds(arm))
    if metrics:
        table.add_section()
        table.add_row("chance", "", *(_chance_of_strongest(rows, metric) for metric in metrics), style="dim")
    return table


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip


def _room(names: Sequence[str], most: int) -> int:
    """Columns for the longest name; what is longer than ``most`` folds, and the numbers keep their
    room.
    """
    return min(most, max(cell_len(name) for name in names))


def _title(arm: Arm) -> Group:
    return Group(Name(arm.label, "bold"), Text(_sparsity(arm)))


def _sparsity(arm: Arm) -> str:
    return f"{per_cent(arm.sparsity)} pruned" if arm.sparsity else "unpruned"


def _marked(arm: Arm, attack: str) -> str:
    return attack + ("" if arm.adaptive(attack) else " (not adaptive)")


def _strongest(arm: Arm, metric: str) -> RenderableType:
    if not arm.attacks:
        return Text("-")
    attack, estimate = arm.strongest(metric)
    return Group(Text(interval(estimate)), Name(_marked(arm, attack), "dim"))


def _seconds(arm: Arm) -> Text:
    """Fine-tuning, and below it the difference to undefended fine-tuning."""
    seconds, more = arm.seconds("finetune"), arm.seconds("defense_overhead")
    below = "" if more is None else f"\n{more:+.1f}"
    return Text.assemble("-" if seconds is None else f"{seconds:.1f}", (below, "dim"))


def _chance_of_strongest(rows: Sequence[Arm], metric: Metric) -> Text:
    """Its mean over arms, and the highest upper end."""
    known = [chance for arm in rows if arm.attacks and (chance := arm.chance(metric.name)) is not None]
    if not known:
        return Text(f"{100 * metric.chance:.1f}")
    expected, high = sum(one.expected for one in known) / len(known), max(one.high for one in known)
    return Text(f"{100 * expected:.1f}\n[to {100 * high:.1f}]")


def _chance(metrics: Iterable[Metric]) -> list[str]:
    return [f"{100 * metric.chance:.1f}" for metric in metrics]


def _notes(rows: Sequence[Arm]) -> list[str]:
    """Notes on the measurement and on reading the tables."""
    records = _span(run["accuracy"]["test_records"] for arm in rows for run in arm.runs)
    notes = [
        f"Values are per cent with 95 % intervals: {_over(rows)}.",
        f"Test accuracy is that on {records} records a run. Seconds are those of fine-tuning a run; below them, how "
        f"many more (+) or fewer (-) than without a defense{_on_teachers(rows)}.",
    ]
    audits = audits_of(rows)
    if not audits:
        return [*notes, "No attack was run, so leakage was not measured."]
    return [*notes, _on_choice(rows), _on_support(audits), _on_adversary(rows, audits)]


def _on_teachers(rows: Sequence[Arm]) -> str:
    """Seconds of teachers, where an arm has some: they are trained before fine-tuning and are no
    part of it.
    """
    teacher_log_probs = [
        f"{seconds:.1f} for {printable(arm.label)}" for arm in rows if (seconds := arm.seconds("teachers"))
    ]
    return f", training of teachers included ({', '.join(teacher_log_probs)})" if teacher_log_probs else ""


def _over(rows: Sequence[Arm]) -> str:
    seeds = {len(arm.runs) for arm in rows}
    if seeds <= {1}:
        return "one seed, so they cover other records and not another training run"
    alone = "; with a single seed, over its records" if 1 in seeds else ""
    return f"mean and Student's t over {_span(seeds - {1})} seeds{alone} (where all seeds agree, over the records)"


def _on_choice(rows: Sequence[Arm]) -> str:
    attacks = max(len(arm.attacks) for arm in rows)
    widened = f"; its interval is widened for having been chosen among {attacks}" if attacks > 1 else ""
    return (
        f"Below a value stands the attack that is strongest by it{widened}. Chance is what the strongest attack "
        "reaches on models that leak nothing: on average and, in brackets, at most on 97.5 % of them. Only a value "
        "above that shows a leak. The paper compares defenses by balanced accuracy."
    )


def _on_support(audits: Sequence[Mapping[str, Any]]) -> str:
    members, nonmembers = _span(a["members"] for a in audits), _span(a["nonmembers"] for a in audits)
    smallest = max(a["smallest_fpr"] for a in audits)
    below = [per_cent(m.fpr) for m in metrics_for("table", audits) if m.fpr is not None and smallest > m.fpr]
    beyond = f": {' and '.join(below)} is below that and stands for no false positive at all" if below else ""
    return (
        f"Each attack scores {members} members and {nonmembers} non-members a run. "
        f"The smallest FPR they support is {per_cent(smallest)}{beyond}.{_on_true_fpr(audits)}"
    )


def _on_true_fpr(audits: Sequence[Mapping[str, Any]]) -> str:
    """The mean true FPR of thresholds from so few non-members that it is well above the stated one."""
    rates = [m.fpr for m in metrics_for("table", audits) if m.fpr is not None]
    coarse = {
        rate: worst
        for rate in rates
        if (worst := max((mean_fpr(a["nonmembers"], rate) for a in audits if a["nonmembers"] * rate >= 1), default=0))
        > COARSE * rate
    }
    return "".join(
        f" So few non-members place the threshold at {per_cent(rate)} FPR where {per_cent(worst)} of further ones pass "
        "on average: the TPR there errs high."
        for rate, worst in coarse.items()
    )


def _on_adversary(rows: Sequence[Arm], audits: Sequence[Mapping[str, Any]]) -> str:
    """The attacks whose models were trained as the attacked one was."""
    models = _span(a["reference_models"] for a in audits)
    adaptive = [arm.adaptive(attack) for arm in rows for attack in arm.attacks]
    which = "all are" if all(adaptive) else "all are but those marked" if any(adaptive) else "none is"
    return (
        f"The adversary has {models} models of its own. An attack is adaptive if they were trained exactly as "
        f"the attacked one: {which}."
    )


def _span(counts: Iterable[int]) -> str:
    """Counts as one number, or from the lowest to the highest.

    >>> _span([5, 5]), _span([5, 1600])
    ('5', '5 to 1,600')
    """
    known = list(counts)
    low, high = min(known, default=0), max(known, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
