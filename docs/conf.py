"""How ``make docs`` builds the site: its sources are this repository's Markdown files, read where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

import ai_models_mosaic

project = "ai-models-mosaic"
copyright = "its contributors, under Apache-2.0"
version = release = ai_models_mosaic.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_argparse_cli",
    "contents",
    "executed",
    "names",
]

# The top of the repository is that of the sources, so that links go to where the files are.
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/api/*.md",
    "benchmarks/*.md",
    "examples/*.md",
    "weights/*.md",
]

contents_of = ["docs/index", "docs/howto", "docs/explanation", "docs/reference"]
executed_pages = ["docs/tutorial", "docs/gallery"]

myst_heading_anchors = 4
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
# Names of languages that Pygments does not know are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
default_role = "py:obj"

nitpicky = True
# Types in docstrings are words: those that are ours become links, and the others need not.
nitpick_ignore_regex = [(r"py:class", r"(?!ai_models_mosaic).*")]

html_theme = "pydata_sphinx_theme"
html_title = "ai-models-mosaic"
html_extra_path = ["root"]
html_static_path = ["static"]
html_css_files = ["wide.css"]
# Pages without others beside them need no list of these.
html_sidebars = {page: [] for page in ("docs/tutorial", "docs/gallery", "docs/notebook")}
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"], "navbar_align": "left"}
