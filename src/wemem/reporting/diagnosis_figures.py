"""The figures of a diagnosis. Lines differ in dash and marker as well as in shade, so that they can
be read in grey.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wemem.files.atomic import write_atomically
from wemem.reporting.diagnosis import ARMS, EFFECTS, GROUPS, estimate, measured

#: Dash, marker and shade of a line.
Style = tuple[str, str, str]
CONTROLLED: Mapping[tuple[str, str], Style] = {
    ("reused", "high"): ("-", "s", "#7a1f1f"),
    ("reused", "low"): ("-", "o", "#1f4e79"),
    ("fresh", "high"): ("--", "s", "#c46a5a"),
    ("fresh", "low"): ("--", "o", "#6fa0c8"),
}
ORDINARY: Mapping[str, Style] = {
    "iterative": ("-", "o", "#1f4e79"),
    "one_shot": ("--", "s", "#7a1f1f"),
    "unpruned": (":", "^", "#3d3d3d"),
    "as_run": ("-.", "D", "#8a8a8a"),
}
MEASURES = {"leakage": "Leakage, within-record AUC (%)", "memorization": "Memorization (points of probability)"}


def write_figures(diagnosis: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every figure as PNG and SVG; the same diagnosis gives the same SVG bytes.

    Args:
        diagnosis: the content of ``diagnosis.json``.
        folder: the folder, created if missing.

    Returns:
        The SVG files, in the order of the page.
    """
    written = []
    with mpl.rc_context(
        {"svg.hashsalt": "wemem", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        for name, draw in FIGURES.items():
            figure = draw(diagnosis)
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                path = folder / f"{name}.{kind}"
                write_atomically(path, _saving(figure, kind, metadata))
            written.append(path)
    return written


def _saving(figure: Figure, kind: str, metadata: Mapping[str, None]) -> Callable[[Path], None]:
    return lambda part: figure.savefig(part, format=kind, dpi=160, metadata=dict(metadata))


def effects_figure(diagnosis: Mapping[str, Any]) -> Figure:
    """The three effects with the smallest one that matters."""
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes, relevant = figure.add_subplot(), 100 * diagnosis["settings"]["relevant"]
    effects = diagnosis["scenario"]["effects"]
    for row, effect in enumerate(effects):
        interval = estimate(effect)
        reach = [[100 * (interval.value - interval.low)], [100 * (interval.high - interval.value)]]
        filled = "black" if effect["decision"] == "counts" else "white"
        axes.errorbar([100 * interval.value], [row], xerr=reach, fmt="o", color="black", mfc=filled, capsize=4)
    axes.axvline(0, color="grey", lw=0.8)
    axes.axvline(relevant, color="grey", lw=0.8, ls="--")
    axes.annotate(f" {relevant:g} points", (relevant, -0.62), color="dimgrey", fontsize=8)
    axes.set_yticks(range(len(effects)), [EFFECTS[effect["name"]] for effect in effects])
    axes.set_ylim(len(effects) - 0.5, -0.85)
    axes.set_xlabel("Effect on leakage (points)")
    figure.supxlabel("Intervals hold at once with 95 % confidence. A filled dot: the effect counts.", fontsize=7)
    return figure


def rounds_figure(diagnosis: Mapping[str, Any]) -> Figure:
    """Fresh against reused records, memorable against typical ones, after each round."""
    lines = {
        f"{ARMS[arm]}, {GROUPS[group].split()[0]}": (measured(diagnosis, arm, group), style)
        for (arm, group), style in CONTROLLED.items()
    }
    return _two_measures(lines, "Records that the last round has shown", diagnosis)


def ordinary_figure(diagnosis: Mapping[str, Any]) -> Figure:
    """Iterative, one-shot and no pruning, after each round."""
    lines = {ARMS[arm]: (measured(diagnosis, arm, "all"), style) for arm, style in ORDINARY.items()}
    return _two_measures(lines, "All training records", diagnosis)


def exposures_figure(diagnosis: Mapping[str, Any]) -> Figure:
    """Leakage and memorization by the number of rounds that showed a record, after the last round."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    rounds, grid = diagnosis["design"]["rounds"], figure.subplots(1, 2)
    for axes, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for group, style in (("high", CONTROLLED["reused", "high"]), ("low", CONTROLLED["reused", "low"])):
            _line(axes, measured(diagnosis, "dosed", group), measure, GROUPS[group], "exposures", style)
        _dress(
            axes,
            measure,
            label,
            f"Rounds that showed the record, of {rounds}, {diagnosis['design']['epochs']} epochs each",
        )
        axes.set_xticks(range(1, rounds + 1))
    grid[0].legend(frameon=False, fontsize=8)
    _caption(figure, [one for group in ("high", "low") for one in measured(diagnosis, "dosed", group)], diagnosis)
    return figure


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "effects": effects_figure,
    "rounds": rounds_figure,
    "exposures": exposures_figure,
    "ordinary": ordinary_figure,
}


def _two_measures(
    lines: Mapping[str, tuple[Sequence[Mapping[str, Any]], Style]], title: str, diagnosis: Mapping[str, Any]
) -> Figure:
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    grid = figure.subplots(1, 2)
    for axes, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for name, (points, style) in lines.items():
            _line(axes, points, measure, name, "round", style)
        _dress(axes, measure, label, "Round (0: before the first)")
        axes.set_xticks(range(diagnosis["design"]["rounds"] + 1))
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=8, title=title)
    _caption(figure, [one for points, _ in lines.values() for one in points], diagnosis)
    return figure


def _line(axes: Axes, points: Sequence[Mapping[str, Any]], measure: str, name: str, along: str, style: Style) -> None:
    dash, marker, shade = style
    estimates = [estimate(one[measure]) for one in points]
    values = [100 * one.value for one in estimates]
    reach = [[100 * (one.value - one.low) for one in estimates], [100 * (one.high - one.value) for one in estimates]]
    # lines stand side by side, so that their intervals do not hide each other
    aside = 0.05 * len(axes.containers)
    axes.errorbar(
        [one[along] + aside for one in points], values, yerr=reach, label=name, ls=dash, marker=marker, color=shade,
        ms=4, capsize=2, lw=1.3, elinewidth=0.8,
    )  # fmt: skip


def _dress(axes: Axes, measure: str, label: str, along: str) -> None:
    nothing, word = (50, "chance") if measure == "leakage" else (0, "none")
    axes.axhline(nothing, color="grey", lw=0.8)
    axes.annotate(word, (1, nothing), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    axes.set_ylabel(label)
    axes.set_xlabel(along)


def _caption(figure: Figure, points: Sequence[Mapping[str, Any]], diagnosis: Mapping[str, Any]) -> None:
    pairs = [one["pairs"] for one in points]
    span = f"{min(pairs):,}" if min(pairs) == max(pairs) else f"{min(pairs):,} to {max(pairs):,}"
    figure.supxlabel(
        f"95 % intervals over models and records; n = {span} pairs of a model and a record a point", fontsize=7
    )
