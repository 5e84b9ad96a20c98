"""Draw the picture of docs/location.md from the table on that page: ``python docs/location_figure.py``."""

import re
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parent
#: The attacks whose columns have a lowest and a highest seed, with marker and colour.
ATTACKS = {"RMIA": ("o", "#0072b2"), "LiRA": ("s", "#b35900")}
RANGE = re.compile(r"([\d.]+) \(([\d.]+)-([\d.]+)\)")


def rows() -> list[tuple[str, dict[str, tuple[float, ...]], str, float]]:
    """Each arm of the table: its name, the TPR at 1 % FPR by attack (mean, lowest, highest; per cent), and the name
    and TPR of the strongest attack.
    """
    lines = (DOCS / "location.md").read_text("utf-8").splitlines()
    read = []
    for line in lines:
        if line.startswith("|") and RANGE.search(line):
            arm, _, _, rmia, lira, strongest = line.replace("`", "").replace("*", "").strip("| ").split(" | ")
            columns = zip(ATTACKS, (rmia, lira), strict=True)
            rates = {name: tuple(map(float, RANGE.findall(text)[0])) for name, text in columns}
            name, value = strongest.split(" (")[0].rsplit(" ", 1)
            read.append((arm, rates, name, float(value)))
    return read


def figure() -> Figure:
    """The TPR of both attacks, and of the strongest one, on every arm; with the range over seeds, and chance."""
    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    axes = drawn.subplots()
    arms = rows()
    for offset, (name, (marker, colour)) in zip((-0.2, 0.2), ATTACKS.items(), strict=True):
        for place, (_, rates, _, _) in enumerate(arms):
            mean, low, high = rates[name]
            axes.plot([low, high], [place + offset] * 2, color=colour, linewidth=2)
            axes.plot(mean, place + offset, marker, color=colour, label=name if place == 0 else None)
    for place, (_, _, name, value) in enumerate(arms):
        axes.plot(value, place, "D", color="#1a1a1a", markersize=5, label="strongest attack" if place == 0 else None)
        axes.annotate(f"{name} {value:.1f}", (value, place), (34, -4), textcoords="offset points", fontsize=9)
    axes.axvline(1, color="#595959", linestyle=":", label="chance")
    axes.set_yticks(range(len(arms)), [arm for arm, *_ in arms])
    axes.invert_yaxis()
    axes.set_xlim(0, 90)
    axes.set_xlabel("training records found at 1 % false alarms (%), mean and range of three seeds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center right")
    return drawn


if __name__ == "__main__":
    figure().savefig(DOCS / "images/location-arms.png", dpi=140)
