"""The figures of a report, drawn from its content; each shows numbers that stand in ``report.json``
and in a table.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from wemem.metrics.registry import METRICS
from wemem.reporting.captions import Plate
from wemem.reporting.figure_groups import draw_classes, draw_deciles, draw_pairs, draw_selection, draw_times
from wemem.reporting.figure_style import (
    FAINT,
    GREY,
    NAME,
    Mark,
    arm_marks,
    blank,
    drawing,
    files,
    grid,
    marks,
    place_labels,
    short,
)
from wemem.results.curves import at_rate

Value = Mapping[str, Any]
#: Arms from which on intervals are drawn fainter.
CROWDED = 8
#: Inches.
WIDE = 7.2


def draw_all(chosen: Sequence[Plate], kinds: Sequence[str], folder: Path) -> dict[str, str]:
    """Draw figures, in every format.

    Args:
        chosen: the figures to draw.
        kinds: defense kinds in the order in which they get their colours.
        folder: the folder for the files.

    Returns:
        The SVG of each figure by name.

    Raises:
        InputError: a file cannot be written.
    """
    drawn, styles = {}, marks(kinds)
    for plate in chosen:
        with drawing(plate.name):
            drawn[plate.name] = files(plate.name, DRAW[plate.draw](plate.data, styles), folder)
    return drawn


def draw_one(plate: Plate, kinds: Sequence[str]) -> Figure:
    """Draw one figure, as :func:`draw_all` draws it into files."""
    with drawing(plate.name):
        return DRAW[plate.draw](plate.data, marks(kinds))


def draw_plane(panel: Value, kinds: Mapping[str, Mark]) -> Figure:
    """Accuracy against leakage: arms with both intervals and a number each, the front as stairs, a
    key beside it.
    """
    points = panel["points"]
    styles = arm_marks([(point["defense"], point["label"]) for point in points])
    figure = blank(WIDE, max(4.1, 0.22 * len(points) + 0.9))
    axes = figure.add_subplot()
    axes.set(xlabel="Test accuracy (%)", ylabel=f"{METRICS[panel['measure']].label}, strongest attack (%)")
    axes.set_title("better: right and down", loc="right", color=GREY, fontsize=8)
    axes.axhline(100 * panel["chance"], color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    along = axes.get_yaxis_transform()
    axes.text(1, 100 * panel["chance"], "chance", transform=along, ha="right", va="bottom", fontsize=7, color=GREY)
    _stairs(axes, [p for p in points if p["front"]], color=FAINT, linewidth=5, solid_capstyle="round", zorder=1)
    for point, mark in zip(points, styles, strict=True):
        _setting(axes, point, mark, 0.55 if len(points) <= CROWDED else 0.25)
    axes.set_xlim(window([point["accuracy"] for point in points]))
    axes.set_ylim(window([*(point["leakage"] for point in points), {"value": panel["chance"]}]))
    handles = [
        Line2D([], [], linestyle="", color=mark.colour, marker=mark.marker, markersize=6, markeredgewidth=1.3,
               markerfacecolor=mark.colour if point["front"] else "white")
        for point, mark in zip(points, styles, strict=True)
    ]  # fmt: skip
    names = [f"{number}  {short(point['label'], NAME)}" for number, point in enumerate(points, 1)]
    figure.legend(handles, names, loc="outside right center", fontsize=7.5, handletextpad=0.4, labelspacing=0.55)
    _number(axes, points)
    return figure


def _number(axes: Axes, points: Sequence[Value]) -> None:
    """The number of each arm beside its point, the front and the controls first; one without room
    stands on it.
    """
    at = {
        str(number): (100 * p["accuracy"]["value"], 100 * p["leakage"]["value"]) for number, p in enumerate(points, 1)
    }
    fronts = [str(number) for number, point in enumerate(points, 1) if point["front"]]
    order = [*fronts, *(number for number in at if number not in fronts)]
    for number in place_labels(axes, [(*at[number], number) for number in order]):
        axes.annotate(number, at[number], (3, 3), textcoords="offset points", fontsize=8, zorder=6)


def draw_curves(curves: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """ROC curves on logarithmic axes, one panel an arm, the undefended model's behind each."""
    figure, panels = grid(len(curves), 3, WIDE, 2.05)
    fewest = min(curve["nonmembers"] for curve in curves)
    plain = next((curve for curve in curves if curve["defense"] == "undefended"), None)
    for axes, curve in zip(panels, curves, strict=True):
        mark = kinds[curve["defense"]]
        x, y, low, high = _columns(curve["points"], "fpr", "tpr")
        axes.set(xscale="log", yscale="log", xlim=(100 / fewest, 100), ylim=(100 / fewest, 130))
        axes.plot([100 / fewest, 100], [100 / fewest, 100], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        if plain is not None and curve is not plain:
            before = _columns(plain["points"], "fpr", "tpr")
            axes.plot(before[0], before[1], color=GREY, linewidth=1, linestyle=(0, (4, 2)))
        axes.fill_between(x, low, high, color=mark.colour, alpha=0.22, linewidth=0)
        for i in range(curve["seeds"]):
            axes.plot(x, [100 * p["by_seed"][i] for p in curve["points"]], color=mark.colour, linewidth=0.5, alpha=0.7)
        axes.plot(x, y, color=mark.colour)
        axes.axvline(1, color=GREY, linewidth=0.6)
        text = short(curve["attack"], 20)
        if at := at_rate(curve["points"], 0.01):
            axes.plot(
                [100 * at["fpr"]],
                [100 * at["tpr"]["value"]],
                linestyle="",
                marker=mark.marker,
                color=mark.colour,
                markersize=5,
            )
            text = f"{100 * at['tpr']['value']:.1f} % at 1 %\n{text}"
        axes.text(0.96, 0.05, text, ha="right", transform=axes.transAxes, fontsize=7.5)
        axes.set_title(title(curve))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1, 10, 100]))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.supxlabel("False positive rate (%), logarithmic", fontsize=8.5)
    figure.supylabel("True positive rate (%), logarithmic", fontsize=8.5)
    return figure


