"""Which figures a report has, and what stands below each: what is drawn, in which units, from how many records, and the
finding in a sentence for those who do not see it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.render.exposure import FEW
from wemem.render.sections import FOLLOWED, Value
from wemem.render.table import METRICS
from wemem.render.wording import per_cent, printable


@dataclass(frozen=True, eq=False)
class Plate:
    """One figure of a report.

    Args:
        name: of its files.
        part: of the page that it belongs to.
        draw: which drawing, a key of ``figures.DRAW``.
        data: what is drawn, from the report's content.
        title: in a few words.
        caption: what is drawn, units, n and how to read it.
        finding: what it shows, in a sentence.
    """

    name: str
    part: str
    draw: str
    data: Any
    title: str
    caption: str
    finding: str


def plates(content: Mapping[str, Any]) -> list[Plate]:
    """The figures that a report's content supports, in the order of the page."""
    return [
        *_planes(content), *_curves(content), *_rounds(content), *_deciles(content), *_classes(content),
        *_times(content), *_selections(content), *_pairs(content),
    ]  # fmt: skip


def _planes(content: Mapping[str, Any]) -> Iterator[Plate]:
    several = len({panel["sparsity"] for panel in content["plane"]}) > 1
    for panel in content["plane"]:
        words, at = METRICS[panel["measure"]][0], per_cent(panel["sparsity"])
        pruned = [point for point in panel["points"] if point["defense"] != "dense"]
        least = min(pruned, key=lambda point: point["leakage"]["value"])
        ends = sorted((p for p in pruned if p["front"]), key=lambda p: p["accuracy"]["value"])
        yield Plate(
            f"plane-{panel['measure']}" + (f"-{panel['sparsity']:g}" if several else ""),
            "plane", "plane", panel, f"{words} against accuracy" + (f", {at} sparsity" if several else ""),
            f"Every setting of every defense at {at} sparsity: test accuracy (per cent, "
            f"{_least(content['headline'], 'test_records')} records a run) and {words} of the strongest attack (per cent, "
            f"{_records(content['headline'])}), with 95 % intervals, over {_seeds(panel['points'])}. Filled: on the front of "
            "all defenses (broad grey line), that is, no other setting is better in both; thin lines: each defense's own "
            f"front. Fronts are of the means. Dotted: chance, {per_cent(panel['chance'])}.",
            f"{_name(least)} leaks least, {_share(least['leakage'])} at {_share(least['accuracy'])} accuracy. The front runs "
            f"over {_and([_name(point) for point in ends])}.",
        )  # fmt: skip


def _curves(content: Mapping[str, Any]) -> Iterator[Plate]:
    shown = _shown(content, "roc")
    if not shown:
        return
    fewest = min(curve["nonmembers"] for curve in shown)
    unsupported = [per_cent(fpr) for fpr in (0.01, 0.001) if fewest * fpr < 1]
    several = any(curve["seeds"] > 1 for curve in shown)
    at = {id(curve): min(curve["points"], key=lambda point: abs(point["fpr"] - 0.01))["tpr"] for curve in shown}
    most, least = (pick(shown, key=lambda curve: at[id(curve)]["value"]) for pick in (max, min))
    yield Plate(
        "roc", "roc", "curves", shown, "How many are found at every false positive rate",
        "ROC curves of each arm's strongest attack by TPR at 1 % FPR, both axes logarithmic, in per cent. Bands: pointwise 95 %, "
        + ("Student's t over seeds" if several else "of the records, the threshold's own error included")
        + f". {_records(shown)}, {_seeds(shown)}. Grey dashes: undefended; dotted: chance; the mark is at 1 % FPR. The curves "
        f"begin at 1/n = {per_cent(1 / fewest)}, the smallest rate that {fewest:,} non-members can show"
        + (f"; they say nothing of {' and '.join(unsupported)}." if unsupported else "."),
        f"At 1 % FPR the strongest attack finds {_share(at[id(most)])} of the training records of {_name(most)}, the most, and "
        f"{_share(at[id(least)])} of {_name(least)}, the least.",
    )  # fmt: skip


def _rounds(content: Mapping[str, Any]) -> Iterator[Plate]:
    for measure, draw, words in (
        ("test_accuracy", "accuracy_rounds", "Test accuracy"),
        ("confidence_auc", "leak_rounds", "AUC of the confidence attack"),
    ):
        shown = [arm for arm in _shown(content, "rounds") if all(measure in one for one in arm["rounds"])]
        if not shown:
            continue
        plain = shown[0]
        first, last = (plain["rounds"][i][measure] for i in (0, -1))
        yield Plate(
            f"rounds-{measure}", "rounds", draw, shown, f"{words} along the pruning rounds",
            f"{words} (per cent) of the victim after each round, against the sparsity reached; {_seeds(shown)}. Bands: 95 % "
            "intervals where there are any. Grey dashes: undefended.",
            f"{_name(plain)} goes from {_share(first)} after the first round to {_share(last)} after the last.",
        )  # fmt: skip


def _deciles(content: Mapping[str, Any]) -> Iterator[Plate]:
    shown = _shown(content, "deciles")
    if not shown:
        return
    members = min(group["members"] for arm in shown for group in arm["groups"])
    arm = shown[0]
    low, high = (arm["groups"][i]["tpr"] for i in (0, -1))
    yield Plate(
        "deciles", "groups", "deciles", shown, "Who pays: by memorization",
        "Share of the training records found at the threshold that accuses at most 1 % of all non-members (per cent, 95 % "
        f"intervals), by tenth of the defender's memorization score; at least {members:,} records a tenth, {_seeds(shown)}. "
        "Numbers: the first and the last tenth. Grey dashes: undefended; dotted: chance." + _few(members),
        f"Under {_name(arm)} the attack finds {_share(high)} of the most memorized tenth and {_share(low)} of the least.",
    )  # fmt: skip


