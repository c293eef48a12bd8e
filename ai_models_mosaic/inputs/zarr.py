"""Fields from a Zarr store in the layout of WeatherBench 2.

Variables are named as the channels are, with dimensions time, level, latitude and longitude in any order and
direction, perhaps members, and perhaps versions of ERA5 (expver). A field that is NaN everywhere is not there.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS, Channel
from ..errors import InputError
from ..wording.redaction import redacted
from .fields import AvailableField, AvailableFields, Wanted, list_times
from .zarr_store.attributes import refuse_other_fields
from .zarr_store.layout import (
    DIMENSIONS,
    LEAD_TIME,
    MEMBER,
    arranged,
    levels_of,
    member_numbers,
    require_coordinates,
    times_of,
)
from .zarr_store.opening import SUFFIX, is_zarr, open_dataset, values_of

if TYPE_CHECKING:
    import xarray

__all__ = ["is_zarr", "open_store", "zarr_fields"]

LOG = logging.getLogger(__name__)

INPUT_DIMENSIONS = {**DIMENSIONS, "member": MEMBER, "expver": ("expver",), "lead_time": LEAD_TIME}
"""Names that each dimension of an input may have."""

KEPT_BYTES = 2**30
"""Fields that were looked at for whether they are there, and are kept for when their values are wanted."""

MOST_TIMES_TRIED = 400
"""How many times without all fields are passed over to find the newest that has them."""

LISTED = 6
"""Fields that a warning names."""

DATASET = "the dataset"
"""What messages call one that has no name."""


def zarr_fields(path: str, lags_hours: Sequence[int], wanted: Wanted) -> AvailableFields:
    """What a store holds for one initial time.

    Parameters
    ----------
    path : str
        Local path, or a URL that fsspec knows, such as ``gs://…/era5.zarr``.
    lags_hours : sequence of int
        Hours of the states relative to the initial time, oldest first.
    wanted : Wanted
        The initial time; without one, the newest complete history.

    Raises
    ------
    InputError
        If the store cannot be opened or has no usable time.
    """
    dataset = open_store(path)
    return _available_of(Store(dataset, path), times_of(dataset, path), lags_hours, wanted)


def dataset_fields(dataset: xarray.Dataset, lags_hours: Sequence[int], wanted: Wanted) -> AvailableFields:
    """What a dataset in memory, or opened by its user, holds for one initial time; as `zarr_fields`."""
    arranged_dataset = _states_of(dataset, DATASET, INPUT_DIMENSIONS)
    times = times_of(arranged_dataset, DATASET)
    return _available_of(Store(arranged_dataset, DATASET), times, lags_hours, wanted)


class Store:
    """Reads a store variable by variable and time by time: chunks usually hold all levels.

    Parameters
    ----------
    dataset : xarray.Dataset
        With the dimensions time, level, latitude and longitude, perhaps member and expver.
    path : str
        For messages.

    Raises
    ------
    InputError
        If its levels are not to be told.
    """

    def __init__(self, dataset: xarray.Dataset, path: str) -> None:
        self.dataset, self.path = dataset, path
        self.levels_hpa = levels_of(dataset, path)
        self.members = member_numbers(dataset) if "member" in dataset.dims else [0]
        self._kept: OrderedDict[tuple[str, int, int, int], FloatArray] = OrderedDict()

    @cached_property
    def channels(self) -> list[Channel]:
        """Those that the store has variable and level of."""
        return [
            channel
            for channel in CHANNELS
            if channel.variable in self.dataset and channel.level_hpa in (None, *self.levels_hpa)
        ]

    @cached_property
    def versions(self) -> list[str]:
        """The dimension expver: ERA5 is 1, what is not final yet is 5; one without a name if there is none."""
        if "expver" not in self.dataset.dims:
            return [""]
        values = (
            self.dataset["expver"].values
            if "expver" in self.dataset.coords
            else np.arange(self.dataset.sizes["expver"])
        )
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]

    def read(self, channel: Channel, time_index: int, member: int = 0, version: int = 0) -> FloatArray:
        """One field, ``(latitude, longitude)``, as the store has it.

        Raises
        ------
        InputError
            If a chunk of it is not there, cannot be read or not be decoded.
        """
        block = self._block(channel.variable, time_index, member, version)
        return block if channel.level_hpa is None else block[self._rows.index(channel.level_hpa)]

    def present(self, time_index: int, version: int = 0) -> Iterator[tuple[Channel, bool]]:
        """Whether each field of the first member has any value; single levels first, which are quick."""
        for channel in sorted(self.channels, key=lambda channel: channel.level_hpa is not None):
            yield channel, not np.isnan(self.read(channel, time_index, version=version)).all()

    @cached_property
    def _rows(self) -> list[int]:
        """Levels of a block: those that channels need, in the store's order."""
        needed = {channel.level_hpa for channel in CHANNELS}
        return [int(level) for level in self.levels_hpa if level in needed]

    def _block(self, variable: str, time_index: int, member: int, version: int) -> FloatArray:
        key = (variable, time_index, member, version)
        if key not in self._kept:
            self._kept[key] = self._read_block(*key)
            while len(self._kept) > 1 and sum(block.nbytes for block in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _read_block(self, variable: str, time_index: int, member: int, version: int) -> FloatArray:
        array = self.dataset[variable]
        chosen = {"time": time_index, "member": member, "expver": version}
        array = array.isel({name: index for name, index in chosen.items() if name in array.dims})
        if "level" in array.dims and len(self._rows) < len(self.levels_hpa):
            array = array.isel(level=[self.levels_hpa.index(level) for level in self._rows])
        # Read as it lies, then turned: zarr 2 would read a turned one as well, but chunk by chunk.
        order = ("level", "latitude", "longitude") if "level" in array.dims else ("latitude", "longitude")
        return values_of(array.transpose(*order), self.path)


@dataclass(frozen=True)
class ZarrField:
    """One field of a store, with as much of an earthkit-data field's manner as `inputs` needs.

    Parameters
    ----------
    store : Store
        Where the values are read, when they are asked for.
    channel : Channel
        Which field.
    time_index : int
        Which time.
    member : int
        Index of the member.
    version : int
        Index along expver.
    """

    store: Store
    channel: Channel
    time_index: int
    member: int = 0
    version: int = 0

    def to_numpy(self, *, flatten: bool, dtype: type) -> FloatArray:
        """The values, ``(latitude · longitude,)`` if flattened."""
        values: FloatArray = self._values().astype(dtype)
        return values.ravel() if flatten else values

    def to_latlon(self, *, flatten: bool) -> dict[str, FloatArray]:
        """Coordinates of the values, degrees."""
        axes = (self.store.dataset[name].values for name in ("latitude", "longitude"))
        latitude, longitude = np.meshgrid(*axes, indexing="ij")
        return {"lat": latitude.ravel(), "lon": longitude.ravel()} if flatten else {"lat": latitude, "lon": longitude}

    def message(self) -> bytes:
        """What the digest of the input is made of."""
        return self._values().tobytes()

    def _values(self) -> FloatArray:
        return self.store.read(self.channel, self.time_index, self.member, self.version)


def open_store(path: str, dimensions: Mapping[str, Sequence[str]] = INPUT_DIMENSIONS) -> xarray.Dataset:
    """Open a store, its dimensions renamed.

    Parameters
    ----------
    path : str
        Local path or URL.
    dimensions : mapping of str to sequence of str
        Names that each dimension may have; time, level, latitude and longitude have to be there.

    Raises
    ------
    InputError
        If a package is missing, the store cannot be opened, it lacks a dimension or has others, or what it holds
        are no states.
    """
    return _states_of(open_dataset(path), path, dimensions)


def _states_of(dataset: xarray.Dataset, path: str, dimensions: Mapping[str, Sequence[str]]) -> xarray.Dataset:
    dataset = arranged(dataset, path, dimensions, sorted(set(dimensions) - set(DIMENSIONS)))
    require_coordinates(dataset, path, [*DIMENSIONS])
    refuse_other_fields(dataset, path)
    return _without_lead_time(dataset, path)


def _without_lead_time(dataset: xarray.Dataset, path: str) -> xarray.Dataset:
    """Drop a lead time that is nought; a forecast's time is not the time that its fields are valid at."""
    if "lead_time" not in dataset.dims:
        return dataset
    leads = dataset["lead_time"].values if "lead_time" in dataset.coords else np.arange(dataset.sizes["lead_time"])
    if leads.size == 1 and not leads.astype(np.int64).any():
        return dataset.isel(lead_time=0, drop=True)
    raise InputError(
        f"{redacted(path)} holds forecasts, with {leads.size} lead times: expected states by the time that they are "
        "valid at. Select one lead time, give time the values of the valid time, and write that"
    )


def _available_of(
    store: Store, times: Sequence[datetime], lags_hours: Sequence[int], wanted: Wanted
) -> AvailableFields:
    """The fields of the one history that may be used: an archive has far too many to look at all."""
    index_of = {time: index for index, time in enumerate(times)}
    accepted = sorted((time for time in times if wanted.accepts(time)), reverse=True)
    history_of = {time: [time + timedelta(hours=lag) for lag in lags_hours] for time in accepted}
    whole = [time for time in accepted if all(state in index_of for state in history_of[time])]
    chosen = _newest_complete(store, whole, {time: [index_of[state] for state in history_of[time]] for time in whole})
    states = [state for time in chosen or accepted[:1] for state in history_of[time] if state in index_of]
    available = AvailableFields()
    for state in states:
        version, present = _version_at(store, index_of[state], state)
        for channel in present:
            available.contents[channel.variable].add(channel.level_hpa)
            _enter(available, store, channel, state, index_of[state], version)
        if len(present) < len(store.channels):
            absent = [channel.label for channel in store.channels if channel not in present]
            LOG.warning(
                "%s: at %s UTC %d of %d fields are NaN everywhere, and count as missing: %s%s",
                redacted(store.path),
                list_times([state]),
                len(absent),
                len(store.channels),
                ", ".join(absent[:LISTED]),
                ", …" if len(absent) > LISTED else "",
            )
    # For messages, the ends of what there is.
    available.times.update([*times[:1], *states, *times[-1:]])
    return available


def _enter(
    available: AvailableFields, store: Store, channel: Channel, state: datetime, time: int, version: int
) -> None:
    index = CHANNELS.index(channel)
    for member, number in enumerate(store.members):
        field = ZarrField(store, channel, time, member, version)
        available.add(
            AvailableField(
                source=field,
                channel=index,
                valid_time=state,
                lead_time_s=0,
                number=number,
                grid=SUFFIX,
                grid_type="regular_ll",
            )
        )


def _newest_complete(
    store: Store, candidates: Sequence[datetime], history_of: Mapping[datetime, Sequence[int]]
) -> list[datetime]:
    """The newest time with all that the store could have, or else the newest; none of none.

    Raises
    ------
    InputError
        If nothing at all is there at any of them, or at too many in a row.
    """
    for passed, time in enumerate(candidates[:MOST_TIMES_TRIED]):
        if all(_is_complete(store, index) for index in reversed(history_of[time])):
            if passed:
                LOG.warning(
                    "%s: %d newer time%s (to %s UTC) %s not complete: fields there, or in the states before, are NaN "
                    "everywhere, or not written yet. Starting from %s UTC; --date chooses another",
                    redacted(store.path),
                    passed,
                    "s" if passed > 1 else "",
                    list_times(candidates[:1]),
                    "are" if passed > 1 else "is",
                    list_times([time]),
                )
            return [time]
    if not candidates:
        return []
    tried = candidates[:MOST_TIMES_TRIED]
    if len(tried) < len(candidates) or not any(_any_field(store, index) for index in history_of[tried[0]]):
        span = " to ".join(list_times([time]) for time in dict.fromkeys((tried[-1], tried[0])))
        raise InputError(
            f"{redacted(store.path)}: at {span} UTC, and the states before, not all fields have values: they are NaN "
            "everywhere, or not written yet. Choose a time that has them with --date and --time"
        )
    return [tried[0]]


def _is_complete(store: Store, time_index: int) -> bool:
    return any(all(there for _, there in store.present(time_index, version)) for version in range(len(store.versions)))


def _any_field(store: Store, time_index: int) -> bool:
    return any(there for version in range(len(store.versions)) for _, there in store.present(time_index, version))


def _version_at(store: Store, time_index: int, time: datetime) -> tuple[int, list[Channel]]:
    """The one version (expver) that all fields of a time are taken from, and those that it has.

    Raises
    ------
    InputError
        If no version has all that there is.
    """
    present = [
        {channel for channel, there in store.present(time_index, version) if there}
        for version in range(len(store.versions))
    ]
    everything = set().union(*present)
    able = [version for version, found in enumerate(present) if found == everything]
    if not able:
        listed = "; ".join(
            f"{name} has {len(found)}, from {min(found, key=CHANNELS.index).label}"
            for name, found in zip(store.versions, present, strict=True)
            if found
        )
        raise InputError(
            f"{redacted(store.path)}: at {list_times([time])} UTC no one expver has all {len(everything)} fields: "
            f"{listed}. States are not mixed from two: select or merge them before"
        )
    first = min(able, key=lambda version: (len(store.versions[version]), store.versions[version]))
    if everything and len(able) > 1:
        LOG.warning(
            "%s: at %s UTC expver %s all have the fields; %s is taken, for it comes first",
            redacted(store.path),
            list_times([time]),
            ", ".join(store.versions[version] for version in able),
            store.versions[first],
        )
    return first, [channel for channel in store.channels if channel in present[first]]
