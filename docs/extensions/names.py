"""Names in docstrings are short: this finds what they mean, where it is documented."""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}


def resolve(app: Sphinx, env: BuildEnvironment, reference: pending_xref, words: nodes.Element) -> nodes.Element | None:
    """A link to what a name of Python ends in, if that is one thing.

    Parameters
    ----------
    app, env : Sphinx, BuildEnvironment
        With all names that are documented.
    reference : pending_xref
        From where, and to what.
    words : Element
        What is shown.

    Returns
    -------
    Element or None
        None if there is no such thing, which is a warning; plain words where a docstring's backticks name what is not
        documented.
    """
    if reference.get("refdomain") != "py":
        return None
    target = reference["reftarget"]
    domain = env.get_domain("py")
    places = {
        (page, name)
        for name, _, kind, page, name_in_page, _ in domain.get_objects()
        if kind != "module" and name == name_in_page and (name == target or name.endswith(f".{target}"))
    }
    if len(places) == 1:
        ((page, anchor),) = places
        return make_refnode(app.builder, reference["refdoc"], page, anchor, words, target)
    return words if reference.get("reftype") == "obj" else None
