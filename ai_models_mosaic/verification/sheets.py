"""What the pictures of an evaluation share: their pages, titles, colours and axes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..arrays import FloatArray
from ..channels import Channel
from ..wording.numbers import counted
from .evaluation import Evaluation
from .maps import whole_days

COLOURS = ("#0b6fb8", "#d1495b", "#3a7d44", "#8f5fbf", "#c98b1b")
"""Of the forecast systems, in their order; safe for most colour-blind eyes."""

TRUTH = "#222222"

ROWS_PER_PAGE = 6
"""Channels of one picture; more go on further pages."""

SHOWN_LEADS = 3
"""Lead times of spectra, rank histograms and reliability: the first, one in the middle, the last."""

WAVENUMBERS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Ticks of axes of wavenumbers."""

Page = tuple[str, Callable[[], Figure]]
"""Name of the file without its ending, and what makes the drawing."""


def pages(channels: Sequence[Channel]) -> Iterator[tuple[str, Sequence[Channel]]]:
    """Channels in groups, and what to add to the name of their picture."""
    for first in range(0, len(channels), ROWS_PER_PAGE):
        number = "" if len(channels) <= ROWS_PER_PAGE else f"_{first // ROWS_PER_PAGE + 1}"
        yield number, channels[first : first + ROWS_PER_PAGE]


def blank(rows: int, columns: int, width: float = 4.2, height: float = 2.9) -> tuple[Figure, list[list[Axes]]]:
    """A drawing with rows and columns of panels; width and height of one, in inches."""
    figure = Figure(figsize=(width * columns, height * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def put_title(figure: Figure, title: str, evaluations: Sequence[Evaluation], intervals: str = "bands") -> None:
    """Put what is drawn over it, and below that what the numbers are of, and how intervals are drawn, if they are."""
    # In one text, for which the layout makes room; 13 letters of this size fit into an inch.
    lines = textwrap.wrap(_caption(evaluations, intervals), int(13 * figure.get_figwidth()))
    figure.suptitle("\n".join([title, *lines]), fontsize=10)


def _caption(evaluations: Sequence[Evaluation], intervals: str) -> str:
    """What the numbers are of, for under the title."""
    first = evaluations[0]
    parts = [
        f"{each.name}: {counted(len(each.sums.dates), 'date')}, {counted(each.sums.members, 'member')}"
        for each in evaluations
    ]
    bootstrap = first.bootstrap
    what = f"{intervals}: {100 * bootstrap.confidence:g} % of block bootstraps over dates (blocks of {first.block})"
    if not bootstrap.replicates or len(first.sums.dates) < 2:
        what = "no intervals"
    return "; ".join([*parts, *([what] if intervals else [])])


def days(leads: Sequence[int]) -> FloatArray:
    """Lead times in days."""
    return np.array(leads) / 24


def colours(evaluations: Sequence[Evaluation]) -> list[str]:
    """One per forecast system."""
    return [COLOURS[index % len(COLOURS)] for index in range(len(evaluations))]


def shown_leads(evaluation: Evaluation) -> list[int]:
    """Indices of a few lead times: the first, those between, the last."""
    count = len(evaluation.sums.lead_hours)
    return sorted({round(index) for index in np.linspace(0, count - 1, min(SHOWN_LEADS, count))})


def file_name(evaluation: Evaluation) -> str:
    """The name of a forecast system as a part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in evaluation.name)


def finish(axis: Axes, title: str, bottom: float | None = 0.0) -> None:
    """Title, lead times, grid and legend of a panel."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("lead time (days)")
    whole_days(axis)
    axis.set_ylim(bottom=bottom)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")


def wavenumber_axis(axis: Axes, largest: int) -> None:
    """An axis of total wavenumbers from 1 to the largest, with numbers that one reads."""
    axis.set_xscale("log")
    ticks = [wavenumber for wavenumber in WAVENUMBERS if wavenumber <= largest]
    axis.set_xticks(ticks, [str(wavenumber) for wavenumber in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("total wavenumber")
    axis.grid(alpha=0.25)
