"""The figures of a report and their captions: units, number of records, and the finding in a
sentence for readers who do not see the figure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.metrics.registry import METRICS, fprs
from wemem.reporting.content import Value
from wemem.results.arms import CONTROLS
from wemem.results.curves import FEW, at_rate
from wemem.results.wording import per_cent, printable


@dataclass(frozen=True, eq=False)
class Plate:
    """One figure of a report.

    Args:
        name: the stem of its files.
        part: the part of the page to which it belongs.
        draw: the drawing function, a key of ``figures.DRAW``.
        data: the part of the report's content that is drawn.
        title: a few words.
        caption: quantities, units, number of records, and how to read the figure.
        finding: the result in one sentence.
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
    tested = _least(content["headline"], "test_records")
    for panel in content["plane"]:
        words = METRICS[panel["measure"]].label
        pruned = [point for point in panel["points"] if point["defense"] not in CONTROLS]
        least = min(pruned, key=lambda point: point["leakage"]["value"])
        ends = sorted((p for p in pruned if p["front"]), key=lambda p: p["accuracy"]["value"])
        yield Plate(
            name=f"plane-{panel['measure']}" + (f"-{panel['sparsity']:g}" if several else ""),
            part="plane",
            draw="plane",
            data=panel,
            title=f"{words} against test accuracy" + (f", {per_cent(panel['sparsity'])} sparsity" if several else ""),
            caption=(
                f"Per cent with 95 % intervals, {_seeds(panel['points'])}: {words} of the strongest attack "
                f"({_records(content['headline'])}) against accuracy on {tested} test records. The numbers are those "
                "of the key. Filled marks, on the grey stairs, are beaten by no other arm in both measures; hollow "
                "ones are. Dotted: what the strongest attack reaches on models that leak nothing, "
                f"{per_cent(panel['chance'])} on average. Intervals may leave the figure; the table has their ends."
            ),
            finding=(
                f"{_name(least)} leaks least, {_share(least['leakage'])} at {_share(least['accuracy'])} test accuracy; "
                f"beaten by none in both measures: {_and([_name(point) for point in ends])}."
            ),
        )


def _curves(content: Mapping[str, Any]) -> Iterator[Plate]:
    shown = _shown(content, "roc")
    if not shown:
        return
    fewest = min(curve["nonmembers"] for curve in shown)
    beyond = [per_cent(fpr) for fpr in fprs() if fewest * fpr < 1]
    lines = "; thin lines: single seeds" if any(curve["seeds"] > 1 for curve in shown) else ""
    yield Plate(
        name="roc",
        part="roc",
        draw="curves",
        data=shown,
        title="True positive rate at every false positive rate",
        caption=(
            "ROC curves of the attack on each arm that is strongest by TPR at 1 % FPR, in per cent, both axes "
            "logarithmic. Bands: 95 % intervals at each rate, for other records; the error of the threshold is "
            f"included{lines}. {_records(shown)}, {_seeds(shown)}. Grey dashes: undefended; dotted: chance; the mark "
            f"is at 1 % FPR. The curves begin at 1/n = {per_cent(1 / fewest)}, the smallest rate that {fewest:,} "
            "non-members can show" + (f"; they cannot show {' and '.join(beyond)}." if beyond else ".")
        ),
        finding=_extremes_of(shown, 0.01 if fewest >= 100 else 0.1),
    )


def _extremes_of(curves: Sequence[Value], fpr: float) -> str:
    """The arms of which most and least training records are found at a rate."""
    at_limit = [(point["tpr"], curve) for curve in curves if (point := at_rate(curve["points"], fpr))]
    if not at_limit:
        return "There are too few non-members for a curve."
    (high, most), (low, least) = (pick(at_limit, key=lambda one: one[0]["value"]) for pick in (max, min))
    return (
        f"At {per_cent(fpr)} FPR the strongest attack finds {_share(high)} of the training records of {_name(most)}, "
        f"the most, and {_share(low)} of {_name(least)}, the least."
    )


def _rounds(content: Mapping[str, Any]) -> Iterator[Plate]:
    for measure, draw, words in (
        ("test_accuracy", "accuracy_rounds", "Test accuracy"),
        ("confidence_auc", "leak_rounds", "AUC of the confidence attack"),
    ):
        shown = [arm for arm in _shown(content, "rounds") if all(measure in one for one in arm["rounds"])]
        if not shown:
            continue
        first, last = (shown[0]["rounds"][i][measure] for i in (0, -1))
        yield Plate(
            name=f"rounds-{measure}",
            part="rounds",
            draw=draw,
            data=shown,
            title=f"{words} along the pruning rounds",
            caption=(
                f"{words} (per cent) after each round, against the sparsity reached; {_seeds(shown)}. Lines: 95 % "
                "intervals where there are any; they may leave the picture. The number is that of the last round. Grey "
                "dashes: undefended."
            ),
            finding=(
                f"{_name(shown[0])} goes from {_share(first)} after the first round to {_share(last)} after the last."
            ),
        )


def _deciles(content: Mapping[str, Any]) -> Iterator[Plate]:
    shown = _shown(content, "deciles")
    if not shown:
        return
    members = min(group["members"] for arm in shown for group in arm["groups"])
    low, high = (shown[0]["groups"][i]["tpr"] for i in (0, -1))
    yield Plate(
        name="deciles",
        part="groups",
        draw="deciles",
        data=shown,
        title="Members found, by memorization",
        caption=(
            "Share of the training records found at 1 % FPR, by decile of the defender's memorization score (per cent, "
            f"95 % intervals for other records); at least {members:,} records a decile over {_seeds(shown)}. One "
            "threshold for all deciles: it takes at most 1 % of all non-members for members. Numbers: the first and "
            f"the last decile. Grey dashes: undefended; dotted: chance.{_few(members)}"
        ),
        finding=(
            f"Under {_name(shown[0])} the attack finds {_share(high)} of the most memorized decile and {_share(low)} "
            "of the least memorized."
        ),
    )