def _classes(content: Mapping[str, Any]) -> Iterator[Plate]:
    known = _shown(content, "classes")
    shown = [arm for arm in known if arm["defense"] == "undefended" or arm["label"] in content["comparisons"]["leaders"]]
    shown = (shown or known)[:3]
    if not shown or not shown[0]["groups"]:
        return
    groups = shown[0]["groups"]
    most, least = (pick(groups, key=lambda group: group["tpr"]["value"]) for pick in (max, min))
    fewest = min(group["members"] for group in groups)
    yield Plate(
        "classes", "groups", "classes", shown, "Who pays: by class",
        "Share of each class's training records found at the threshold that accuses at most 1 % of all non-members (per cent, "
        f"95 % intervals); {fewest:,} to {max(g['members'] for g in groups):,} records a class, {_seeds(shown)}. Shown: "
        f"undefended and the defenses that leak least; of many classes, those found most and least." + _few(fewest),
        f"Under {_name(shown[0])} class {most['group']} is found most, {_share(most['tpr'])} of its records, and class "
        f"{least['group']} least, {_share(least['tpr'])}.",
    )  # fmt: skip


def _times(content: Mapping[str, Any]) -> Iterator[Plate]:
    shown = [arm for arm in content["time"] if arm["defense"] != "dense" and arm.get("finetune_seconds", {"most": 0})["most"] > 0]
    if not shown:
        return
    slowest, fastest = (pick(shown, key=lambda arm: arm["finetune_seconds"]["mean"]) for pick in (max, min))
    yield Plate(
        "time", "time", "times", shown, "What each defense costs in time",
        f"Wall-clock seconds of fine-tuning a run (mean over {_seeds(shown)}; line: from least to most), and what comes on top "
        "once a seed: memorization scores and teachers, where a defense needs them. In brackets: fine-tuning seconds more or less "
        "than undefended, in the same study. Times depend on the machine.",
        f"{_name(slowest)} takes longest, {slowest['finetune_seconds']['mean']:.1f} s, and {_name(fastest)} shortest, "
        f"{fastest['finetune_seconds']['mean']:.1f} s.",
    )  # fmt: skip


def _selections(content: Mapping[str, Any]) -> Iterator[Plate]:
    for i, one in enumerate(content["selection"]):
        chosen = [candidate for candidate in one["candidates"] if candidate["chosen"]]
        floor = "" if one["floor"] is None else " Dashes: the accuracy that a setting must keep."
        yield Plate(
            "selection" + (f"-{i + 1}" if len(content["selection"]) > 1 else ""), "selection", "selection", one,
            "How the settings were chosen",
            f"Accuracy and the attack's AUC on dev data (per cent) of {len(one['candidates'])} candidate settings. Filled and "
            f"named: chosen, by one rule for every defense.{floor} Test data played no part.",
            f"Chosen of {len(one['candidates'])} candidates: {_and([printable(c['label']) for c in chosen]) or 'none'}.",
        )  # fmt: skip


def _pairs(content: Mapping[str, Any]) -> Iterator[Plate]:
    for i, leader in enumerate(content["comparisons"]["leaders"]):
        own = [pair for pair in content["comparisons"]["pairs"] if pair["defense"] == leader]
        if not any(gap["low"] is not None for pair in own for gap in (pair["accuracy"], *pair["leakage"].values())):
            continue
        shown = [pair for pair in own if any(gap["shown"] and gap["value"] < 0 for gap in pair["leakage"].values())]
        yield Plate(
            f"pairs-{i + 1}", "pairs", "pairs", own, f"{printable(leader)} against each of the others",
            f"Differences in percentage points, paired by seed, with 95 % intervals (Student's t, {len(own[0]['seeds'])} seeds). "
            "Left of 0: less leakage, or less accuracy. Filled and strong: the interval excludes 0.",
            f"{printable(leader)} leaks less than {len(shown)} of {len(own)} others by at least one of the two measures, with an "
            "interval that excludes 0.",
        )  # fmt: skip


def _shown(content: Mapping[str, Any], part: str) -> list[Value]:
    """The featured arms that a part has, in the order in which they are featured."""
    by_name = {(arm["label"], arm["sparsity"]): arm for arm in content[part]}
    keys = [(arm["label"], arm["sparsity"]) for arm in content["featured"]]
    return [by_name[key] for key in keys if key in by_name]


def _few(members: int) -> str:
    return f" Groups of fewer than {FEW} are too small to rank: mind their intervals." if members < FEW else ""


def _records(rows: Sequence[Value]) -> str:
    return f"{_least(rows, 'members')} members and {_least(rows, 'nonmembers')} non-members a run"


def _least(rows: Sequence[Value], count: str) -> str:
    known = [row[count] for row in rows if count in row]
    return f"{min(known):,}" if known else "no"


def _seeds(rows: Sequence[Value]) -> str:
    counts = sorted({row["seeds"] for row in rows})
    return "one seed" if counts == [1] else f"{' to '.join(str(c) for c in dict.fromkeys((counts[0], counts[-1])))} seeds"


def _name(arm: Value) -> str:
    return printable(arm["label"])


def _share(estimate: Value) -> str:
    return f"{100 * estimate['value']:.1f} %"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
