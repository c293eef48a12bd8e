"""Pages whose commands the build runs, from top to bottom, and shows with what they print and draw.

In such a page, blocks of ``sh`` run where a clone's ``examples`` are, and what they print on standard output is
shown below. A block that follows ``<!-- not run: … -->`` is left out. A block ``{picture} FILE WORDS`` runs too, and
shows the picture FILE in place of what it prints, with WORDS for who cannot see; ``{page} FILE WORDS`` runs and links
to FILE, which the site then has. Both may be empty, of what ran before.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

LOG = getLogger(__name__)

BLOCK = re.compile(r"(?<!-->\n)^```(sh|\{(?:picture|page)\} [^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

PUBLISHED = "made"
"""Folder of the site with the pages that commands wrote."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx; ``executed_pages`` in ``conf.py`` names the pages."""
    app.add_config_value("executed_pages", [], "env", [list])
    app.connect("source-read", execute)
    app.connect("build-finished", publish)
    app.add_directive("picture", Picture)
    app.add_directive("page", Page)
    return {"parallel_read_safe": True}


def folder_of(page: str, doctrees: str | Path) -> Path:
    """Where the commands of a page run, beside Sphinx's own folder."""
    return Path(doctrees).parent / "executed" / page


def execute(app: Sphinx, page: str, source: list[str]) -> None:
    """Run a page's commands in order, and put what they print below them.

    Parameters
    ----------
    app : Sphinx
        With the configuration.
    page : str
        Its name.
    source : list of str
        Its text, which is changed in place.
    """
    if page not in app.config.executed_pages:
        return
    folder = folder_of(page, app.doctreedir)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "examples").symlink_to(Path(app.srcdir) / "examples")
    source[0] = BLOCK.sub(lambda block: _with_output(block, _run(block[2], folder, page)), source[0])


def _with_output(block: re.Match[str], printed: str) -> str:
    shown = block[1] == "sh" and printed.strip()
    return f"{block[0]}\n\n```text\n{printed.rstrip()}\n```" if shown else block[0]


def _run(commands: str, folder: Path, page: str) -> str:
    """What commands print; that one fails is a warning, which ends the build where warnings are errors."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "COLUMNS": "100"}
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        LOG.warning("status %d of\n%s%s", done.returncode, commands, done.stderr, location=page)
    return done.stdout


class _Made(SphinxDirective):
    """Commands, and what they made: a file, and words for it."""

    required_arguments = 2
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        name, words = self.arguments
        path = folder_of(self.env.docname, self.env.doctreedir) / name
        if not path.exists():
            raise self.error(f"{name}: no command of this page made it")
        commands = "\n".join(self.content)
        before = [nodes.literal_block(commands, commands, language="sh")] if commands else []
        return [*before, *self.shown(path, words)]

    def shown(self, path: Path, words: str) -> list[nodes.Node]:
        raise NotImplementedError


class Picture(_Made):
    """Commands, and the picture that they made."""

    def shown(self, path: Path, words: str) -> list[nodes.Node]:
        """The picture, as large as it is."""
        return [nodes.image(uri=os.path.relpath(path, Path(self.env.doc2path(self.env.docname)).parent), alt=words)]


class Page(_Made):
    """Commands, and a link to the page that they made."""

    def shown(self, path: Path, words: str) -> list[nodes.Node]:
        """The link."""
        up = "../" * self.env.docname.count("/")
        link = nodes.reference("", words, refuri=f"{up}{PUBLISHED}/{self.env.docname}/{path.name}")
        self.env.metadata[self.env.docname][PUBLISHED] = str(path)
        return [nodes.paragraph("", "", link)]


def publish(app: Sphinx, failure: Exception | None) -> None:
    """Copy the pages that commands wrote into the site.

    Parameters
    ----------
    app : Sphinx
        With the folder of the site.
    failure : Exception or None
        What ended the build early.
    """
    if failure is not None or app.builder.format != "html":
        return
    for page, metadata in app.env.metadata.items():
        if PUBLISHED in metadata:
            folder = Path(app.outdir) / PUBLISHED / page
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(metadata[PUBLISHED], folder)
