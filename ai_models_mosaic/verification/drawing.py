"""Draws the pictures of an evaluation, in several processes if there are cores for them."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .evaluation import Evaluation
from .pictures import planned
from .sheets import Page

LOG = logging.getLogger(__name__)

DPI = 110

QUIET_SECONDS = 5.0
"""Longest silence while there is more to draw, unless one picture takes longer."""

LEAST_PAGES = 4
"""Pictures of a process, at the least: it takes as long as a few of them to begin."""

_planned: list[Page] = []
"""Of a process that draws: what there is to draw."""


def draw(evaluations: Sequence[Evaluation], reference: str, processes: int = 1) -> Iterator[tuple[str, bytes]]:
    """All pictures in their order, as PNG: name of the file and its content.

    They do not depend on the number of processes.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        All forecast systems.
    reference : str
        Name of the one that others are compared with.
    processes : int
        How many may draw at a time, started anew: where it is more than 1, what is drawn by a script has to be under
        ``if __name__ == "__main__"``.
    """
    pages = planned(evaluations, reference)
    processes = min(processes, len(pages) // LEAST_PAGES)
    if processes > 1:
        with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (evaluations, reference)) as pool:
            pictures = pool.map(_drawn, range(len(pages)))
            yield from _said(zip([f"{name}.png" for name, _ in pages], pictures, strict=True), len(pages))
    else:
        yield from _said(((f"{name}.png", png(make())) for name, make in pages), len(pages))


def _begin(evaluations: Sequence[Evaluation], reference: str) -> None:
    _planned.extend(planned(evaluations, reference))


def _drawn(index: int) -> bytes:
    return png(_planned[index][1]())


def png(figure: Figure) -> bytes:
    """The drawing as a file's content."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    # Figure.savefig would go through everything once more, for the layout alone.
    canvas.draw()
    content = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(content, "PNG", dpi=(DPI, DPI))
    return content.getvalue()


def _said(pictures: Iterator[tuple[str, bytes]], total: int) -> Iterator[tuple[str, bytes]]:
    """The same pictures, of which some are logged as they come: drawing takes a while."""
    said = time.monotonic()
    for count, (name, picture) in enumerate(pictures, 1):
        yield name, picture
        if time.monotonic() - said >= QUIET_SECONDS:
            said = time.monotonic()
            LOG.info("Drew %s, picture %d of %d", name, count, total)
