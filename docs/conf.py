"""Sphinx configuration of the documentation site: ``make docs``."""

from importlib.metadata import version as version_of

project = "WeMem"
author = "The WeMem authors"
copyright = "2026, The WeMem authors"
version = release = version_of("wemem")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
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

html_theme = "furo"
html_title = f"WeMem {release}"
exclude_patterns = ["_build"]
