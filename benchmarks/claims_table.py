"""What a verification says of the paper's claims: numbers with intervals, and whether they reach what is aimed at."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

FIELDS = {
    "geopotential_500": ("z500", 1.0, "m² s⁻²"),
    "temperature_850": ("t850", 1.0, "K"),
    "2m_temperature": ("2t", 1.0, "K"),
    "10m_u_component_of_wind": ("10u", 1.0, "m s⁻¹"),
    "specific_humidity_700": ("q700", 1000.0, "g kg⁻¹"),
}
"""Short names, factors and units of what is shown."""

SHOWN_HOURS = (24, 72, 120, 168, 240)
WAVENUMBERS = range(3, 16)
"""Below, a handful of numbers a day; above, the simulated world has next to no power."""

POWER, SPREAD, CALIBRATED = (0.85, 1.15), (0.9, 1.1), (0.93, 1.07)
"""What is aimed at; the last of spread over error after a calibration."""


@dataclass(frozen=True)
class Number:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As it is shown."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


@dataclass(frozen=True)
class Cell:
    """What is said of a field at a lead time, and whether that is what is aimed at."""

    field: str
    lead_hours: int
    text: str
    reached: bool


class Results:
    """The tables of a verification.

    Parameters
    ----------
    scores, spectra, ranks : sequence of dict
        Lines of the tables.
    calibrated : sequence of dict
        Scores of a calibration, of dates that it was not fitted to.
    folder : Path
        With the pictures, too.
    """

    def __init__(
        self,
        scores: Sequence[dict[str, str]],
        spectra: Sequence[dict[str, str]],
        ranks: Sequence[dict[str, str]],
        calibrated: Sequence[Mapping[str, Any]],
        folder: Path,
    ) -> None:
        self.folder = folder
        self._calibrated = {(line["channel"], int(line["lead_hours"])): line for line in calibrated}
        self._scores = {
            (line["forecast"], line["score"], line["channel"], int(line["lead_hours"])): _number(
                line, "value", "low", "high"
            )
            for line in scores
        }
        self._power: dict[tuple[str, str, int], dict[int, Number]] = {}
        for line in spectra:
            ratio = _number(line, "members_ratio", "members_ratio_low", "members_ratio_high")
            key = (line["forecast"], line["channel"], int(line["lead_hours"]))
            self._power.setdefault(key, {})[int(line["wavenumber"])] = ratio
        self._ranks: dict[tuple[str, int], list[Number]] = {}
        for line in ranks:
            frequency = _number(line, "relative_frequency", "low", "high")
            self._ranks.setdefault((line["channel"], int(line["lead_hours"])), []).append(frequency)
        there = sorted({hours for _, _, _, hours in self._scores})
        self.lead_hours = [hours for hours in there if hours in SHOWN_HOURS] or there
        self.all_hours = there
        self.has_twin = any(key[0] == "twin" for key in self._scores)

    @classmethod
    def read(cls, folder: Path, calibration: Path | None = None) -> Results:
        """Of the folder of a verification, and the file of a calibration."""
        tables = (_lines(folder / f"{name}.csv") for name in ("scores", "spectra", "rank_histogram"))
        calibrated = json.loads(calibration.read_text(encoding="utf-8"))["scores"] if calibration is not None else ()
        return cls(*tables, calibrated, folder)

    @property
    def has_calibration(self) -> bool:
        """Whether a calibration was tried."""
        return bool(self._calibrated)

    def score(self, name: str, channel: str, hours: int, forecast: str = "mini") -> Number:
        """A score by its name in ``scores.csv``."""
        return self._scores[forecast, name, channel, hours]

    def power_ratio(self, channel: str, hours: int, wavenumber: int, forecast: str = "mini") -> Number:
        """Members' power over the truth's at a wavenumber."""
        return self._power[forecast, channel, hours][wavenumber]

    def power(self, forecast: str = "mini") -> Iterator[Cell]:
        """Members' power over the truth's, of the wavenumbers with the least and the most."""
        for channel, hours in self._places():
            ratios = sorted(self._medium(channel, hours, forecast), key=lambda ratio: ratio.value)
            least, most = ratios[0], ratios[-1]
            reached = POWER[0] <= least.value and most.value <= POWER[1]
            yield Cell(channel, hours, f"{least.text()} … {most.text()}", reached)

    def spread(self) -> Iterator[Cell]:
        """Spread over error."""
        for channel, hours in self._places():
            number = self.score("spread_skill", channel, hours)
            yield Cell(channel, hours, number.text(), SPREAD[0] <= number.value <= SPREAD[1])

    def calibrated_spread(self) -> Iterator[Cell]:
        """Spread over error of members that were moved by factors fitted to other dates, after what it was before."""
        for channel, hours in self._places():
            pair = self._calibrated[channel, hours]["spread_skill"]
            before, after = (
                Number(*(nan if end is None else end for end in pair[when])) for when in ("before", "after")
            )
            reached = CALIBRATED[0] <= after.value <= CALIBRATED[1]
            yield Cell(channel, hours, f"{before.value:.2f} → {after.text()}", reached)

    def ranks(self) -> Iterator[Cell]:
        """The rank that the truth has least and most often, over 1 / (members + 1)."""
        for channel, hours in self._places():
            ranks = self._ranks[channel, hours]
            outside = sum(not rank.low <= 1 <= rank.high for rank in ranks)
            values = sorted(rank.value for rank in ranks)
            text = f"{values[0]:.2f} … {values[-1]:.2f}, {outside} of {len(ranks)} not 1 within the interval"
            yield Cell(channel, hours, text, outside == 0)

    def skill(self) -> Iterator[Cell]:
        """CRPS, and how much smaller that is than the climatology's."""
        for channel, hours in self._places():
            _, factor, _ = FIELDS[channel]
            crps, skill = (self.score(name, channel, hours) for name in ("crps_fair", "crps_skill_climatology"))
            interval = f"{100 * skill.low:+.0f} to {100 * skill.high:+.0f}"
            text = f"{factor * crps.value:.3g}, {100 * skill.value:+.0f} % ({interval})"
            yield Cell(channel, hours, text, skill.value > 0)

    def blurs(self) -> Iterator[Cell]:
        """The twin's power over the truth's, of the wavenumbers with the least and the most; the claim is less."""
        for cell, (channel, hours) in zip(self.power("twin"), self._places(), strict=True):
            least = min(ratio.value for ratio in self._medium(channel, hours, "twin"))
            yield replace(cell, reached=least < POWER[0])

    def against_twin(self) -> Iterator[Cell]:
        """CRPS over the twin's absolute error."""
        for channel, hours in self._places():
            ratio = (
                self.score("crps_fair", channel, hours).value / self.score("crps_fair", channel, hours, "twin").value
            )
            yield Cell(channel, hours, f"{100 * (ratio - 1):+.0f} %", ratio <= 0.85)

    def last_days_of_skill(self) -> dict[str, float]:
        """By field, the last lead time in days at and before which climatology is beaten throughout."""
        last = {}
        for channel, (label, _, _) in FIELDS.items():
            last[label] = 0.0
            for hours in self.all_hours:
                if self.score("crps_skill_climatology", channel, hours).value <= 0:
                    break
                last[label] = hours / 24
        return last

    def _medium(self, channel: str, hours: int, forecast: str) -> list[Number]:
        degrees = self._power[forecast, channel, hours]
        return [ratio for wavenumber, ratio in degrees.items() if wavenumber in WAVENUMBERS]

    def _places(self) -> Iterator[tuple[str, int]]:
        for channel in FIELDS:
            for hours in self.lead_hours:
                yield channel, hours


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(line: dict[str, str], *names: str) -> Number:
    return Number(*(float(line[name]) for name in names))
