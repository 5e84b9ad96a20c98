"""Sphinx configuration of the documentation site: ``make docs``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this file

import study_reference

project = "WeMem"
author = "The WeMem authors"
copyright = "2026, The WeMem authors"
version = release = version_of("wemem")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages outside of the site, such as benchmarks/README.md, are linked as files of the repository.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]  # Mermaid is drawn by the forge

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # jaxtyping shapes stand in the signatures as they are written
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "Attributes")]

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "image_scrapers": ("matplotlib", "outcome_figures.outcome_figures"),
    "ignore_repr_types": "matplotlib|torch",
    "min_reported_time": 600,  # seconds are of one machine
    "write_computation_times": False,
    "show_signature": False,
}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
html_title = f"WeMem {release}"
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/*.py", "gallery/*.ipynb"]


def setup(app):
    """Write the pages that come from the code before any page is read."""
    app.connect("builder-inited", study_reference.write)
