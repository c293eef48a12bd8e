"""Pictures of probabilities: rank histograms, the integral transform, reliability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..channels import Channel
from .evaluation import Evaluation
from .probability_tables import PIT_BINS, Reliability, pit_histogram, reliability_of
from .sheets import COLOURS, TRUTH, Page, blank, colours, file_name, pages, put_title, shown_leads

WIDTH = 0.016
"""Of the boxes of consistency, in probability."""


def rank_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Rank histograms of every ensemble."""
    for each, colour in zip(evaluations, colours(evaluations), strict=True):
        for number, channels in pages(each.sums.channels) if each.sums.members > 1 else ():
            yield f"rank_histograms_{file_name(each)}{number}", partial(_rank_page, each, colour, channels)


def _rank_page(evaluation: Evaluation, colour: str, channels: Sequence[Channel]) -> Figure:
    sums, leads = evaluation.sums, shown_leads(evaluation)
    figure, axes = blank(len(channels), len(leads), 3.6, 2.3)
    value, low, high = evaluation.bootstrap.interval(evaluation.mean(sums.ranks) * (sums.members + 1))
    columns = [sums.channels.index(channel) for channel in channels]
    top = 1.05 * float(np.nanmax([ends[columns][:, leads].max() for ends in (value, high)]))
    for row, column in zip(axes, columns, strict=True):
        for axis, lead in zip(row, leads, strict=True):
            height = value[column, lead]
            ends = np.abs(np.stack([low[column, lead], high[column, lead]]) - height)
            axis.bar(range(height.size), height, color=colour, alpha=0.75, width=0.9)
            axis.errorbar(range(height.size), height, ends, fmt="none", ecolor=TRUTH, elinewidth=0.8)
            axis.axhline(1, color=TRUTH, linewidth=0.8)
            axis.set_ylim(0, top)
            axis.set_title(f"{sums.channels[column].label}, day {sums.lead_hours[lead] / 24:g}", fontsize=9)
            axis.set_xlabel("members below the truth", fontsize=8)
        row[0].set_ylabel("frequency / uniform", fontsize=8)
    put_title(figure, f"Rank histograms of {evaluation.name}", [evaluation], intervals="lines")
    return figure


def pit_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Histograms of the integral transform of all ensembles, whatever their sizes, in one."""
    shown = [(each, colour) for each, colour in zip(evaluations, colours(evaluations), strict=True)]
    shown = [(each, colour) for each, colour in shown if each.sums.members > 1]
    for number, channels in pages(evaluations[0].sums.channels) if shown else ():
        yield f"pit{number}", partial(_pit_page, shown, channels)


def _pit_page(shown: Sequence[tuple[Evaluation, str]], channels: Sequence[Channel]) -> Figure:
    first = shown[0][0]
    leads = [first.sums.lead_hours[lead] for lead in shown_leads(first)]
    figure, axes = blank(len(channels), len(leads), 3.6, 2.3)
    edges = np.linspace(0, 1, PIT_BINS + 1)
    for each, colour in shown:
        value, low, high = each.bootstrap.interval(pit_histogram(each))
        for row, channel in zip(axes, channels, strict=True):
            column = each.sums.channels.index(channel)
            for axis, lead in zip(row, leads, strict=True):
                if lead not in each.sums.lead_hours:
                    continue
                index = each.sums.lead_hours.index(lead)
                label = f"{each.name}, {each.sums.members} members"
                axis.stairs(value[column, index], edges, baseline=None, color=colour, linewidth=1.4, label=label)
                ends = high[column, index]
                axis.stairs(ends, edges, baseline=low[column, index], fill=True, color=colour, alpha=0.18)
    top = max(axis.dataLim.ymax for row in axes for axis in row)
    for row, channel in zip(axes, channels, strict=True):
        for axis, lead in zip(row, leads, strict=True):
            axis.axhline(1, color=TRUTH, linewidth=0.8)
            axis.set(xlim=(0, 1), ylim=(0, 1.05 * top))
            axis.set_title(f"{channel.label}, day {lead / 24:g}", fontsize=9)
            axis.set_xlabel("integral transform of the truth", fontsize=8)
            axis.grid(alpha=0.25)
        row[0].set_ylabel("density", fontsize=8)
    axes[0][0].legend(fontsize=7, framealpha=0.7, edgecolor="none")
    put_title(figure, "Probability integral transform", [each for each, _ in shown])
    return figure


def reliability_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Reliability diagrams of every forecast, all events of a channel and lead time in one."""
    for each in evaluations:
        for number, channels in pages(each.sums.channels) if each.sums.events else ():
            yield f"reliability_{file_name(each)}{number}", partial(_reliability_page, each, channels)


def _reliability_page(evaluation: Evaluation, channels: Sequence[Channel]) -> Figure:
    leads = shown_leads(evaluation)
    reliability = reliability_of(evaluation)
    figure, axes = blank(len(channels), len(leads), 3.4, 3.1)
    for row, channel in zip(axes, channels, strict=True):
        column = evaluation.sums.channels.index(channel)
        for axis, lead in zip(row, leads, strict=True):
            _diagram(axis, evaluation, reliability, (column, lead))
            axis.set_title(f"{channel.label}, day {evaluation.sums.lead_hours[lead] / 24:g}", fontsize=9)
        row[0].set_ylabel("observed frequency")
        row[0].legend(fontsize=7, frameon=False)
    title = f"Reliability of {evaluation.name} (boxes: where reliable forecasts would lie)"
    put_title(figure, title, [evaluation], intervals="lines")
    return figure


def _diagram(axis: Axes, evaluation: Evaluation, reliability: Reliability, place: tuple[int, int]) -> None:
    """One panel: what happened with its intervals, and boxes of consistency round the diagonal."""
    axis.plot([0, 1], [0, 1], color=TRUTH, linewidth=0.8)
    for index, event in enumerate(evaluation.sums.events):
        where = (*place, index)
        forecast, value = reliability.forecast[where], reliability.observed[where]
        colour = COLOURS[index % len(COLOURS)]
        ends = np.abs(np.stack([reliability.low[where], reliability.high[where]]) - value)
        low, high = reliability.consistent_low[where], reliability.consistent_high[where]
        # Those of one event lie left of those of another.
        left = forecast + WIDTH * (index - len(evaluation.sums.events) / 2)
        axis.bar(left, high - low, WIDTH, low, align="edge", color=colour, alpha=0.3, linewidth=0)
        label = event.name.replace("_q", " quantile 0.")
        style = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.2, "elinewidth": 0.8}
        axis.errorbar(forecast, value, ends, label=label, **style)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="forecast probability")
    axis.grid(alpha=0.25)
