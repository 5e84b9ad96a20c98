"""Pictures of the gallery: figures of results are no pyplot figures, so this finds them as a cell's last value."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def outcome_figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figure that a cell ends with, and return the text that shows it."""
    figure = block_vars["example_globals"].get("___")
    if not isinstance(figure, Figure) or figure.canvas.manager is not None:  # pyplot's are found by its own scraper
        return ""
    path = str(next(block_vars["image_path_iterator"]))
    figure.savefig(path, dpi=120)
    title = Path(block_vars["src_file"]).stem.split("_", 2)[-1].replace("_", " ")
    return str(figure_rst([path], gallery_conf["src_dir"], title))
