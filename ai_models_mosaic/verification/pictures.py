"""Pictures of an evaluation, as PNG: what a report would show, with the number of dates and the intervals."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..arrays import BoolArray, FloatArray
from ..channels import Channel
from ..report.units import pretty
from ..wording.numbers import counted
from .evaluation import Evaluation, Score, scores_of
from .maps import map_pages, plume_page, whole_days

COLOURS = ("#0b6fb8", "#d1495b", "#3a7d44", "#8f5fbf", "#c98b1b")
"""Of the forecast systems, in their order; safe for most colour-blind eyes."""

TRUTH, PERSISTENCE, CLIMATOLOGY = "#222222", "#9a9a9a", "#c2a15a"

REFERENCES = (
    (0, "rmse_persistence", PERSISTENCE, "persistence"),
    (0, "rmse_climatology", CLIMATOLOGY, "climatological mean"),
    (1, "mae_persistence", PERSISTENCE, "persistence, absolute error"),
    (1, "crps_climatology", CLIMATOLOGY, "climatological distribution"),
)
"""Lines of the scores' pictures: column, score, colour and label."""

ROWS_PER_PAGE = 6
"""Channels of one picture; more go on further pages."""

SHOWN_LEADS = 3
"""Lead times of spectra, rank histograms and reliability: the first, one in the middle, the last."""

AIM = (0.85, 1.15)
"""Band in which a spectral ratio is called kept."""

LARGEST_RATIO = 4.0
"""Upper end of the axis of spectral ratios, at most."""

LEAST_POWER = 1e-7
"""Lower end of the axis of power, of the truth's largest: below it is rounding of the fields."""

Page = tuple[str, Figure]
"""Name of the file without its ending, and the drawing."""


def draw(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, bytes]]:
    """All pictures, one after another: name of the file and its content."""
    painters: tuple[Callable[[Sequence[Evaluation]], Iterator[Page]], ...] = (
        _score_pages,
        _skill_pages,
        _spread_pages,
        _spectrum_pages,
        _rank_pages,
        _reliability_pages,
        _case_pages,
    )
    for painter in painters:
        for name, figure in painter(evaluations):
            FigureCanvasAgg(figure)
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=110)
            yield f"{name}.png", content.getvalue()


def _pages(channels: Sequence[Channel]) -> Iterator[tuple[str, Sequence[Channel]]]:
    """Channels in groups, and what to add to the name of their picture."""
    for first in range(0, len(channels), ROWS_PER_PAGE):
        number = "" if len(channels) <= ROWS_PER_PAGE else f"_{first // ROWS_PER_PAGE + 1}"
        yield number, channels[first : first + ROWS_PER_PAGE]


