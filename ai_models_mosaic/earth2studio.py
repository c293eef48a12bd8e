"""Mosaic as a prognostic model of NVIDIA's earth2studio, whose protocol goes by names: it need not be installed.

>>> from ai_models_mosaic.earth2studio import Mosaic
>>> model = Mosaic("mini", seed=0)
>>> {name: len(values) for name, values in model.input_coords().items()}
{'batch': 0, 'time': 0, 'lead_time': 2, 'variable': 82, 'lat': 31, 'lon': 60}
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .api import load_model
from .arrays import AnyArray, BoolArray, Float32Array
from .channels import CHANNELS
from .checkpoints.hub import REPOSITORY, REVISION
from .errors import CheckpointError, InputError, OptionError
from .forecast.rollout import Ensemble, rollout
from .geometry.grid import SAME_POINT_DEG
from .state import InitialState
from .variants import VARIANTS

Coordinates = OrderedDict[str, AnyArray]
"""Values along every dimension of a tensor, in the order of its dimensions."""

OTHER_NAMES = {"2t": "t2m", "10u": "u10m", "10v": "v10m"}
"""Channels whose names are others there than ECMWF's."""

VARIABLES = tuple(OTHER_NAMES.get(channel.label, channel.label) for channel in CHANNELS)
"""The channels by earth2studio's names, in their order."""

DIMENSIONS = ("time", "lead_time", "variable", "lat", "lon")
"""The last of every tensor; one more may come before them, of members."""

HOUR = np.timedelta64(1, "h")


class CoordinatesError(InputError, ValueError):
    """Coordinates that are not the model's; the protocol wants a `ValueError`."""


