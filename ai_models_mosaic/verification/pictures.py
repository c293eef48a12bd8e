"""Pictures of an evaluation, as PNG: what a report would show, with the number of dates and the intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import BoolArray, FloatArray
from ..channels import Channel
from ..report.units import pretty
from ..wording.numbers import counted
from .comparison import Comparison, common, comparisons
from .evaluation import Evaluation, Score, scores_of
from .maps import map_pages, plume_page
from .probability_pictures import pit_pages, rank_pages, reliability_pages
from .scale_pictures import crps_pages, growth_pages, spectrum_pages
from .sheets import TRUTH, Page, blank, colours, days, file_name, finish, pages, put_title

PERSISTENCE, CLIMATOLOGY = "#9a9a9a", "#c2a15a"

REFERENCES = (
    (0, "rmse_persistence", PERSISTENCE, "persistence"),
    (0, "rmse_climatology", CLIMATOLOGY, "climatological mean"),
    (1, "mae_persistence", PERSISTENCE, "persistence, absolute error"),
    (1, "crps_climatology", CLIMATOLOGY, "climatological distribution"),
)
"""Lines of the scores' pictures: column, score, colour and label."""

LARGEST_CHANGE = 30.0
"""Per cent at which the colours of comparisons end."""


def planned(evaluations: Sequence[Evaluation], reference: str) -> list[Page]:
    """All pictures, in their order; none is drawn yet.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        All forecast systems.
    reference : str
        Name of the one that others are compared with.
    """
    painters: tuple[Callable[[Sequence[Evaluation]], Iterator[Page]], ...] = (
        score_pages,
        skill_pages,
        partial(comparison_pages, reference=reference),
        spread_pages,
        spectrum_pages,
        crps_pages,
        growth_pages,
        rank_pages,
        pit_pages,
        reliability_pages,
        case_pages,
    )
    return [page for painter in painters for page in painter(evaluations)]


def _line(
    axes: Axes, evaluation: Evaluation, name: str, channel: Channel, *, colour: str, label: str, style: str = "-"
) -> None:
    """A score by lead time with its interval; nothing where there is no such score."""
    score = _score(evaluation, name)
    if score is None:
        return
    column = evaluation.sums.channels.index(channel)
    value, low, high = (each[column] for each in evaluation.interval_of(score))
    places = days(evaluation.sums.lead_hours)
    axes.plot(places, value, style, color=colour, label=label, marker="o", markersize=2.5, linewidth=1.4)
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)


def _score(evaluation: Evaluation, name: str) -> Score | None:
    return next((score for score in scores_of(evaluation.sums) if score.name == name), None)


def score_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """RMSE of the mean and CRPS by lead time, with persistence and climatology."""
    for number, channels in pages(evaluations[0].sums.channels):
        yield f"scores{number}", partial(_score_page, evaluations, channels)


def _score_page(evaluations: Sequence[Evaluation], channels: Sequence[Channel]) -> Figure:
    figure, axes = blank(len(channels), 2)
    for row, channel in zip(axes, channels, strict=True):
        for each, colour in zip(evaluations, colours(evaluations), strict=True):
            single = each.sums.members == 1
            _line(row[0], each, "rmse_mean", channel, colour=colour, label=f"{each.name}, {_of(single)}")
            crps = f"{each.name}, {'absolute error' if single else 'fair CRPS'}"
            _line(row[1], each, "crps_fair", channel, colour=colour, label=crps)
        for column, name, colour, label in REFERENCES:
            _line(row[column], evaluations[0], name, channel, colour=colour, label=label, style="--")
        for axis, what in zip(row, ("RMSE", "CRPS"), strict=True):
            finish(axis, f"{what} of {channel.label} ({pretty(channel.units)})")
    put_title(figure, "Error by lead time", evaluations)
    return figure


def _of(single: bool) -> str:
    return "single forecast" if single else "ensemble mean"


def skill_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Score cards: CRPS skill over persistence and climatology, by channel and lead time."""
    names = ("crps_skill_persistence", "crps_skill_climatology")
    present = [name for name in names if any(_score(each, name) for each in evaluations)]
    if present:
        yield "scorecard", partial(_skill_page, evaluations, present)


def _skill_page(evaluations: Sequence[Evaluation], present: Sequence[str]) -> Figure:
    channels = evaluations[0].sums.channels
    figure, axes = blank(len(evaluations), len(present), 5.4, 1.1 + 0.28 * len(channels))
    for row, each in zip(axes, evaluations, strict=True):
        for axis, name in zip(row, present, strict=True):
            score = _score(each, name)
            if score is None:
                axis.set_axis_off()
                continue
            value, low, high = each.interval_of(score)
            _card(axis, channels, each.sums.lead_hours, value, (low > 0) | (high < 0))
            axis.set_title(f"{each.name} over {name.rpartition('_')[2]}", fontsize=10)
    title = "CRPS skill, 1 − CRPS / reference's (bold: interval excludes 0)"
    put_title(figure, title, evaluations, intervals="intervals")
    return figure


def comparison_pages(evaluations: Sequence[Evaluation], reference: str) -> Iterator[Page]:
    """Score cards: RMSE and CRPS of every forecast against another's, in per cent."""
    first = next(each for each in evaluations if each.name == reference)
    others = [each for each in evaluations if each is not first and all(common(each, first))]
    if others:
        yield "comparison", partial(_comparison_page, evaluations, first, others)


