"""Figures of groups, times, choices and pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from wemem.metrics.registry import LOW_FPR, METRICS, metrics_for
from wemem.reporting.figure_style import GREY, INK, Mark, blank, grid, place_labels, short
from wemem.results.curves import FEW

Value = Mapping[str, Any]
#: Classes of which each has a place; of more, those found most and those found least.
CLASSES = 40
WIDE = 7.2
#: What takes time, and how it is drawn: fine-tuning is filled, the rest hatched.
PARTS = {
    "finetune_seconds": ("fine-tuning", ""),
    "scores_seconds": ("memorization scores", "//"),
    "teachers_seconds": ("teachers", "xx"),
}


def draw_deciles(arms: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """TPR by decile of memorization, one panel an arm, the undefended model's behind each."""
    figure, panels = grid(len(arms), 3, WIDE, 1.85)
    plain = next((arm for arm in arms if arm["defense"] == "undefended"), None)
    for axes, arm in zip(panels, arms, strict=True):
        mark = kinds[arm["defense"]]
        if plain is not None and arm is not plain:
            axes.plot(*_values(plain["groups"]), color=GREY, linewidth=1, linestyle=(0, (4, 2)))
        x, y = _values(arm["groups"])
        axes.errorbar(
            x, y, yerr=_reach(arm["groups"]), color=mark.colour, marker=mark.marker, markersize=4, elinewidth=0.9
        )
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(f"{y[-1]:.0f}", (10, y[-1]), (6, 0), textcoords="offset points", va="center", fontsize=7.5)
        axes.annotate(
            f"{y[0]:.0f}", (1, y[0]), (-6, 0), textcoords="offset points", va="center", ha="right", fontsize=7.5
        )
        axes.set_title(short(arm["label"]))
        axes.set(xticks=[1, 4, 7, 10], xlim=(-0.6, 11.6))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("Decile of the training records by memorization (1 least, 10 most)", fontsize=8.5)
    figure.supylabel(f"{METRICS[LOW_FPR].label} (%)", fontsize=8.5)
    return figure


