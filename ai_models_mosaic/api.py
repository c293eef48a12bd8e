"""Forecasts in a program: load a model, open an input, forecast. ``import ai_models_mosaic`` has these names."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .engines.choice import prepare_engine
from .errors import OptionError
from .forecast.bulletin import Bulletin
from .forecast.destination import Destination
from .forecast.endings import told
from .forecast.engine_options import EngineOptions
from .forecast.ensemble_options import EnsembleOptions
from .forecast.fitted import refuse_other_fits
from .forecast.growth import Growth
from .forecast.health.recorder import check as check_health
from .forecast.lagged import brought_to_start
from .forecast.options import Options
from .forecast.progress import Watch
from .forecast.ranks import SingleRank
from .forecast.rollout import rollout
from .forecast.runner_options import steps_of
from .forecast.series import ForecastSeries
from .inputs.fields import Wanted
from .inputs.open import OpenInput, open_for
from .options.declarations import errors_in_python, from_keywords, keywords_of, refuse_other_keywords
from .outputs.clipping import clipped
from .outputs.dataset import dataset_of
from .state import ForecastStep, InitialState
from .variants import VARIANTS, Variant

if TYPE_CHECKING:
    import xarray

    from .engines import LoadedEngine

NAMES = {"num_ensemble_members": "members", "member_number": "members", "lead_time": "lead_time_hours"}
"""Arguments here that have another name on the command line."""

SWITCHED_OFF = {".zarr": "zarr", ".nc": "netcdf"}
"""Endings of outputs that are no GRIB, and the options that ask for them."""

OF_THE_ENGINE = keywords_of(EngineOptions)
"""Keywords of `load_model`."""

OF_MEMBERS = keywords_of(EnsembleOptions) - keywords_of(Growth) - {
    "variant",
    "num_ensemble_members",
    "member_number",
    "seed",
} | {"clip_humidity", "calibration"}
"""Those of `Model.forecast`."""

OF_A_PROCESS = frozenset(("input_grid", "patience", "dates", "quiet", "log_format"))
"""Those of neither: the input is open, and what a program logs is its own affair."""

OF_THE_OUTPUT = keywords_of(Options) - OF_THE_ENGINE - keywords_of(EnsembleOptions) - OF_A_PROCESS
"""Those of `Forecast.write`."""


def load_model(
    variant: str = "mini",
    *,
    checkpoint: str | Path | None = None,
    assets: str | Path = ".",
    device: str | None = None,
    precision: str = "auto",
    engine: str = "torch",
    **options: Any,
) -> Model:
    """Load a variant with its weights.

    Parameters
    ----------
    variant : str
        ``era5``, ``hres`` or ``mini``.
    checkpoint : path or None
        Weights to use instead of the variant's.
    assets : path
        Folder of weights and other assets; ``mini`` needs none.
    device : str or None
        ``cpu``, ``cuda`` or ``cuda:1``; None: a GPU where there is one.
    precision : str
        ``auto``, ``float32``, ``float16`` or ``bfloat16``, of the matrix products.
    engine : str
        ``torch`` or ``onnx``.
    **options : object
        ``attention_backend``, ``compile``, ``cuda_graphs``, ``onnx_model``, ``onnx_provider``, ``verify_assets``, as
        the options of the command.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        If weights are not there, or not what they should be.
    OptionError
        If a value makes no sense, or the device cannot be had.
    """
    if variant not in VARIANTS:
        raise OptionError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    given = {**options, "checkpoint": None if checkpoint is None else Path(checkpoint)}
    given |= {"variant": variant, "precision": precision, "engine": engine}
    with errors_in_python(Options, **NAMES):
        refuse_other_keywords(options, OF_THE_ENGINE)
        choice = from_keywords(Options, given).engine_choice(Path(assets), device=device)
        return Model(VARIANTS[variant], prepare_engine(VARIANTS[variant], choice)(), given)


def open_input(source: Any, model: Model, *, time: datetime | None = None) -> OpenInput:
    """Open what a forecast starts from.

    Parameters
    ----------
    source : str, Path, xarray.Dataset or iterable of earthkit-data fields
        A GRIB file, a Zarr store, a URL of one, a dataset in the layout of WeatherBench 2, or GRIB fields.
    model : Model
        Whose grid and history are needed.
    time : datetime or None
        The initial time, UTC where it has no zone; None for the newest complete history.

    Returns
    -------
    OpenInput

    Raises
    ------
    InputError
        If it does not hold what is needed; says what is missing.
    """
    with errors_in_python(Options, **NAMES, file="source", date="time"):
        return open_for(source, model.variant, time)


@dataclass(frozen=True)
class Model:
    """A variant with its weights, ready to forecast; see `load_model`.

    Parameters
    ----------
    variant : Variant
        Grid, step and history.
    engine : LoadedEngine
        Makes the steps.
    options : mapping of str to object
        What it was loaded with.
    """

    variant: Variant
    engine: LoadedEngine
    options: Mapping[str, Any]

    def forecast(
        self,
        start: OpenInput,
        members: int | Sequence[int] | None = None,
        lead_time_hours: int = 240,
        seed: int = 0,
        **options: Any,
    ) -> Forecast:
        """An ensemble, of which nothing is computed yet.

        Parameters
        ----------
        start : OpenInput
            As `open_input` gives it.
        members : int, sequence of int or None
            How many, numbered from 1, or which: each is the same in any company. None: one, or as many as ``crossed``
            says.
        lead_time_hours : int
            Length, h; a multiple of the variant's step.
        seed : int
            0 … 2⁶⁴ − 1, of the perturbations; the initial time is part of it.
        **options : object
            ``members_per_batch``, ``noise_factor``, ``noise_factor_file``, ``perturbations``, ``antithetic``,
            ``lagged``, ``crossed``, ``clip_humidity``, as the options of the command; ``calibration`` is for
            `Forecast.write`, for it moves what is written.

        Returns
        -------
        Forecast

        Raises
        ------
        OptionError
            If a value makes no sense; names the argument.
        """
        given = {**self.options, **_chosen(members), "seed": seed, **options}
        with errors_in_python(Options, **NAMES):
            if options.keys() & keywords_of(Growth):
                raise OptionError(
                    "--extend, --deadline and --mc-error: they are for the command, whose ensembles grow; say here how "
                    "many members"
                )
            refuse_other_keywords(options, OF_MEMBERS)
            made = from_keywords(Options, given)
            if made.output.calibration is not None:
                raise OptionError(
                    "--calibration: it moves members where they are written, and those here would be as they were "
                    "made; give it to Forecast.write"
                )
            if start.variant != self.variant:
                raise OptionError(
                    f"start: expected one that was opened for {self.variant.name}, got one for {start.variant.name}"
                )
            if made.lagged is not None:
                made.lagged.check(self.variant.step_hours)
            if not (isinstance(lead_time_hours, Real) and float(lead_time_hours).is_integer()):
                raise OptionError(f"--lead-time: expected a whole number of hours, got {lead_time_hours!r}")
            return Forecast(self, start, steps_of(int(lead_time_hours), self.variant.step_hours), given)


@dataclass(frozen=True)
class Forecast:
    """An ensemble that is computed while it is gone through, and again to the same numbers; see `Model.forecast`.

    Parameters
    ----------
    model : Model
        Makes it.
    start : OpenInput
        Where members start.
    steps : int
        After step 0.
    options : mapping of str to object
        Keywords, as of the command.
    """

    model: Model
    start: OpenInput
    steps: int
    options: Mapping[str, Any]

    def __iter__(self) -> Iterator[ForecastStep]:
        """Every lead time from step 0 on, with all members; memory does not grow with lead time."""
        with errors_in_python(Options, **NAMES):
            options, engine = from_keywords(Options, self.options), self.model.engine
            refuse_other_fits(options, variant=self.model.variant.name, weights=engine.checkpoint_sha256)
            ensemble = Destination(self.model.variant, options, self.steps, None).settings("").ensemble
            if options.members_per_batch is None:
                ensemble = replace(ensemble, per_batch=engine.best_batch(len(ensemble.members)))
            starts, step_hours = self._starts, self.model.variant.step_hours
            if options.lagged is not None:
                starts = brought_to_start(starts, ensemble, step_hours, engine, SingleRank(), Watch())
            made = rollout(engine, starts, ensemble, step_hours, self.steps)
            for _, batches in itertools.groupby(made, key=lambda one: one.step):
                whole = _together(list(batches), ensemble.members)
                yield clipped(whole) if options.output.clip_humidity else whole

    def to_xarray(self, params: Sequence[str] | str | None = None) -> xarray.Dataset:
        """Compute it, and keep some fields in memory.

        Parameters
        ----------
        params : sequence of str, str or None
            Such as ``z500``, ``2t``, ``10ws``, or ``t`` for all its levels; None for all channels.

        Returns
        -------
        xarray.Dataset
            Dimensions number, step, level, latitude (north to south), longitude; attributes after CF.

        Raises
        ------
        OptionError
            If there is no such field.
        """
        return dataset_of(self, params.split(",") if isinstance(params, str) else params)

    def write(self, path: str | Path, **options: Any) -> list[Path]:
        """Compute it, and write it as the command does, to the same bytes.

        Parameters
        ----------
        path : str or Path
            Zarr where it ends in ``.zarr``, NetCDF in ``.nc``, else GRIB; may hold GRIB keys in braces.
        **options : object
            Those of the command for its output, such as ``products="mean,spread"``, ``output_params="2t,z500"``,
            ``calibration="factors.json"``, ``resume=True``.

        Returns
        -------
        list of Path
            All files and stores.

        Raises
        ------
        MosaicError
            If something cannot be written.
        """
        other = SWITCHED_OFF.get(Path(path).suffix)
        where = {} if other is None else {other: str(path), "no_grib": True}
        with errors_in_python(Options, **NAMES, path="path"):
            refuse_other_keywords(options, OF_THE_OUTPUT - where.keys())
            made = from_keywords(Options, {**self.options, **where, **options})
            destination = Destination(self.model.variant, made, self.steps, None if other else str(path))
            times, listeners = [self.start.initial_time], made.listeners
            destination.check(times, self.start.source)
            destination.check_side_files({}, times, self.start.source, listeners)
            check_health(listeners.health, self.model.variant, resume=made.resume)
            bulletin = Bulletin(made.listeners, __package__ or "")
            session = ForecastSeries(
                destination.settings(self.start.source),
                SingleRank(),
                Watch(made.progress_file, bulletin),
                read=lambda _: self._starts,
                load=lambda: self.model.engine,
                output=destination.open,
            )
            with told(bulletin):
                bulletin.check()
                session.run([Wanted(time=self.start.initial_time)])
        return [Path(name) for name in session.provenance[0].get("files", [])]

    @cached_property
    def _starts(self) -> dict[int, InitialState]:
        options = from_keywords(Options, self.options)
        return self.start.states(options.members, options.starts, options.lagged)


def _chosen(members: int | Sequence[int] | None) -> dict[str, Any]:
    """Keywords for members, of which there are so many, or which are these; None where nothing is said of them.

    Returns
    -------
    dict
        One keyword, or none.

    Raises
    ------
    OptionError
        If they are neither.
    """
    if members is None:
        return {}
    if isinstance(members, Integral) and not isinstance(members, bool):
        return {"num_ensemble_members": int(members)}
    numbers = list(members) if isinstance(members, Iterable) and not isinstance(members, str) else []
    whole = all(isinstance(number, Integral) and number > 0 for number in numbers)
    if not numbers or not whole or len(set(numbers)) < len(numbers):
        raise OptionError(f"members: expected a number, or a list of different numbers from 1, got {members!r}")
    return {"member_number": tuple(int(number) for number in numbers)}


def _together(parts: Sequence[ForecastStep], members: Sequence[int]) -> ForecastStep:
    """A step of all members, in their order, of those of its batches."""
    if len(parts) == 1:
        return parts[0]
    places = {member: place for place, member in enumerate(itertools.chain(*(part.members for part in parts)))}
    values = np.concatenate([part.values for part in parts])
    order = [places[member] for member in members]
    # Batches of members that started at several times are not in the order of the members.
    ordered = values if order == sorted(order) else values[order]
    return replace(parts[0], members=tuple(members), values=ordered)
