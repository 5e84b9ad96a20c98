"""Style of the figures: colours that colour-blind people tell apart, a shape and a dash each for
print in grey, and files that are the same to the byte whenever and wherever they are drawn.

Figures are plain objects of matplotlib; no global figure is opened, no setting outlives
:func:`drawing`.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from wemem.files.atomic import write_atomically
from wemem.results.wording import printable

Marker = str | tuple[int, Literal[0, 1, 2], int]
Dash = Literal["-"] | tuple[float, tuple[float, ...]]
#: Okabe and Ito's (2008) and Tol's muted ones, without black, which is the undefended model's. Those
#: that have a contrast of less than 3 on white are replaced by darker ones. Sixteen arms have a
#: colour each.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B58900", "#3D98D3", "#882255", "#5C5C9E", "#7F8F20", "#661100",
    "#00707A", "#AA4499", "#117733", "#332288", "#7A5C1E", "#7F7F7F",
)  # fmt: skip
#: Shapes that differ without colour; a triple is a polygon or a star of so many points.
MARKERS: tuple[Marker, ...] = (
    "o", "^", "v", "P", "X", "*", "d", "<", ">", "p", (4, 1, 0), (6, 1, 0), (3, 1, 0), "h", (8, 1, 0), (3, 1, 180),
)  # fmt: skip
DASHES: tuple[Dash, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
INK, GREY, FAINT = "#1a1a1a", "#767676", "#d9d9d9"
#: A white ground that keeps a text legible on the lines that cross it; the text stays text in SVG.
GROUND = {"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none"}
#: Characters of a name in a figure; what is longer loses its middle, and the tables have all of it.
NAME = 26
FORMATS = ("svg", "png", "pdf")
#: What each format would otherwise fill with the hour and the program.
UNDATED: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana", "Geneva", "Arial", "sans-serif"],
    "font.size": 8.5, "axes.titlesize": 8.5, "axes.labelsize": 8.5, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK, "xtick.color": GREY, "ytick.color": GREY,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.grid": True, "grid.color": "#ececec", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "lines.linewidth": 1.4, "hatch.linewidth": 0.7, "legend.frameon": False,
    "text.parse_math": False, "text.usetex": False, "axes.unicode_minus": True, "svg.fonttype": "none",
    "pdf.fonttype": 42, "savefig.dpi": 200, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """The colour, shape and dash of an arm or of a kind of defense."""

    colour: str
    marker: Marker
    dash: Dash


def marks(kinds: Sequence[str]) -> dict[str, Mark]:
    """A mark for each kind of defense, in their order; colours and shapes are all different for up
    to 16 kinds.
    """
    chosen = {"undefended": Mark(INK, "s", "-"), "dense": Mark(GREY, "D", (0, (2, 2)))}
    for i, kind in enumerate(kind for kind in dict.fromkeys(kinds) if kind not in chosen):
        chosen[kind] = _mark(i)
    return chosen


def arm_marks(arms: Sequence[tuple[str, str]]) -> list[Mark]:
    """A mark for each arm of one figure, so that two settings of one defense differ too.

    Args:
        arms: kind and label of each; the undefended and the dense model keep their marks.
    """
    place, fixed = 0, marks(())
    marked = []
    for kind, _ in arms:
        marked.append(fixed.get(kind) or _mark(place))
        place += kind not in fixed
    return marked


def _mark(i: int) -> Mark:
    return Mark(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Settings for one figure; its name makes the identifiers in an SVG its own and the same every
    time.

    Names from users may have letters that the font of PNG and PDF lacks; they are drawn as boxes
    without a word, and SVG leaves them to the reader's fonts.
    """
    settings: dict[Any, Any] = {**mpl.rcParamsDefault, **SETTINGS, "svg.hashsalt": name}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grid(count: int, columns: int, width: float, row_height: float) -> tuple[Figure, list[Axes]]:
    """Small panels with shared axes, row by row; only the outer ones have numbers at their axes."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = blank(width, 0.55 + row_height * lines)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    for i in range(count - columns, count):
        axes[i].tick_params(labelbottom=True)
    return figure, axes[:count]


def settle(figure: Figure | SubFigure) -> None:
    """Lay a figure out for good: for every format alike, and for what is placed by the pixel."""
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # none at all: with a placeholder each format would be drawn twice


def files(name: str, figure: Figure, folder: Path) -> str:
    """Write a figure in every format; must be called within its :func:`drawing`.

    Returns:
        The SVG.

    Raises:
        InputError: a file cannot be written.
    """
    settle(figure)
    written = {}
    for kind in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=UNDATED[kind])
        written[kind] = buffer.getvalue()
    for kind, content in written.items():
        _write(folder / f"{name}.{kind}", content)
    return written["svg"].decode("utf-8")


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda part: part.write_bytes(content))


def short(name: str, most: int = NAME) -> str:
    """A name from a user for a figure: what could steer is made visible, and a long one loses its
    middle.

    >>> short("relaxloss with a label that goes on and on alpha=0.5")
    'relaxloss wit…on alpha=0.5'
    """
    text = printable(name)
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-(most - half - 1) :]}"


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float, str]], spans: Sequence[tuple[float, float, float, float]] = ()
) -> list[str]:
    """Write each text beside its point where it covers no point and no text, with a line to it if
    it is further away.

    Args:
        axes: whose limits and layout are final.
        points: x, y and text, the most important first.
        spans: intervals to keep legible too, from x, y to x, y.

    Returns:
        Texts for which there was no room.
    """
    settle(axes.figure)
    at = [_pixels(axes, x, y) for x, y, _ in points]
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    taken += [Bbox(axes.transData.transform([span[:2], span[2:]])).padded(1) for span in spans]
    inside, left_out = axes.get_window_extent(), []
    for (x, y, text), pixels in zip(points, at, strict=True):
        label = axes.annotate(text, (x, y), fontsize=8, annotation_clip=False, zorder=5, bbox=GROUND)
        if not _settle(axes, label, pixels, taken, inside):
            label.remove()
            left_out.append(text)
    return left_out


def _settle(axes: Axes, label: Text, at: tuple[float, float], taken: list[Bbox], inside: Bbox) -> bool:
    """Move a label to the nearest free place; false if there is none within reach."""
    size = label.get_window_extent()
    pixel = axes.figure.dpi / 72
    for reach in (6, 10, 16, 24, 34, 46):
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            middle = (
                at[0] + across * (reach * pixel + size.width / 2), at[1] + up * (reach * pixel + size.height / 2),
            )  # fmt: skip
            box = Bbox.from_bounds(middle[0] - size.width / 2, middle[1] - size.height / 2, size.width, size.height)
            clear = not any(box.overlaps(other) for other in taken)
            if clear and inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1:
                _move(axes, label, box, at, reach)
                taken.append(box)
                return True
    return False


def _move(axes: Axes, label: Text, box: Bbox, at: tuple[float, float], reach: float) -> None:
    """Put a label into a box, with a line to its point unless that is near."""
    place = axes.transData.inverted().transform((box.x0, box.y0))
    label.set(position=(float(place[0]), float(place[1])), ha="left", va="bottom")
    if reach > 10:
        nearest = (min(max(at[0], box.x0), box.x1), min(max(at[1], box.y0), box.y1))
        ends = axes.transData.inverted().transform([at, nearest])
        axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.5, zorder=1)


def _pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    place = axes.transData.transform((x, y))
    return float(place[0]), float(place[1])