def draw_classes(arms: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """TPR by class, classes from the one found most on the first arm to the one found least; few
    members are hollow.
    """
    figure = blank(WIDE, 3.3)
    axes = figure.add_subplot()
    order = [group["group"] for group in sorted(arms[0]["groups"], key=lambda group: -group["tpr"]["value"])]
    if len(order) > CLASSES:
        order = [*order[: CLASSES // 2], *order[-(CLASSES // 2) :]]
    for i, arm in enumerate(arms):
        mark, shift = kinds[arm["defense"]], 0.24 * (i - (len(arms) - 1) / 2)
        by_class = {group["group"]: group for group in arm["groups"]}
        for place, name in enumerate(order):
            if name in by_class:
                group = by_class[name]
                axes.errorbar(
                    [place + shift], [100 * group["tpr"]["value"]], yerr=_reach([group]), color=mark.colour,
                    marker=mark.marker, markersize=4.5, elinewidth=0.8,
                    markerfacecolor="white" if group["members"] < FEW else mark.colour,
                )  # fmt: skip
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_xticks(range(len(order)), [str(name) for name in order], fontsize=7)
    axes.set(
        xlabel="Class, by how much of it is found",
        ylabel=f"{METRICS[LOW_FPR].label} (%)",
        xlim=(-0.8, len(order) - 0.2),
    )
    axes.grid(visible=False, axis="x")
    handles = [
        Line2D([], [], color=kinds[a["defense"]].colour, marker=kinds[a["defense"]].marker, markersize=5) for a in arms
    ]
    axes.legend(handles, [f" {short(arm['label'])}" for arm in arms], loc="upper right", ncols=len(arms))
    return figure


def draw_times(arms: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """Seconds of every part, stacked, with the range over seeds of the fine-tuning."""
    figure = blank(WIDE, 0.7 + 0.27 * len(arms))
    axes = figure.add_subplot()
    labels = []
    for place, arm in enumerate(arms):
        left = 0.0
        for part, (_, hatch) in PARTS.items():
            seconds = arm.get(part, {"mean": 0.0})["mean"]
            if not seconds:
                continue
            colour = kinds[arm["defense"]].colour
            axes.barh(
                place,
                seconds,
                left=left,
                height=0.62,
                facecolor="white" if hatch else colour,
                edgecolor=colour,
                hatch=hatch,
                alpha=0.85,
            )
            left += seconds
        whole = arm["finetune_seconds"]
        axes.plot([whole["least"], whole["most"]], [place, place], color=INK, linewidth=1)
        more = arm.get("defense_overhead_seconds")
        text = f"{whole['mean']:.1f} s" + (
            "" if more is None or arm["defense"] == "undefended" else f"  ({more['mean']:+.1f})"
        )
        label = axes.annotate(
            text, (max(left, whole["most"]), place), (4, 0), textcoords="offset points", va="center", fontsize=7.5
        )
        label.set_in_layout(False)
        labels.append(label)
    axes.set_yticks(range(len(arms)), [short(arm["label"]) for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set(xlabel="Seconds a run")
    axes.grid(visible=False, axis="y")
    used = [
        (words, hatch)
        for part, (words, hatch) in PARTS.items()
        if any(arm.get(part, {"mean": 0})["mean"] for arm in arms)
    ]
    if len(used) > 1:
        patches = [Patch(facecolor="white" if hatch else GREY, edgecolor=GREY, hatch=hatch) for _, hatch in used]
        axes.legend(patches, [words for words, _ in used], loc="lower left", bbox_to_anchor=(0, 1), ncols=len(used))
    # as far to the right as the label takes that would reach farthest
    figure.draw_without_rendering()
    room = axes.get_window_extent().width
    gap = 14 * figure.dpi / 72
    axes.set_xlim(0, max(label.xy[0] / (1 - (label.get_window_extent().width + gap) / room) for label in labels))
    return figure


def draw_selection(chosen: Value, kinds: Mapping[str, Mark]) -> Figure:
    """Candidates by accuracy and leak on dev data; what was chosen is filled and named."""
    figure = blank(WIDE, 4.2)
    axes = figure.add_subplot()
    known = {**{kind: Mark(GREY, "o", "-") for kind in {c["kind"] for c in chosen["candidates"]}}, **kinds}
    for one in sorted(chosen["candidates"], key=lambda c: c["chosen"]):
        mark = known[one["kind"]]
        fill, strength = (mark.colour, 1.0) if one["chosen"] else ("white", 0.75)
        axes.plot(
            [100 * one["dev_accuracy"]], [100 * one["dev_auc"]], linestyle="", marker=mark.marker, markersize=7,
            markeredgecolor=mark.colour,
            markerfacecolor=fill, markeredgewidth=1.3, alpha=strength,
        )  # fmt: skip
    axes.axvline(100 * chosen["floor"], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set(xlabel="Accuracy on dev data (%)", ylabel="AUC of confidence, training against dev (%)")
    axes.margins(0.08)
    named = [
        (100 * c["dev_accuracy"], 100 * c["dev_auc"], short(c["label"])) for c in chosen["candidates"] if c["chosen"]
    ]
    place_labels(axes, named)
    return figure


def draw_pairs(pairs: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """One leader less each rival, with paired intervals; an interval that excludes 0 is drawn
    strong.
    """
    figure = blank(WIDE, 0.9 + 0.25 * len(pairs))
    gaps = [{**pair["leakage"], "accuracy": pair["accuracy"]} for pair in pairs]
    labels = {**{metric.name: metric.label for metric in metrics_for("headline")}, "accuracy": "Test accuracy"}
    measures = {measure: label for measure, label in labels.items() if any(measure in one for one in gaps)}
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for column, (measure, words) in zip(axes, measures.items(), strict=True):
        column.axvline(0, color=GREY, linewidth=0.9)
        for place, one in enumerate(gaps):
            if measure not in one:
                continue
            gap = one[measure]
            strong = gap["shown"]
            if gap["low"] is not None:
                column.plot(
                    [100 * gap["low"], 100 * gap["high"]], [place, place], color=INK, linewidth=1.6 if strong else 0.8
                )
            column.plot(
                [100 * gap["value"]], [place], "o", color=INK, markersize=5, markerfacecolor=INK if strong else "white"
            )
        column.set_title(words)
        column.grid(visible=False, axis="y")
        column.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].set_yticks(range(len(pairs)), [short(pair["rival"]) for pair in pairs])
    axes[0].set_ylim(len(pairs) - 0.5, -0.5)
    figure.supxlabel(f"{short(pairs[0]['defense'])} less the other (points)", fontsize=8.5)
    return figure


def _values(groups: Sequence[Value]) -> tuple[list[int], list[float]]:
    return [group["group"] for group in groups], [100 * group["tpr"]["value"] for group in groups]


def _reach(groups: Sequence[Value]) -> tuple[list[float], list[float]]:
    """Reach of the intervals below and above their values."""
    shares = [group["tpr"] for group in groups]
    return [100 * (t["value"] - t["low"]) for t in shares], [100 * (t["high"] - t["value"]) for t in shares]