class Mosaic:
    """A variant of Mosaic after the protocol `earth2studio.models.px.PrognosticModel`.

    Tensors have the dimensions ([ensemble or another,] time, lead_time, variable, lat, lon), in physical units.
    Along ``ensemble``, the coordinate i is member i + 1 of this package's forecasts; along a dimension of any other
    name, the place i is. Perturbations are of the seed, initial time, member and step alone, so that a member is the
    same in any batch. earth2studio's own batching would hide the coordinate, and with it the member; it is not used.

    Parameters
    ----------
    variant : str
        ``era5``, ``hres`` or ``mini``.
    seed : int
        0 … 2⁶⁴ − 1, of the perturbations.
    noise_factor : float
        What perturbations are multiplied with; 0: none.
    antithetic : bool
        Every even member has the negated perturbations of the odd one before it.
    device : str, torch.device or None
        As of `to`; None: a GPU where there is one.
    **options : object
        As of `load_model`: ``checkpoint``, ``assets``, ``precision``, ``engine`` and others.

    Raises
    ------
    MosaicError
        If weights cannot be loaded, or a value makes no sense.
    """

    def __init__(
        self,
        variant: str = "era5",
        *,
        seed: int = 0,
        noise_factor: float = 1.0,
        antithetic: bool = False,
        device: str | torch.device | int | None = None,
        **options: Any,
    ) -> None:
        self._noise: dict[str, Any] = {"seed": seed, "noise_factor": noise_factor, "antithetic": antithetic}
        # It raises if they make no sense.
        Ensemble(members=(1,), **self._noise)
        self._options, self._device = options, _device_name(device)
        self._model = load_model(variant, device=self._device, **options)

    @classmethod
    def load_default_package(cls) -> Any:
        """The released weights on the Hugging Face hub, at the revision that this package was made for.

        Returns
        -------
        earth2studio.models.auto.Package

        Raises
        ------
        OptionError
            If earth2studio is not installed.
        """
        try:
            from earth2studio.models.auto import Package
        except ImportError as error:
            raise OptionError(
                f"load_default_package: expected earth2studio to be installed, got {error}; install it, or give the "
                "folder of the weights as assets= to Mosaic"
            ) from error
        # Under their own names, which say whether weights are a .pt or a .safetensors file.
        cache = {"cache_storage": Package.default_cache("mosaic"), "same_names": True}
        return Package(f"hf://{REPOSITORY}@{REVISION}", cache_options=cache)

    @classmethod
    def load_model(cls, package: Any, variant: str = "era5", **options: Any) -> Mosaic:
        """The model with the weights of a package.

        Parameters
        ----------
        package : earth2studio.models.auto.Package
            Holds the variant's files by their names on the hub; none is asked for ``mini``, whose weights are here.
        variant : str
            ``era5``, ``hres`` or ``mini``.
        **options : object
            As of `Mosaic`.

        Returns
        -------
        Mosaic

        Raises
        ------
        MosaicError
            If weights cannot be loaded, or a value makes no sense.
        """
        names = VARIANTS[variant].asset_files if variant in VARIANTS else ()
        folders = [_folder_of(Path(package.resolve(name)), name) for name in names]
        if folders:
            options = {"assets": folders[0], **options}
        return cls(variant, **options)

    def input_coords(self) -> Coordinates:
        """What `__call__` takes; empty where any coordinate will do.

        Returns
        -------
        OrderedDict of str to array
            ``batch``, ``time``, ``lead_time`` (timedelta64), ``variable``, ``lat`` (90 … -90), ``lon`` (0 … 360).
        """
        variant = self._model.variant
        grid = variant.architecture.grid
        return OrderedDict(
            batch=np.empty(0),
            time=np.empty(0),
            lead_time=np.array(variant.lags_hours) * HOUR,
            variable=np.array(VARIABLES),
            lat=np.array(grid.latitude_deg[::-1]),
            lon=np.array(grid.longitude_deg),
        )

    def output_coords(self, input_coords: Coordinates) -> Coordinates:
        """What `__call__` gives for what it takes.

        Parameters
        ----------
        input_coords : OrderedDict of str to array
            As of `input_coords`, at any lead time that is a multiple of the step.

        Returns
        -------
        OrderedDict of str to array
            The same at one lead time, a step later.

        Raises
        ------
        CoordinatesError
            If they are not the model's; a `ValueError`, which says which.
        """
        names, expected = tuple(input_coords), self.input_coords()
        if names[-len(DIMENSIONS) :] != DIMENSIONS or len(names) > len(DIMENSIONS) + 1:
            raise CoordinatesError(
                f"expected the dimensions {', '.join(DIMENSIONS)}, and at most one before them, got "
                f"{', '.join(names) or 'none'}"
            )
        lead_times = np.asarray(input_coords["lead_time"])
        _compare("variable", expected["variable"], input_coords["variable"])
        _compare("lat", expected["lat"], input_coords["lat"], SAME_POINT_DEG)
        _compare("lon", expected["lon"], input_coords["lon"], SAME_POINT_DEG)
        _compare("lead_time", expected["lead_time"], lead_times - lead_times[-1:])
        hours, step_hours = lead_times[-1] / HOUR, self._model.variant.step_hours
        if hours < 0 or hours % step_hours:
            raise CoordinatesError(
                f"lead_time: expected the last to be 0 h or a multiple of the step of {step_hours} h, got {hours:g} h"
            )
        return OrderedDict(input_coords, lead_time=lead_times[-1:] + step_hours * HOUR)

    def to(self, device: str | torch.device | int) -> Mosaic:
        """Run on a device; weights are loaded again if they are on another.

        Parameters
        ----------
        device : str, torch.device or int
            ``cpu``, ``cuda`` or ``cuda:1``.

        Returns
        -------
        Mosaic
            Itself.

        Raises
        ------
        MosaicError
            If there is no such device, or weights cannot be loaded.
        """
        name = _device_name(device)
        if name != self._device:
            self._model = load_model(self._model.variant.name, device=name, **self._options)
            self._device = name
        return self

    def front_hook(self, x: Tensor, coords: Coordinates) -> tuple[Tensor, Coordinates]:
        """To be replaced by who wants to change what a step of `create_iterator` starts from."""
        return x, coords

    def rear_hook(self, x: Tensor, coords: Coordinates) -> tuple[Tensor, Coordinates]:
        """To be replaced by who wants to change what a step of `create_iterator` has made."""
        return x, coords

    def __call__(self, x: Tensor, coords: Coordinates) -> tuple[Tensor, Coordinates]:
        """Make one step.

        Parameters
        ----------
        x : tensor ([member,] time, lead_time, variable, lat, lon)
            Physical units, SI.
        coords : OrderedDict of str to array
            Of its dimensions; see `output_coords`.

        Returns
        -------
        x : float32 tensor ([member,] time, 1, variable, lat, lon)
            On the device of what was given.
        coords : OrderedDict of str to array
            Of its dimensions.

        Raises
        ------
        CoordinatesError
            If coordinates are not the model's, or not those of the tensor.
        ForecastError
            If a field becomes NaN or infinite.
        """
        made, members = self.output_coords(coords), _members(coords)
        _check_shape(x, coords)
        step = round(made["lead_time"][0] / HOUR) // self._model.variant.step_hours
        given = x.detach().to("cpu", torch.float32).reshape(len(members), *x.shape[-len(DIMENSIONS) :]).numpy()
        histories = given.transpose(1, 0, 2, 5, 4, 3)[..., ::-1, :]
        times = np.asarray(coords["time"]).astype("datetime64[s]").tolist()
        values = np.stack(
            [self._step(step, time, members, own) for time, own in zip(times, histories, strict=True)], axis=1
        )
        fields = np.ascontiguousarray(values[..., ::-1, :].transpose(0, 1, 4, 3, 2))
        shape = [len(values) for values in made.values()]
        return torch.from_numpy(fields).reshape(shape).to(x.device), made

    def create_iterator(self, x: Tensor, coords: Coordinates) -> Iterator[tuple[Tensor, Coordinates]]:
        """Make one step after another, without end.

        Parameters
        ----------
        x : tensor ([member,] time, lead_time, variable, lat, lon)
            As of `__call__`.
        coords : OrderedDict of str to array
            As of `__call__`.

        Returns
        -------
        iterator of (tensor, OrderedDict)
            As `__call__` gives them; first the newest state of what was given.

        Raises
        ------
        CoordinatesError
            If coordinates are not the model's, or not those of the tensor.
        """
        self.output_coords(coords)
        _check_shape(x, coords)
        return self._steps(x, coords)

    def _steps(self, x: Tensor, coords: Coordinates) -> Iterator[tuple[Tensor, Coordinates]]:
        axis = -len(DIMENSIONS) + DIMENSIONS.index("lead_time")
        newest = len(coords["lead_time"]) - 1
        yield x.narrow(axis, newest, 1), OrderedDict(coords, lead_time=coords["lead_time"][-1:])
        while True:
            x, coords = self.front_hook(x, coords)
            made, made_coords = self.rear_hook(*self(x, coords))
            x = torch.cat([x.narrow(axis, 1, newest), made.to(x)], dim=axis)
            lead_times = np.concatenate([coords["lead_time"][1:], made_coords["lead_time"]])
            coords = OrderedDict(coords, lead_time=lead_times)
            yield made, made_coords

    def _step(self, step: int, time: datetime, members: Sequence[int], histories: Float32Array) -> Float32Array:
        """One step of the members of one initial time, by the clock and noise of all forecasts of this package."""
        variant, engine = self._model.variant, self._model.engine
        # A later step starts from later states, and all the same goes by the initial time.
        times = tuple(time + timedelta(hours=lag) for lag in variant.lags_hours)
        starts = {
            member: InitialState(variant.architecture.grid, times, np.ascontiguousarray(history))
            for member, history in zip(members, histories, strict=True)
        }
        ensemble = Ensemble(members=tuple(members), per_batch=engine.best_batch(len(members)), **self._noise)
        batches = tuple(ensemble.batches())
        before = step * len(batches)
        made = rollout(engine, starts, ensemble, variant.step_hours, step, batches=batches, done=before)
        return np.concatenate([part.values for part in made])