def _figure(rows: int, columns: int, width: float = 4.2, height: float = 2.9) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(width * columns, height * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def _caption(evaluations: Sequence[Evaluation]) -> str:
    """What the numbers are of, for under the title."""
    first = evaluations[0]
    parts = [
        f"{each.name}: {counted(len(each.sums.dates), 'date')}, {counted(each.sums.members, 'member')}"
        for each in evaluations
    ]
    bootstrap = first.bootstrap
    bands = f"bands: {100 * bootstrap.confidence:g} % of block bootstraps over dates (blocks of {first.block})"
    if not bootstrap.replicates or len(first.sums.dates) < 2:
        bands = "no intervals"
    return f"{'; '.join(parts)}; {bands}"


def _title(figure: Figure, title: str, evaluations: Sequence[Evaluation]) -> None:
    # In one text, for which the layout makes room; 13 letters of this size fit into an inch.
    lines = textwrap.wrap(_caption(evaluations), int(13 * figure.get_figwidth()))
    figure.suptitle("\n".join([title, *lines]), fontsize=10)


def _days(leads: Sequence[int]) -> FloatArray:
    return np.array(leads) / 24


def _line(
    axes: Axes, evaluation: Evaluation, name: str, channel: Channel, *, colour: str, label: str, style: str = "-"
) -> None:
    """A score by lead time with its interval; nothing where there is no such score."""
    score = _score(evaluation, name)
    if score is None:
        return
    column = evaluation.sums.channels.index(channel)
    value, low, high = (each[column] for each in evaluation.bootstrap.interval(evaluation.replicated(score)))
    days = _days(evaluation.sums.lead_hours)
    axes.plot(days, value, style, color=colour, label=label, marker="o", markersize=2.5, linewidth=1.4)
    axes.fill_between(days, low, high, color=colour, alpha=0.18, linewidth=0)


def _score(evaluation: Evaluation, name: str) -> Score | None:
    return next((score for score in scores_of(evaluation.sums) if score.name == name), None)


def _score_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """RMSE of the mean and CRPS by lead time, with persistence and climatology."""
    first = evaluations[0]
    for number, channels in _pages(first.sums.channels):
        figure, axes = _figure(len(channels), 2)
        for row, channel in zip(axes, channels, strict=True):
            for each, colour in zip(evaluations, _colours(evaluations), strict=True):
                single = each.sums.members == 1
                _line(row[0], each, "rmse_mean", channel, colour=colour, label=f"{each.name}, {_of(single)}")
                crps = f"{each.name}, {'absolute error' if single else 'fair CRPS'}"
                _line(row[1], each, "crps_fair", channel, colour=colour, label=crps)
            for column, name, colour, label in REFERENCES:
                _line(row[column], first, name, channel, colour=colour, label=label, style="--")
            for axis, what in zip(row, ("RMSE", "CRPS"), strict=True):
                _finish(axis, f"{what} of {channel.label} ({pretty(channel.units)})")
        _title(figure, "Error by lead time", evaluations)
        yield f"scores{number}", figure


def _of(single: bool) -> str:
    return "single forecast" if single else "ensemble mean"


def _finish(axis: Axes, title: str, bottom: float | None = 0.0) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("lead time (days)")
    whole_days(axis)
    axis.set_ylim(bottom=bottom)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")


def _colours(evaluations: Sequence[Evaluation]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(evaluations))]


def _skill_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Score cards: CRPS skill over persistence and climatology, by channel and lead time."""
    names = ("crps_skill_persistence", "crps_skill_climatology")
    present = [name for name in names if _score(evaluations[0], name)]
    channels = evaluations[0].sums.channels
    figure, axes = _figure(len(evaluations), len(present), 5.4, 1.1 + 0.28 * len(channels))
    for row, each in zip(axes, evaluations, strict=True):
        for axis, name in zip(row, present, strict=True):
            score = _score(each, name)
            if score is None:
                axis.set_axis_off()
                continue
            value, low, high = each.bootstrap.interval(each.replicated(score))
            _card(axis, each, value, (low > 0) | (high < 0))
            axis.set_title(f"{each.name} over {name.rpartition('_')[2]}", fontsize=10)
    _title(figure, "CRPS skill, 1 − CRPS / reference's (bold: interval excludes 0)", evaluations)
    yield "scorecard", figure


def _card(axis: Axes, evaluation: Evaluation, value: FloatArray, certain: BoolArray) -> None:
    """A table of coloured cells, ``(channel, lead)``."""
    sums = evaluation.sums
    axis.imshow(value, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axis.set_xticks(range(len(sums.lead_hours)), [f"{lead / 24:g}" for lead in sums.lead_hours])
    axis.set_yticks(range(len(sums.channels)), [channel.label for channel in sums.channels])
    axis.set_xlabel("lead time (days)")
    for (row, column), skill in np.ndenumerate(value):
        if np.isfinite(skill):
            axis.text(
                column,
                row,
                f"{skill:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                fontweight="bold" if certain[row, column] else "normal",
                color="white" if abs(skill) > 0.65 else "black",
            )


def _spread_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Error and spread, and their ratio."""
    shown = [each for each in evaluations if each.sums.members > 1]
    for number, channels in _pages(evaluations[0].sums.channels) if shown else ():
        figure, axes = _figure(len(channels), 2)
        for row, channel in zip(axes, channels, strict=True):
            for each, colour in zip(evaluations, _colours(evaluations), strict=True):
                if each.sums.members == 1:
                    continue
                _line(row[0], each, "rmse_mean", channel, colour=colour, label=f"{each.name}, RMSE of the mean")
                _line(row[0], each, "spread", channel, colour=colour, label=f"{each.name}, spread", style=":")
                _line(row[1], each, "spread_skill", channel, colour=colour, label=each.name)
            _finish(row[0], f"Error and spread of {channel.label} ({pretty(channel.units)})")
            row[1].axhspan(0.9, 1.1, color="#000000", alpha=0.06, linewidth=0)
            row[1].axhline(1, color=TRUTH, linewidth=0.8)
            row[1].set_ylim(top=max(1.3, row[1].get_ylim()[1]))
            _finish(row[1], f"√((M+1)/M) spread / error of {channel.label}")
        _title(figure, "Spread and error", shown)
        yield f"spread{number}", figure