def _classes(content: Mapping[str, Any]) -> Iterator[Plate]:
    known = _shown(content, "classes")
    leaders = content["comparisons"]["leaders"]
    shown = [arm for arm in known if arm["defense"] == "undefended" or arm["label"] in leaders] or known[:1]
    if not shown or not shown[0]["groups"]:
        return
    groups = shown[0]["groups"]
    most, least = (pick(groups, key=lambda group: group["tpr"]["value"]) for pick in (max, min))
    fewest, many = (pick(group["members"] for group in groups) for pick in (min, max))
    yield Plate(
        name="classes",
        part="groups",
        draw="classes",
        data=shown,
        title="Members found, by class",
        caption=(
            "Share of each class's training records found at 1 % FPR (per cent, 95 % intervals for other records); "
            f"{fewest:,} to {many:,} records a class over {_seeds(shown)}. One threshold for all classes: it takes at "
            "most 1 % of all non-members for members. Shown: undefended and the arms that leak least; of many classes, "
            f"those of which most and least are found.{_few(fewest)}"
        ),
        finding=(
            f"Under {_name(shown[0])} most is found of class {most['group']}, {_share(most['tpr'])} of its records, "
            f"and least of class {least['group']}, {_share(least['tpr'])}."
        ),
    )


def _times(content: Mapping[str, Any]) -> Iterator[Plate]:
    timed = [arm for arm in content["time"] if arm["defense"] != "dense" and "finetune_seconds" in arm]
    shown = [arm for arm in timed if arm["finetune_seconds"]["most"] > 0]
    if not shown:
        return
    slowest, fastest = (pick(shown, key=lambda arm: arm["finetune_seconds"]["mean"]) for pick in (max, min))
    yield Plate(
        name="time",
        part="time",
        draw="times",
        data=shown,
        title="Time that each defense takes",
        caption=(
            f"Wall-clock seconds of fine-tuning a run (mean over {_seeds(shown)}; line: from least to most), and of "
            "what is needed once a seed: memorization scores and teachers. Beside the bar: fine-tuning, and in "
            "brackets the difference to undefended in the same study, teachers included. Times depend on the machine."
        ),
        finding=(
            f"{_name(slowest)} fine-tunes longest, {slowest['finetune_seconds']['mean']:.1f} s, and {_name(fastest)} "
            f"shortest, {fastest['finetune_seconds']['mean']:.1f} s."
        ),
    )


def _selections(content: Mapping[str, Any]) -> Iterator[Plate]:
    several = len(content["selection"]) > 1
    for i, one in enumerate(content["selection"]):
        chosen = [printable(candidate["label"]) for candidate in one["candidates"] if candidate["chosen"]]
        count = len(one["candidates"])
        yield Plate(
            name="selection" + (f"-{i + 1}" if several else ""),
            part="selection",
            draw="selection",
            data=one,
            title="How the settings were chosen",
            caption=(
                f"{count} candidate settings: accuracy on dev records, and AUC of the victim's confidence in the true "
                "class, training against dev records (per cent, means over seeds). Filled and named: chosen, by one "
                "rule for every defense. Dashes: the accuracy that a setting must keep. Neither attacks nor test "
                "records played a part."
            ),
            finding=f"Chosen of {count} candidates: {_and(chosen) or 'none'}.",
        )


def _pairs(content: Mapping[str, Any]) -> Iterator[Plate]:
    for i, leader in enumerate(content["comparisons"]["leaders"]):
        pairs = [pair for pair in content["comparisons"]["pairs"] if pair["defense"] == leader]
        if not any(gap["low"] is not None for pair in pairs for gap in (pair["accuracy"], *pair["leakage"].values())):
            continue
        less = [pair for pair in pairs if any(gap["shown"] and gap["value"] < 0 for gap in pair["leakage"].values())]
        yield Plate(
            name=f"pairs-{i + 1}",
            part="pairs",
            draw="pairs",
            data=pairs,
            title=f"{printable(leader)} against each of the others",
            caption=(
                f"Differences in percentage points with 95 % intervals, paired by {_paired_by(pairs)}. Left of 0: less "
                "leakage, or less accuracy. Filled and strong: shown beside all other pairs (Holm's rule at 5 % a "
                "measure)." + (" Pairs with the defense above are not repeated." if i else "")
            ),
            finding=(
                f"{printable(leader)} leaks less than {len(less)} of {len(pairs)} others, shown by at least one "
                "measure."
            ),
        )


def _paired_by(pairs: Sequence[Value]) -> str:
    """The unit by which differences are paired, with the number of pairs."""
    gaps = [gap for pair in pairs for gap in (pair["accuracy"], *pair["leakage"].values())]
    words = {"targets": "leave-one-out target and record", "seeds": "seed"}
    counts = {basis: max(gap["pairs"] for gap in gaps if gap["paired_by"] == basis) for basis in words
              if any(gap["paired_by"] == basis for gap in gaps)}  # fmt: skip
    units = {"targets": "targets", "seeds": "seeds"}
    return " or ".join(f"{words[basis]} ({count} {units[basis]})" for basis, count in counts.items())


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
    return (
        "one seed" if counts == [1] else f"{' to '.join(str(c) for c in dict.fromkeys((counts[0], counts[-1])))} seeds"
    )


def _name(arm: Value) -> str:
    return printable(arm["label"])


def _share(estimate: Value) -> str:
    return f"{100 * estimate['value']:.1f} %"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
