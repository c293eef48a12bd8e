"""Forecasts in a program: load a model, open an input, forecast. ``import ai_models_mosaic`` has these names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .engines.choice import prepare_engine
from .errors import OptionError
from .forecast.bulletin import Bulletin
from .forecast.destination import Destination
from .forecast.endings import told
from .forecast.fitted import refuse_other_fits
from .forecast.options import Options
from .forecast.progress import Watch
from .forecast.ranks import SingleRank
from .forecast.rollout import rollout
from .forecast.runner_options import steps_of
from .forecast.series import ForecastSeries
from .inputs.fields import Wanted
from .inputs.open import OpenInput, open_for
from .options.declarations import errors_in_python, from_keywords
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
        The initial time, UTC without zone; None for the newest complete history.

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
        members: int | Sequence[int] = 1,
        lead_time_hours: int = 240,
        seed: int = 0,
        **options: Any,
    ) -> Forecast:
        """An ensemble, of which nothing is computed yet.

        Parameters
        ----------
        start : OpenInput
            As `open_input` gives it.
        members : int or sequence of int
            How many, numbered from 1, or which: each is the same in any company.
        lead_time_hours : int
            Length, h; a multiple of the variant's step.
        seed : int
            0 … 2⁶⁴ − 1, of the perturbations; the initial time is part of it.
        **options : object
            ``members_per_batch``, ``noise_factor``, ``noise_factor_file``, ``perturbations``, ``antithetic``,
            ``clip_humidity``, as the options of the command; ``calibration`` is for `Forecast.write`, for it moves
            what is written.

        Returns
        -------
        Forecast

        Raises
        ------
        OptionError
            If a value makes no sense; names the argument.
        """
        if not (isinstance(members, int | np.integer) or len(members)):
            raise OptionError("members: expected a number, or a list of numbers from 1, got an empty list")
        chosen: dict[str, Any] = (
            {"num_ensemble_members": int(members)}
            if isinstance(members, int | np.integer)
            else {"member_number": tuple(int(member) for member in members)}
        )
        given = {**self.options, **chosen, "seed": seed, **options}
        with errors_in_python(Options, **NAMES):
            made = from_keywords(Options, given)
            _refuse_of_the_command(made)
            if made.output.calibration is not None:
                raise OptionError(
                    "--calibration: it moves members where they are written, and those here would be as they were "
                    "made; give it to Forecast.write"
                )
            return Forecast(self, start, steps_of(lead_time_hours, self.variant.step_hours), given)


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
        options, engine = from_keywords(Options, self.options), self.model.engine
        refuse_other_fits(options, variant=self.model.variant.name, weights=engine.checkpoint_sha256)
        ensemble = Destination(self.model.variant, options, self.steps, None).settings("").ensemble
        if options.members_per_batch is None:
            ensemble = replace(ensemble, per_batch=engine.best_batch(len(ensemble.members)))
        made = rollout(engine, self._starts, ensemble, self.model.variant.step_hours, self.steps)
        for _, batches in itertools.groupby(made, key=lambda one: one.step):
            parts = list(batches)
            values = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts])
            whole = replace(parts[0], members=ensemble.members, values=values)
            yield clipped(whole) if options.output.clip_humidity else whole

    def to_xarray(self, params: Sequence[str] | None = None) -> xarray.Dataset:
        """Compute it, and keep some fields in memory.

        Parameters
        ----------
        params : sequence of str or None
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
        return dataset_of(self, params)

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
            made = from_keywords(Options, {**self.options, **where, **options})
            _refuse_of_the_command(made)
            destination = Destination(self.model.variant, made, self.steps, None if other else str(path))
            destination.check([self.start.initial_time], self.start.source)
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
        return self.start.states(options.members, options.starts)


def _refuse_of_the_command(options: Options) -> None:
    """Refuse what goes by the time of a process, by what is beside its output, or by more than one start."""
    if options.growth.is_open or options.growth.extend is not None:
        raise OptionError("--extend, --deadline and --mc-error: they are for the command; say here how many members")
    if options.lagged is not None:
        raise OptionError("--lagged: it is for the command; a start holds one time")