def _shown_leads(evaluation: Evaluation) -> list[int]:
    """Indices of a few lead times: the first, those between, the last."""
    count = len(evaluation.sums.lead_hours)
    return sorted({round(index) for index in np.linspace(0, count - 1, min(SHOWN_LEADS, count))})


def _spectrum_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Power by wavenumber of members, mean and truth, and the ratios, one picture per channel."""
    first = evaluations[0]
    for row, channel in enumerate(first.sums.spectra):
        leads = _shown_leads(first)
        figure, axes = _figure(2, len(leads), 4.2, 3.1)
        for column, lead in enumerate(leads):
            upper, lower = axes[0][column], axes[1][column]
            truth = first.mean(first.sums.spectra_power[:, row, lead, 2])[0]
            wavenumbers = np.arange(1, truth.size)
            upper.loglog(wavenumbers, truth[1:], color=TRUTH, linewidth=1.6, label="truth")
            for each, colour in zip(evaluations, _colours(evaluations), strict=True):
                if first.sums.lead_hours[lead] in each.sums.lead_hours:
                    index = each.sums.lead_hours.index(first.sums.lead_hours[lead])
                    _spectra(upper, lower, each, (row, index), colour)
            lower.axhspan(*AIM, color="#000000", alpha=0.06, linewidth=0)
            lower.axhline(1, color=TRUTH, linewidth=0.8)
            lower.set_ylim(0, min(max(2.0, lower.dataLim.ymax), LARGEST_RATIO))
            lower.set_xscale("log")
            upper.set_ylim(bottom=max(truth[1:].max() * LEAST_POWER, 0.5 * upper.dataLim.minposy))
            upper.set_title(f"day {first.sums.lead_hours[lead] / 24:g}", fontsize=10)
            upper.set_ylabel(f"power ({pretty(channel.units, power=2)})" if not column else "")
            lower.set_ylabel("power / truth's power" if not column else "")
            lower.set_xlabel("total wavenumber")
            for axis in (upper, lower):
                ticks = [wavenumber for wavenumber in (1, 2, 5, 10, 20, 50, 100, 200) if wavenumber < truth.size]
                axis.set_xticks(ticks, [str(wavenumber) for wavenumber in ticks])
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.grid(alpha=0.25)
                axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")
        _title(figure, f"Power spectra of {channel.label} (grey band: {AIM[0]:g} – {AIM[1]:g})", evaluations)
        yield f"spectra_{channel.label}", figure


def _spectra(upper: Axes, lower: Axes, evaluation: Evaluation, where: tuple[int, int], colour: str) -> None:
    """Members solid, their mean dotted; of one member they are the same."""
    row, index = where
    mean = evaluation.mean(evaluation.sums.spectra_power[:, row, index])
    wavenumbers = np.arange(1, mean.shape[-1])
    single = evaluation.sums.members == 1
    kinds = [(0, evaluation.name if single else f"{evaluation.name}, members", "-")]
    if not single:
        kinds.append((1, f"{evaluation.name}, mean", ":"))
    for kind, label, style in kinds:
        upper.loglog(wavenumbers, mean[0, kind, 1:], style, color=colour, linewidth=1.3, label=label)
        with np.errstate(invalid="ignore", divide="ignore"):
            value, low, high = evaluation.bootstrap.interval(mean[:, kind, 1:] / mean[:, 2, 1:])
        lower.plot(wavenumbers, value, style, color=colour, linewidth=1.3, label=label)
        lower.fill_between(wavenumbers, low, high, color=colour, alpha=0.18, linewidth=0)


def _rank_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Rank histograms of every ensemble."""
    for each, colour in zip(evaluations, _colours(evaluations), strict=True):
        if each.sums.members == 1:
            continue
        leads = _shown_leads(each)
        for number, channels in _pages(each.sums.channels):
            figure, axes = _figure(len(channels), len(leads), 3.6, 2.3)
            value, low, high = each.bootstrap.interval(each.mean(each.sums.ranks) * (each.sums.members + 1))
            columns = [each.sums.channels.index(channel) for channel in channels]
            top = 1.05 * float(np.nanmax([ends[columns][:, leads].max() for ends in (value, high)]))
            for row, column in zip(axes, columns, strict=True):
                channel = each.sums.channels[column]
                for axis, lead in zip(row, leads, strict=True):
                    height = value[column, lead]
                    ends = np.abs(np.stack([low[column, lead], high[column, lead]]) - height)
                    axis.bar(range(height.size), height, color=colour, alpha=0.75, width=0.9)
                    axis.errorbar(range(height.size), height, ends, fmt="none", ecolor=TRUTH, elinewidth=0.8)
                    axis.axhline(1, color=TRUTH, linewidth=0.8)
                    axis.set_ylim(0, top)
                    axis.set_title(f"{channel.label}, day {each.sums.lead_hours[lead] / 24:g}", fontsize=9)
                    axis.set_xlabel("members below the truth", fontsize=8)
                row[0].set_ylabel("frequency / uniform", fontsize=8)
            _title(figure, f"Rank histograms of {each.name}", [each])
            yield f"rank_histograms_{_file_name(each)}{number}", figure