def draw_accuracy_rounds(arms: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """Test accuracy after every pruning round."""
    return _draw_rounds(arms, kinds, "test_accuracy", "Test accuracy (%)")


def draw_leak_rounds(arms: Sequence[Value], kinds: Mapping[str, Mark]) -> Figure:
    """The confidence attack's AUC after every pruning round."""
    return _draw_rounds(arms, kinds, "confidence_auc", "AUC of the confidence attack (%)")


def title(arm: Value) -> str:
    """An arm's name in a figure."""
    return short(arm["label"])


def window(estimates: Sequence[Value]) -> tuple[float, float]:
    """Limits of an axis, in per cent: all values are in, and their intervals as far as they leave
    the values legible.

    >>> window([{"value": 0.5, "low": 0.49, "high": 0.51}, {"value": 0.6, "low": 0.0, "high": 1.0}])
    (43.0, 67.0)
    """
    values = [100 * one["value"] for one in estimates]
    room = 0.7 * max(max(values) - min(values), 5.0)
    ends = [100 * one[end] for one in estimates for end in ("low", "high") if one.get(end) is not None]
    low, high = min([*values, *ends]), max([*values, *ends])
    margin = 0.05 * (min(high, max(values) + room) - max(low, min(values) - room))
    return max(low - margin, min(values) - room), min(high + margin, max(values) + room)


def _draw_rounds(arms: Sequence[Value], kinds: Mapping[str, Mark], measure: str, words: str) -> Figure:
    figure, panels = grid(len(arms), 3, WIDE, 1.75)
    plain = next((arm for arm in arms if arm["defense"] == "undefended"), None)
    for axes, arm in zip(panels, arms, strict=True):
        mark = kinds[arm["defense"]]
        if plain is not None and arm is not plain:
            before = _columns(plain["rounds"], "round", measure)[1]
            axes.plot(range(len(before)), before, color=GREY, linewidth=1, linestyle=(0, (4, 2)))
        _, y, low, high = _columns(arm["rounds"], "round", measure)
        axes.vlines(range(len(y)), low, high, color=mark.colour, linewidth=0.8, alpha=0.55)
        axes.plot(range(len(y)), y, color=mark.colour, marker=mark.marker, markersize=4)
        axes.annotate(
            f"{y[-1]:.1f}", (len(y) - 1, y[-1]), (6, 0), textcoords="offset points", va="center", fontsize=7.5
        )
        axes.set_title(title(arm))
        axes.set_xticks(range(len(y)), [f"{100 * one['sparsity']:.0f}" for one in arm["rounds"]])
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlim(-0.3, len(y) - 0.2)
    panels[0].set_ylim(window([one[measure] for arm in arms for one in arm["rounds"]]))
    figure.supxlabel("Sparsity after each round (%)", fontsize=8.5)
    figure.supylabel(words, fontsize=8.5)
    return figure


def _setting(axes: Axes, point: Value, mark: Mark, strength: float) -> None:
    """A point with both intervals: filled on the overall front, hollow elsewhere."""
    x, y = point["accuracy"], point["leakage"]
    axes.errorbar(
        [100 * x["value"]], [100 * y["value"]],
        xerr=[[100 * (x["value"] - x["low"])], [100 * (x["high"] - x["value"])]],
        yerr=[[100 * (y["value"] - y["low"])], [100 * (y["high"] - y["value"])]],
        fmt="none", ecolor=mark.colour, elinewidth=0.8, alpha=strength, zorder=3,
    )  # fmt: skip
    axes.plot(
        [100 * x["value"]], [100 * y["value"]], linestyle="", marker=mark.marker, markersize=7,
            markeredgecolor=mark.colour,
        markerfacecolor=mark.colour if point["front"] else "white", markeredgewidth=1.4, zorder=4,
    )  # fmt: skip


def _stairs(axes: Axes, points: Sequence[Value], **style: Any) -> None:
    """A front as stairs; points left of and above them are dominated."""
    ordered = sorted((100 * p["accuracy"]["value"], 100 * p["leakage"]["value"]) for p in points)
    xs, ys = [x for x, _ in ordered], [y for _, y in ordered]
    axes.plot(xs, ys, drawstyle="steps-pre", **style)


def _columns(points: Sequence[Value], x: str, y: str) -> tuple[list[float], list[float], list[float], list[float]]:
    """Four lists from points: x, value, low and high, shares in per cent."""
    shares = [
        {"low": p[y]["value"], "high": p[y]["value"], **{k: v for k, v in p[y].items() if v is not None}}
        for p in points
    ]
    value, low, high = ([100 * share[end] for share in shares] for end in ("value", "low", "high"))
    return [100 * p[x] for p in points], value, low, high


DRAW: dict[str, Callable[[Any, Mapping[str, Mark]], Figure]] = {
    "plane": draw_plane,
    "curves": draw_curves,
    "accuracy_rounds": draw_accuracy_rounds,
    "leak_rounds": draw_leak_rounds,
    "deciles": draw_deciles,
    "classes": draw_classes,
    "times": draw_times,
    "selection": draw_selection,
    "pairs": draw_pairs,
}
