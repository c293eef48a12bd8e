"""Pictures by scale: power spectra, CRPS, and how errors grow until they are those of any two days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import FloatArray
from ..channels import Channel
from ..report.units import pretty
from .evaluation import Evaluation
from .scale_tables import crps_by_degree
from .scales import MEAN_ERROR, MEMBER_ERROR, REFERENCE
from .sheets import (
    TRUTH,
    Page,
    blank,
    colours,
    file_name,
    pages,
    put_title,
    shown_leads,
    wavenumber_axis,
)

AIM = (0.85, 1.15)
"""Band in which a spectral ratio is called kept."""

LARGEST_RATIO = 4.0
"""Upper end of the axis of spectral ratios, at most."""

LEAST_POWER = 1e-7
"""Lower end of the axis of power, of the truth's largest: below it is rounding of the fields."""

LEAST_ERROR_POWER = 1e-5
"""The same for errors, which have no such range."""

LEAD_COLOURS = "viridis_r"
"""From the first lead time to the last."""


def spectrum_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Power by wavenumber of members, mean and truth, and the ratios, one picture per channel."""
    for row, channel in enumerate(evaluations[0].sums.spectra):
        yield f"spectra_{channel.label}", partial(_spectrum_page, evaluations, row, channel)


def _spectrum_page(evaluations: Sequence[Evaluation], row: int, channel: Channel) -> Figure:
    first = evaluations[0]
    leads = shown_leads(first)
    figure, axes = blank(2, len(leads), 4.2, 3.1)
    for column, lead in enumerate(leads):
        upper, lower = axes[0][column], axes[1][column]
        truth = first.mean(first.sums.spectra_power[:, row, lead, 2])[0]
        wavenumbers = np.arange(1, truth.size)
        upper.loglog(wavenumbers, truth[1:], color=TRUTH, linewidth=1.6, label="truth")
        for each, colour in zip(evaluations, colours(evaluations), strict=True):
            if first.sums.lead_hours[lead] in each.sums.lead_hours:
                index = each.sums.lead_hours.index(first.sums.lead_hours[lead])
                _spectra(upper, lower, each, (row, index), colour)
        lower.axhspan(*AIM, color="#000000", alpha=0.06, linewidth=0)
        lower.axhline(1, color=TRUTH, linewidth=0.8)
        lower.set_ylim(0, min(max(2.0, lower.dataLim.ymax), LARGEST_RATIO))
        upper.set_ylim(bottom=max(truth[1:].max() * LEAST_POWER, 0.5 * upper.dataLim.minposy))
        upper.set_title(f"day {first.sums.lead_hours[lead] / 24:g}", fontsize=10)
        upper.set_ylabel(f"power ({pretty(channel.units, power=2)})" if not column else "")
        lower.set_ylabel("power / truth's power" if not column else "")
        for axis in (upper, lower):
            wavenumber_axis(axis, truth.size - 1)
            axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")
    put_title(figure, f"Power spectra of {channel.label} (grey band: {AIM[0]:g} – {AIM[1]:g})", evaluations)
    return figure


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


def crps_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """CRPS by wavenumber of all forecasts, a row per channel."""
    for number, channels in pages(evaluations[0].sums.spectra):
        yield f"crps_by_scale{number}", partial(_crps_page, evaluations, channels)


def _crps_page(evaluations: Sequence[Evaluation], channels: Sequence[Channel]) -> Figure:
    first = evaluations[0]
    leads = shown_leads(first)
    figure, axes = blank(len(channels), len(leads), 3.6, 2.6)
    for row, channel in zip(axes, channels, strict=True):
        place = first.sums.spectra.index(channel)
        for axis, lead in zip(row, leads, strict=True):
            hours = first.sums.lead_hours[lead]
            for each, colour in zip(evaluations, colours(evaluations), strict=True):
                if hours not in each.sums.lead_hours:
                    continue
                index = each.sums.lead_hours.index(hours)
                value, low, high = each.bootstrap.interval(crps_by_degree(each, (place, index)))
                wavenumbers = np.arange(1, value.size)
                axis.plot(wavenumbers, value[1:], color=colour, linewidth=1.3, label=each.name)
                axis.fill_between(wavenumbers, low[1:], high[1:], color=colour, alpha=0.18, linewidth=0)
                wavenumber_axis(axis, value.size - 1)
            axis.set_ylim(bottom=0)
            axis.ticklabel_format(axis="y", scilimits=(-3, 4))
            axis.set_title(f"{channel.label}, day {hours / 24:g}", fontsize=9)
        row[0].set_ylabel(f"fair CRPS ({pretty(channel.units)})", fontsize=8)
        row[0].legend(fontsize=7, framealpha=0.7, edgecolor="none")
    put_title(figure, "CRPS of every total wavenumber alone", evaluations)
    return figure


def growth_pages(evaluations: Sequence[Evaluation]) -> Iterator[Page]:
    """Power of errors by wavenumber, a line per lead time, beside what it grows to; a picture per forecast."""
    for each in evaluations:
        for number, channels in pages(each.sums.spectra):
            yield f"error_growth_{file_name(each)}{number}", partial(_growth_page, each, channels)


def _growth_page(evaluation: Evaluation, channels: Sequence[Channel]) -> Figure:
    single = evaluation.sums.members == 1
    kinds = [(MEMBER_ERROR, "the forecast" if single else "single members", 2)]
    if not single:
        kinds.append((MEAN_ERROR, f"the mean of {evaluation.sums.members} members", 1))
    figure, axes = blank(len(channels), len(kinds), 4.8, 3.0)
    for row, channel in zip(axes, channels, strict=True):
        power = evaluation.mean(evaluation.sums.scales[:, evaluation.sums.spectra.index(channel)])[0]
        for axis, (kind, what, factor) in zip(row, kinds, strict=True):
            _growth(axis, evaluation, power[:, kind], power[:, REFERENCE], factor)
            axis.set_title(f"{channel.label}: error of {what}", fontsize=9)
        row[0].set_ylabel(f"power of the error ({pretty(channel.units, power=2)})", fontsize=8)
        for axis in row:
            axis.legend(fontsize=7, framealpha=0.7, edgecolor="none", loc="lower left", ncols=2)
    put_title(figure, "Error growth by scale", [evaluation], intervals="")
    return figure


def _growth(axis: Axes, evaluation: Evaluation, errors: FloatArray, truth: FloatArray, factor: int) -> None:
    """Lines of one panel, from ``(lead, wavenumber)``: errors, and the truth's power times the factor."""
    leads = evaluation.sums.lead_hours
    wavenumbers = np.arange(1, errors.shape[-1])
    shades = matplotlib.colormaps[LEAD_COLOURS](np.linspace(0.05, 1, len(leads)))
    named = shown_leads(evaluation)
    for index, (lead, power, shade) in enumerate(zip(leads, errors, shades, strict=True)):
        label = f"day {lead / 24:g}" if index in named else None
        axis.loglog(wavenumbers, power[1:], color=shade, linewidth=1.2, label=label)
    # Of the truth less the climatology nothing is known at hours of the day that the climatology lacks.
    known = np.isfinite(truth[:, 1:]).all(axis=1)
    largest = np.nanmax(errors[:, 1:])
    if known.any():
        usual = factor * truth[known, 1:].mean(axis=0)
        label = f"{factor} × power of the truth" if factor > 1 else "power of the truth"
        axis.loglog(wavenumbers, usual, "--", color=TRUTH, linewidth=1.4, label=label)
        largest = usual.max()
    # Below the first line there is room for the legend.
    axis.set_ylim(bottom=max(largest * LEAST_ERROR_POWER, 0.1 * axis.dataLim.minposy))
    wavenumber_axis(axis, errors.shape[-1] - 1)