def _device_name(device: str | torch.device | int | None) -> str:
    """A device as `load_model` has it; the same for all names of it."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is None and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "cpu" if chosen.type == "cpu" else str(chosen)


def _folder_of(path: Path, name: str) -> Path:
    """The assets folder that a file of a package is in: laid out as on the hub, or flat, as in a cache."""
    parts = Path(name).parts
    if path.name != parts[-1]:
        raise CheckpointError(
            f"{name}: expected the package to keep names of files, got {path}; make it with "
            'cache_options={"same_names": True}, as load_default_package does'
        )
    return path.parents[len(parts) - 1] if path.parts[-len(parts) :] == parts else path.parent


def _members(coords: Coordinates) -> tuple[int, ...]:
    """The members of a tensor, from 1."""
    if len(coords) == len(DIMENSIONS):
        return (1,)
    name, values = next(iter(coords.items()))
    if name != "ensemble":
        return tuple(range(1, len(values) + 1))
    numbers = np.asarray(values)
    if (numbers < 0).any() or (numbers % 1).any() or len(np.unique(numbers)) < len(numbers):
        raise CoordinatesError(f"ensemble: expected distinct whole numbers from 0, got {numbers.tolist()}")
    return tuple(int(number) + 1 for number in numbers)


def _check_shape(x: Tensor, coords: Coordinates) -> None:
    sizes = tuple(len(values) for values in coords.values())
    if tuple(x.shape) != sizes or 0 in sizes:
        described = ", ".join(f"{name} {size}" for name, size in zip(coords, sizes, strict=True))
        raise CoordinatesError(f"expected a tensor of {described}, none of them 0, got shape {tuple(x.shape)}")


def _compare(name: str, expected: AnyArray, values: Any, tolerance: float = 0.0) -> None:
    """Raise if coordinates are not what is expected, at the first that is not."""
    got = np.asarray(values)
    if got.shape != expected.shape:
        raise CoordinatesError(f"{name}: expected {_shown(expected)}, got {_shown(got)}")
    same: BoolArray = np.abs(got - expected) <= tolerance if tolerance else got == expected
    if not same.all():
        place = int(np.argmin(same))
        raise CoordinatesError(
            f"{name}: expected {_shown(expected)}, with {expected[place]} at place {place}, got {got[place]} there"
        )


def _shown(values: AnyArray) -> str:
    ends = f" from {values[0]} to {values[-1]}" if values.ndim == 1 and values.size else ""
    return f"{values.size} values{ends}" if values.ndim == 1 else f"an array of shape {values.shape}"
