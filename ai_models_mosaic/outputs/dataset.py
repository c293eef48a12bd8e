"""Steps of a forecast as one xarray Dataset in memory, under the names of the stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import FloatArray
from ..errors import OptionError
from ..geometry.grid import Region
from ..params import CHANNEL_FIELDS, Field, named
from ..state import ForecastStep
from .store.layout import DIMENSIONS, Layout, coordinates, variables

if TYPE_CHECKING:
    import xarray

LEADING = ("number", "step")
"""First dimensions of every variable."""


def dataset_of(steps: Iterable[ForecastStep], params: Sequence[str] | None) -> xarray.Dataset:
    """Go through a forecast, and keep some of its fields.

    Parameters
    ----------
    steps : iterable of ForecastStep
        Every lead time, with all members.
    params : sequence of str or None
        As `params.named` takes them; None for all channels.

    Returns
    -------
    xarray.Dataset
        float32, dimensions number, step, level, latitude (north to south), longitude.

    Raises
    ------
    OptionError
        If there is no such field, or none is named.
    """
    import xarray

    if params is not None and not params:
        raise OptionError("params: expected some fields, or None for all, got an empty list")
    chosen = CHANNEL_FIELDS if params is None else dict.fromkeys(f for name in params for f in named(name, "params"))
    fields = tuple(chosen)
    values: dict[Field, list[FloatArray]] = {field: [] for field in fields}
    layout, times = None, []
    for step in steps:
        layout = layout or Layout(Region.whole(step.grid), step.initial_time, (), step.members, fields, ())
        times.append(timedelta(hours=step.lead_time_hours))
        for field in fields:
            values[field].append(step.field(field.label).astype(np.float32))
    if layout is None:
        raise ValueError("expected steps of a forecast, got none")
    arrays: dict[str, Any] = {}
    for variable in variables(layout):
        attributes = {
            key: value for key, value in variable.attributes.items() if key not in (DIMENSIONS, "coordinates")
        }
        stacked = [np.stack(values[field], axis=1) for field in variable.fields]
        has_levels = "level" in variable.dimensions
        dimensions = (*LEADING, *(("level",) if has_levels else ()), "latitude", "longitude")
        arrays[variable.name] = (dimensions, np.stack(stacked, axis=2) if has_levels else stacked[0], attributes)
    return xarray.Dataset(arrays, _coordinates(layout, times), {"Conventions": "CF-1.8"})


def _coordinates(layout: Layout, times: Sequence[timedelta]) -> dict[str, Any]:
    start, steps = np.datetime64(layout.initial_time, "ns"), np.array(times, dtype="timedelta64[ns]")
    found: dict[str, Any] = {
        "time": ((), start, {"standard_name": "forecast_reference_time", "long_name": "initial time"}),
        "step": (("step",), steps, {"standard_name": "forecast_period", "long_name": "lead time"}),
        "valid_time": (("step",), start + steps, {"standard_name": "time", "long_name": "valid time"}),
    }
    for name, (values, attributes) in coordinates(layout).items():
        if name in ("number", "level", "latitude", "longitude"):
            kept = {key: value for key, value in attributes.items() if key != DIMENSIONS}
            found[name] = ((name,), values[::-1] if name == "latitude" else values, kept)
    return found
