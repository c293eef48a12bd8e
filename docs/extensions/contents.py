"""A page that lists others has them as its contents: the list is written once, and one in a repository browser, too."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

LISTED = re.compile(r"^- \[([^\]]+)\]\((?!https?:)([^)#]+)\.md(?:#[^)]*)?\)", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx; ``contents_of`` in ``conf.py`` names the pages that list others."""
    app.add_config_value("contents_of", [], "env", [list])
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Append a table of contents of the pages that the page's own lists begin with.

    Parameters
    ----------
    app : Sphinx
        With the configuration.
    page : str
        Its name.
    source : list of str
        Its text, which is changed in place.
    """
    if page in app.config.contents_of:
        listed = "\n".join(f"{words} <{path}>" for words, path in LISTED.findall(source[0]))
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