def _comparison_page(evaluations: Sequence[Evaluation], first: Evaluation, others: Sequence[Evaluation]) -> Figure:
    names = {"rmse_mean": "RMSE", "crps_fair": "CRPS"}
    channels = first.sums.channels
    figure, axes = blank(len(others), len(names), 5.4, 1.1 + 0.28 * len(channels))
    for row, each in zip(axes, others, strict=True):
        shown = {comparison.score: comparison for comparison in comparisons(each, first)}
        for axis, (name, label) in zip(row, names.items(), strict=True):
            if name not in shown:
                axis.set_axis_off()
                continue
            _comparison_card(axis, channels, shown[name])
            dates = counted(int(shown[name].dates.max()), "date")
            axis.set_title(f"{label} of {each.name} against {first.name}, {dates} of both", fontsize=10)
    title = "Change of the score in %, blue where it is better (bold: interval of the difference excludes 0)"
    put_title(figure, title, evaluations, intervals="intervals")
    return figure


def _comparison_card(axis: Axes, channels: Sequence[Channel], comparison: Comparison) -> None:
    ratio, (_, low, high) = comparison.ratio[0], comparison.difference
    change = 100 * (ratio - 1)
    _card(axis, channels, comparison.lead_hours, change, (low > 0) | (high < 0), ("RdBu_r", LARGEST_CHANGE, "+.1f"))


def _card(
    axis: Axes,
    channels: Sequence[Channel],
    lead_hours: Sequence[int],
    value: FloatArray,
    certain: BoolArray,
    style: tuple[str, float, str] = ("RdBu", 1.0, ".2f"),
) -> None:
    """A table of coloured cells, ``(channel, lead)``; style is colours, where they end, and how numbers are written."""
    shades, end, written = style
    axis.imshow(value, cmap=shades, vmin=-end, vmax=end, aspect="auto")
    axis.set_xticks(range(len(lead_hours)), [f"{lead / 24:g}" for lead in lead_hours])
    axis.set_yticks(range(len(channels)), [channel.label for channel in channels])
    axis.set_xlabel("lead time (days)")
    for (row, column), skill in np.ndenumerate(value):
        if np.isfinite(skill):
            axis.text(
                column,
                row,
                format(skill, written),
                ha="center",
                va="center",
                fontsize=7,
                fontweight="bold" if certain[row, column] else "normal",
                color="white" if abs(skill) > 0.65 * end else "black",
            )


def spread_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Error and spread, and their ratio."""
    if any(each.sums.members > 1 for each in evaluations):
        for number, channels in pages(evaluations[0].sums.channels):
            yield f"spread{number}", partial(_spread_page, evaluations, channels)


def _spread_page(evaluations: Sequence[Evaluation], channels: Sequence[Channel]) -> Figure:
    shown = [(each, colour) for each, colour in zip(evaluations, colours(evaluations), strict=True)]
    shown = [(each, colour) for each, colour in shown if each.sums.members > 1]
    figure, axes = blank(len(channels), 2)
    for row, channel in zip(axes, channels, strict=True):
        for each, colour in shown:
            _line(row[0], each, "rmse_mean", channel, colour=colour, label=f"{each.name}, RMSE of the mean")
            _line(row[0], each, "spread", channel, colour=colour, label=f"{each.name}, spread", style=":")
            _line(row[1], each, "spread_skill", channel, colour=colour, label=each.name)
        finish(row[0], f"Error and spread of {channel.label} ({pretty(channel.units)})")
        row[1].axhspan(0.9, 1.1, color="#000000", alpha=0.06, linewidth=0)
        row[1].axhline(1, color=TRUTH, linewidth=0.8)
        row[1].set_ylim(top=max(1.3, row[1].get_ylim()[1]))
        finish(row[1], f"√((M+1)/M) spread / error of {channel.label}")
    put_title(figure, "Spread and error", [each for each, _ in shown])
    return figure


def case_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Maps and plumes of one date."""
    for each, colour in zip(evaluations, colours(evaluations), strict=True):
        if each.sums.snapshot is None:
            continue
        for name, draw in map_pages(each.sums, each.name):
            yield f"maps_{file_name(each)}_{name}", draw
        yield f"plume_{file_name(each)}", partial(plume_page, each.sums, each.name, colour)
