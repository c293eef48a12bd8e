"""What a flight recorder has seen: members' power, mass, moisture and range over lead time."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ..arrays import AnyArray, FloatArray
from ..errors import InputError
from ..forecast.health.record import Line, Section, read_record
from ..wording.numbers import counted
from .drawing import when
from .plumes import COLOUR, MEDIAN
from .styles import style_of

NUMBERS = (
    ("mass_change", "Mean sea level pressure, change of the global mean (Pa)", 0.0),
    ("moisture_ratio", "Water in the column, over that of the start", 1.0),
    ("beyond", "Farthest beyond the range of the start (standard deviations)", 0.0),
)
"""Name, title, and where a member lies that is as it started."""

MOST_ALARMS = 8
"""That are told in words."""


def section_of(path: Path, dataset: xarray.Dataset) -> Section:
    """What a record says of an ensemble's members.

    Parameters
    ----------
    path : Path
        Of the record.
    dataset : xarray.Dataset
        As `canonical` returns it.

    Raises
    ------
    InputError
        If it cannot be read, or has nothing of these members from this initial time.
    """
    sections = read_record(path)
    start = dataset["time"].values.astype("datetime64[s]")
    numbers = set(dataset["number"].values.tolist())
    for section in sections:
        if np.datetime64(section.header["initial_time"], "s") == start:
            lines = [line for line in section.lines if line["member"] in numbers]
            if lines:
                return Section(section.header, lines, section.ending)
    times = ", ".join(section.header["initial_time"] for section in sections)
    raise InputError(f"--health {path}: expected a record of members of {start}, got one of {times or 'no run'}")


def drawn(dataset: xarray.Dataset, section: Section) -> Figure:
    """Lines of all members: power by field and wavenumbers, then mass, moisture and range."""
    fields, waves = list(section.lines[0]["power"]), section.header["waves"]
    panels = len(fields) + len(NUMBERS)
    rows = -(-panels // 2)
    figure = Figure(figsize=(9, 1.7 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True).ravel()
    days, members = _axes_of(section.lines)
    colours = [to_hex(colour) for colour in matplotlib.colormaps["magma"](np.linspace(0.15, 0.75, len(waves)))]
    for axis, name in zip(axes, fields, strict=False):
        axis.set_yscale("log")
        for group, ((first, last), colour) in enumerate(zip(waves, colours, strict=True)):
            values = _table(section.lines, days, members, lambda line, at=(name, group): line["power"][at[0]][at[1]])
            _lines(axis, days, values, colour, label=f"wavenumbers {first} to {last}")
        _furnish(axis, f"{_title(name)}: power over that of the start", 1.0)
    for axis, (name, title, origin) in zip(axes[len(fields) :], NUMBERS, strict=False):
        values = _table(section.lines, days, members, lambda line, name=name: _number(line[name]))
        _lines(axis, days, values, COLOUR)
        _furnish(axis, title, origin)
    for axis in axes[panels:]:
        axis.set_axis_off()
    for axis in axes[panels - 2 : panels]:
        axis.set_xlabel("lead time (days)", fontsize=8)
        axis.tick_params(labelbottom=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7, frameon=False)
    figure.suptitle(f"Health of {counted(len(members), 'member')}, {when(dataset, 0).partition(',')[0]}")
    return figure


def words(section: Section) -> str:
    """How many left their bands and in what, as HTML."""
    alarms = [
        f"member {line['member']}, +{line['lead_time_hours']} h: {alarm}"
        for line in section.lines
        for alarm in line["alarms"]
    ]
    ending = section.ending or {}
    text = "" if ending.get("event") == "end" else "<p>The record does not tell of the end of the run.</p>"
    if ending.get("event") == "failed":
        text = f"<p class=warning>The run failed: {html.escape(str(ending.get('message')))}</p>"
    if not alarms:
        return f"{text}<p>No member left its bands.</p>"
    listed = "".join(f"<li>{html.escape(alarm)}" for alarm in alarms[:MOST_ALARMS])
    more = f"<p>{counted(len(alarms) - MOST_ALARMS, 'more alarm')} in the record.</p>"
    return f"{text}<p>Members that left their bands:</p><ul>{listed}</ul>" + (more if alarms[MOST_ALARMS:] else "")


def _axes_of(lines: Sequence[Line]) -> tuple[FloatArray, list[int]]:
    hours = sorted({line["lead_time_hours"] for line in lines})
    return np.array(hours) / 24, sorted({line["member"] for line in lines})


def _table(lines: Sequence[Line], days: FloatArray, members: Sequence[int], take: Any) -> FloatArray:
    """Values ``(lead time, member)``; NaN where there is none."""
    place = {member: at for at, member in enumerate(members)}
    table = np.full((len(days), len(members)), np.nan)
    for line in lines:
        value = take(line)
        if value is not None:
            table[np.searchsorted(days, line["lead_time_hours"] / 24), place[line["member"]]] = value
    return table


def _number(value: Any) -> float | None:
    return value[1] if isinstance(value, list) else value


def _lines(axis: Axes, days: AnyArray, values: FloatArray, colour: str, label: str | None = None) -> None:
    axis.plot(days, values, color=colour, linewidth=0.6, alpha=0.6, marker="." if len(days) == 1 else "")
    there = ~np.isnan(values).all(axis=1)
    if there.any():
        axis.plot(days[there], np.nanmedian(values[there], axis=1), color=colour, linewidth=1.6, label=label)


def _furnish(axis: Axes, title: str, origin: float) -> None:
    axis.axhline(origin, color=MEDIAN, linewidth=0.6, linestyle=":")
    axis.set_title(title, fontsize=8, loc="left", pad=3)
    axis.grid(color="#0000001f", linewidth=0.5)
    axis.tick_params(labelsize=7)
    axis.margins(x=0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _title(name: str) -> str:
    """A field in words: ``z500`` is geopotential height at 500 hPa."""
    param = name.rstrip("0123456789")
    level = name[len(param) :]
    return style_of(param, float(level) if level else None).title