def _file_name(evaluation: Evaluation) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in evaluation.name)


def _reliability_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Reliability diagrams of every forecast, all events of a channel and lead time in one."""
    for each in evaluations:
        if not each.sums.events:
            continue
        leads = _shown_leads(each)
        mean = each.mean(each.sums.reliability)
        with np.errstate(invalid="ignore", divide="ignore"):
            forecast = mean[0, ..., 1] / mean[0, ..., 0]
            observed = each.bootstrap.interval(mean[..., 2] / mean[..., 0])
        for number, channels in _pages(each.sums.channels):
            figure, axes = _figure(len(channels), len(leads), 3.4, 3.1)
            for row, channel in zip(axes, channels, strict=True):
                column = each.sums.channels.index(channel)
                for axis, lead in zip(row, leads, strict=True):
                    axis.plot([0, 1], [0, 1], color=TRUTH, linewidth=0.8)
                    for index, event in enumerate(each.sums.events):
                        where = (column, lead, index)
                        value, low, high = (ends[where] for ends in observed)
                        colour = COLOURS[index % len(COLOURS)]
                        axis.errorbar(
                            forecast[where],
                            value,
                            np.abs(np.stack([low, high]) - value),
                            color=colour,
                            marker="o",
                            markersize=3,
                            linewidth=1.2,
                            elinewidth=0.8,
                            label=event.name.replace("_q", " quantile 0."),
                        )
                    axis.set_title(f"{channel.label}, day {each.sums.lead_hours[lead] / 24:g}", fontsize=9)
                    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="forecast probability")
                    axis.grid(alpha=0.25)
                row[0].set_ylabel("observed frequency")
                row[0].legend(fontsize=7, frameon=False)
            _title(figure, f"Reliability of {each.name}", [each])
            yield f"reliability_{_file_name(each)}{number}", figure


def _case_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Maps and plumes of one date."""
    for each, colour in zip(evaluations, _colours(evaluations), strict=True):
        if each.sums.snapshot is None:
            continue
        for name, figure in map_pages(each.sums, each.name):
            yield f"maps_{_file_name(each)}_{name}", figure
        yield f"plume_{_file_name(each)}", plume_page(each.sums, each.name, colour)
