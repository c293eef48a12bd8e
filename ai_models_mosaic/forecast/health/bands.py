"""Bands: what healthy members stay within, by default or as runs that went well have shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engines.vitals import WAVE_LIMITS, Probe
from ...errors import InputError
from ...files import parse_json, write_whole
from ...wording.numbers import rounded
from .signs import NUMBERS, RATIOS, Signs

SCHEMA = "ai-models-mosaic health bands 1"

RATIO_MARGIN = 1.5
"""Bands of ratios reach so many times beyond what runs have shown, on both sides."""

MARGIN = 0.5
"""Other bands reach beyond what runs have shown by so many of its width, on both sides."""

Band = tuple[float, float]

LONG_WAVES: Band = (0.1, 6.0)
SHORT_WAVES: Band = (0.03, 40.0)
SHORTEST_WAVES: Band = (0.01, 3000.0)
"""Of the power ratio by default: below zonal wavenumber 10, from there on, and of a grid's last third, which starts
from a coarser analysis have next to nothing of."""

DEFAULTS: Mapping[str, Band] = {
    "mass_change": (-500.0, 500.0),
    "moisture_ratio": (0.7, 1.4),
    "low": (-60.0, math.inf),
    "high": (-math.inf, 60.0),
    "beyond": (-math.inf, 15.0),
    "narrowest": (0.1, math.inf),
}
"""Units as of `Signs`."""

WORDS = {
    "mass_change": "mean pressure at sea level is {value} Pa more than at the start",
    "moisture_ratio": "water in the column is {value} times the start's",
    "low": "{field} is {value} standard deviations from the climate",
    "high": "{field} is {value} standard deviations from the climate",
    "beyond": "{field} reaches {value} standard deviations beyond its range at the start",
    "narrowest": "the range of {field} is {value} times the start's",
}


@dataclass(frozen=True)
class Bands:
    """Lower and upper limits, which are still within.

    Parameters
    ----------
    waves : tuple of (int, int)
        Groups of zonal wavenumbers.
    power : mapping of str to sequence of (float, float)
        Of the power ratio, by field and group.
    numbers : mapping of str to (float, float)
        Of the other numbers, by their names in `Signs`.
    """

    waves: tuple[tuple[int, int], ...]
    power: Mapping[str, Sequence[Band]]
    numbers: Mapping[str, Band]

    @classmethod
    def default(cls, probe: Probe) -> Bands:
        """Wide ones, for every model."""
        *groups, _ = [LONG_WAVES if last < WAVE_LIMITS[2] else SHORT_WAVES for _, last in probe.waves]
        return cls(probe.waves, dict.fromkeys(probe.fields, (*groups, SHORTEST_WAVES)), DEFAULTS)

    @classmethod
    def of_signs(cls, waves: Sequence[Sequence[int]], lines: Iterable[Mapping[str, Any]]) -> Bands:
        """Those that lines of records stay within, and a margin; as `Signs.as_json` gives lines.

        Raises
        ------
        ValueError, KeyError, TypeError
            If a line is none.
        """
        power: dict[str, list[list[float]]] = {}
        numbers: dict[str, list[float]] = {name: [] for name in NUMBERS}
        for line in lines:
            for field, ratios in line["power"].items():
                groups = power.setdefault(field, [[] for _ in waves])
                for group, ratio in zip(groups, ratios, strict=True):
                    group += [] if ratio is None else [float(ratio)]
            for name, values in numbers.items():
                value = line[name][1] if isinstance(line[name], list) else line[name]
                values += [] if value is None else [float(value)]
        bands = {field: [_widened(group, ratio=True) for group in groups] for field, groups in power.items()}
        widened = {name: _widened(values, ratio=name in RATIOS) for name, values in numbers.items()}
        # A side on which nothing is wrong has no limit.
        open_sides = {name: (low, high) for name, (low, high) in DEFAULTS.items() if math.inf in (-low, high)}
        for name, (low, high) in open_sides.items():
            own_low, own_high = widened[name]
            widened[name] = (low if low == -math.inf else own_low, high if high == math.inf else own_high)
        return cls(tuple((int(first), int(last)) for first, last in waves), bands, widened)

    def complaints(self, signs: Signs) -> Iterator[str]:
        """What has left its band, in words; what is no number has not, but for fields that are none."""
        if not signs.finite:
            yield "a field is not finite"
        for field, ratios in signs.power.items():
            for (first, last), ratio, band in zip(self.waves, ratios, self.power.get(field, ()), strict=False):
                if _outside(ratio, band):
                    yield f"power of {field} at wavenumbers {first} to {last} is {ratio:.3g} times the start's" + _of(
                        band
                    )
        for name, band in self.numbers.items():
            value = getattr(signs, name)
            field, number = value if isinstance(value, tuple) else ("", value)
            if _outside(number, band):
                yield WORDS[name].format(field=field, value=f"{number:.4g}") + _of(band)

    def as_json(self) -> dict[str, Any]:
        """As in a file; None for what has no limit."""
        return {
            "waves": [list(group) for group in self.waves],
            "power": {field: [_plain(band) for band in bands] for field, bands in self.power.items()},
            **{name: _plain(band) for name, band in self.numbers.items()},
        }


def write_bands(path: Path, bands: Bands, origin: Mapping[str, Any]) -> None:
    """Write bands, with where they come from.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    found = {"schema": SCHEMA, **origin, **bands.as_json()}
    write_whole(path, [json.dumps(found, indent=1).encode() + b"\n"])


def read_bands(path: Path, probe: Probe | None = None, variant: str | None = None) -> Bands:
    """The bands in a file.

    Parameters
    ----------
    path : Path
        As `write_bands` writes it.
    probe : Probe or None
        What they are for, if that is known yet.
    variant : str or None
        Likewise.

    Raises
    ------
    InputError
        If it cannot be read, or is of something else.
    """
    try:
        found = parse_json(path.read_bytes())
        if found.get("schema") != SCHEMA:
            raise ValueError(f"expected the schema {SCHEMA!r}, got {found.get('schema')!r}")
        waves = tuple((int(first), int(last)) for first, last in found["waves"])
        power = {field: [_band(band) for band in bands] for field, bands in found["power"].items()}
        bands = Bands(waves, power, {name: _band(found[name]) for name in NUMBERS})
    except OSError as error:
        raise InputError(f"--health-bands {path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"--health-bands {path}: expected what ai-models-mosaic health-bands writes, got {error}"
        ) from error
    if probe is not None and (bands.waves, found.get("variant")) != (probe.waves, variant):
        raise InputError(
            f"--health-bands {path}: expected bands of {variant} at wavenumbers {probe.waves}, got those of "
            f"{found.get('variant')} at {bands.waves}; make them of runs of {variant}"
        )
    return bands


def _widened(values: Sequence[float], *, ratio: bool) -> Band:
    if not values:
        return -math.inf, math.inf
    low, high = min(values), max(values)
    if ratio:
        return low / RATIO_MARGIN, high * RATIO_MARGIN
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def _outside(value: float, band: Band) -> bool:
    return not math.isnan(value) and not band[0] <= value <= band[1]


def _of(band: Band) -> str:
    low, high = band
    if high == math.inf:
        return f", expected at least {low:.3g}"
    return f", expected at most {high:.3g}" if low == -math.inf else f", expected {low:.3g} to {high:.3g}"


def _plain(band: Band) -> list[float | None]:
    return [rounded(side) for side in band]


def _band(sides: Sequence[float | None]) -> Band:
    low, high = sides
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)
