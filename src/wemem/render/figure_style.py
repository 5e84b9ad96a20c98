"""How figures look: colours that colour-blind people tell apart, a marker and a dash each for print in grey, and files
that are the same to the byte whenever and wherever they are drawn.

Figures are plain objects of matplotlib; no global figure is opened, no setting outlives :func:`drawing`.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from wemem.render.wording import printable
from wemem.study.results import write_atomically

#: Okabe and Ito's (2008), without black, which is the undefended model's, and yellow, which vanishes on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C9E")
MARKERS = ("o", "^", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8", "H")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
INK, GREY, FAINT = "#1a1a1a", "#767676", "#d9d9d9"
#: Characters of a name in a figure; what is longer loses its middle, and the tables have all of it.
NAME = 26
FORMATS = ("svg", "png", "pdf")
#: What each format would otherwise fill with the hour and the program.
UNDATED: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
SETTINGS = {
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
    """How a defense kind is drawn."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


def marks(kinds: Sequence[str]) -> dict[str, Mark]:
    """A mark for each kind, in their order; markers are all different for up to 13 kinds beside these two."""
    own = {"undefended": Mark(INK, "s", "-"), "dense": Mark(GREY, "D", (0, (2, 2)))}
    for i, kind in enumerate(kind for kind in dict.fromkeys(kinds) if kind not in own):
        own[kind] = Mark(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
    return own


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Settings for one figure; its name makes the identifiers in an SVG its own and the same every time.

    Names from users may have letters that the font of PNG and PDF lacks; they are drawn as boxes without a word, and
    SVG leaves them to the reader's fonts.
    """
    with mpl.rc_context({**mpl.rcParamsDefault, **SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
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


def files(name: str, figure: Figure, folder: Path) -> str:
    """Write a figure in every format; must be called within its :func:`drawing`.

    Returns:
        The SVG.

    Raises:
        InputError: a file cannot be written.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once found, the layout holds for every format
    written = {}
    for kind in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=UNDATED[kind])
        written[kind] = buffer.getvalue()
        write_atomically(folder / f"{name}.{kind}", lambda part, content=written[kind]: part.write_bytes(content))
    return written["svg"].decode("utf-8")


def short(name: str, most: int = NAME) -> str:
    """A name from a user for a figure: what could steer is made visible, and a long one loses its middle.

    >>> short("relaxloss with a label that goes on and on alpha=0.5")
    'relaxloss wit…on alpha=0.5'
    """
    text = printable(name)
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-(most - half - 1):]}"


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]], wide: Sequence[Bbox] = ()) -> list[str]:
    """Write each text beside its point where it covers no point and no text, with a line to it if it is further away.

    Args:
        axes: whose limits and layout are final.
        points: x, y and text, the most important first.
        wide: boxes in pixels to keep free.

    Returns:
        Texts for which there was no room.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is placed by the pixel stays there
    taken = [*wide, *(_around(*axes.transData.transform((x, y)), 5) for x, y, _ in points)]
    inside, left_out = axes.get_window_extent(), []
    for x, y, text in points:
        label = axes.annotate(text, (x, y), fontsize=8, annotation_clip=False, zorder=5)
        if not _settle(label, axes.transData.transform((x, y)), taken, inside):
            label.remove()
            left_out.append(text)
    return left_out


def _settle(label: Text, at: tuple[float, float], taken: list[Bbox], inside: Bbox) -> bool:
    """Move a label to the nearest free place; false if there is none within reach."""
    figure = label.figure
    assert figure is not None
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    size = label.get_window_extent(canvas.get_renderer())
    pixel = figure.dpi / 72
    for reach in (6, 10, 16, 24, 34, 46):
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            middle = (
                at[0] + across * (reach * pixel + size.width / 2), at[1] + up * (reach * pixel + size.height / 2),
            )  # fmt: skip
            box = Bbox.from_bounds(middle[0] - size.width / 2, middle[1] - size.height / 2, size.width, size.height)
            clear = not any(box.overlaps(other) for other in taken)
            if clear and inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1:
                _write(label, box, at, reach)
                taken.append(box)
                return True
    return False


def _write(label: Text, box: Bbox, at: tuple[float, float], reach: float) -> None:
    axes = label.axes
    assert axes is not None
    place = axes.transData.inverted().transform((box.x0, box.y0))
    label.set(position=(float(place[0]), float(place[1])), ha="left", va="bottom")
    if reach > 10:
        nearest = (min(max(at[0], box.x0), box.x1), min(max(at[1], box.y0), box.y1))
        ends = axes.transData.inverted().transform([at, nearest])
        axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.5, zorder=1)


def _around(x: float, y: float, reach: float) -> Bbox:
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)
