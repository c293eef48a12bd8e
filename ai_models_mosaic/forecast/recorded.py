"""The card beside an output: what is known of the forecast that wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError, OptionError
from ..files import parse_json
from ..geometry.grid import Region
from ..options.crossing import Crossing
from ..options.lagging import Lagging
from ..outputs.calibration import Calibration
from ..outputs.grib.packing import Bits, Packing
from ..outputs.selection import Selection
from ..variants import AUTO, VARIANTS, Variant
from .noise_factors import NoiseFactors
from .provenance import SUFFIX
from .recorded_form import refuse_other_forms
from .rollout import Ensemble

MOST_SHOWN = 300
"""Characters of an error that a message quotes."""


@dataclass(frozen=True)
class Card:
    """What is known of a forecast, from ``NAME.provenance.json``.

    Parameters
    ----------
    path : Path
        Where it is.
    found : dict
        What it says, as `provenance.gather` put it together.
    """

    path: Path
    found: dict[str, Any]

    @property
    def variant(self) -> Variant:
        """What ran."""
        return VARIANTS[self.found["variant"]]

    @property
    def ensemble(self) -> Ensemble:
        """Members and noise."""
        options = self.found["options"]
        factor = options["noise_factor"] if options["perturbations"] == "on" else 0.0
        members, per_batch = tuple(self.found["members"]), self.found["members_per_batch"]
        crossed = options.get("crossed")
        crossing = None if crossed is None else Crossing(crossed["starts"], crossed["noises"])
        lagged = options.get("lagged")
        lagging = None if lagged is None else Lagging(tuple(lagged["hours"]))
        noise = (factor, options["antithetic"], self._noise_by_step, crossing, lagging)
        return Ensemble(self.found["seed"], members, per_batch, *noise)

    @property
    def _noise_by_step(self) -> tuple[float, ...]:
        said = self.found["options"].get("noise_factors")
        if said is None:
            return ()
        factors = NoiseFactors(said["sha256"], tuple(said["lead_hours"]), tuple(said["factors"]))
        return factors.by_step(self.variant.step_hours, self.found["steps"])

    @property
    def packing(self) -> Packing:
        """How its values are packed."""
        found = self.found["options"].get("output", {}).get("packing")
        if found is None:
            return Packing()
        # Cards of before had the bits of all fields and those of some side by side.
        bits = found["bits"] if isinstance(found["bits"], dict) else {"usual": found["bits"], "of": found["bits_of"]}
        return Packing(found["method"], Bits(bits["usual"], tuple((name, number) for name, number in bits["of"])))

    @cached_property
    def calibration(self) -> Calibration | None:
        """By what its members were moved; cached, so that what was read of the file stays."""
        said = self.found["options"].get("output", {}).get("calibration")
        return None if said is None else Calibration(str(said["path"]), str(said["sha256"]))

    @property
    def region(self) -> Region:
        """What is written of the grid."""
        area = self.found["options"].get("output", {}).get("selection", {}).get("area")
        return Selection(area=None if area is None else tuple(area)).region(self.variant.architecture.grid)

    @property
    def clips_humidity(self) -> bool:
        """Whether specific humidity below zero was written as zero."""
        return bool(self.found["options"].get("output", {}).get("clip_humidity", False))

    @property
    def data(self) -> Mapping[str, Mapping[str, str]]:
        """File and digest of what was read beside the weights; nothing where the card is of before there was word."""
        found: Mapping[str, Mapping[str, str]] = self.found["weights"].get("data", {})
        return found

    def batch_of(self, member: int) -> tuple[int, ...]:
        """The members that went through the network together with one: its last bits depend on them.

        Raises
        ------
        OptionError
            If there is no such member, or it was not run, and would have had company.
        """
        size = self.found["ensemble_size"]
        if member < 1 or (size is not None and member > size):
            raise OptionError(f"--member: expected a number from 1{f' to {size}' if size else ''}, got {member}")
        found = next((batch for batch in self.ensemble.batches() if member in batch), None)
        if found is None and self.ensemble.per_batch > 1:
            raise OptionError(
                f"--member: expected one that {self.path} names, since members ran {self.ensemble.per_batch} at a "
                f"time, got {member}"
            )
        return found or (member,)

    def group_of(self, member: int) -> tuple[int, ...]:
        """The members that are made again with one: its batch, or all if they were moved about their mean.

        Raises
        ------
        OptionError
            As `batch_of`.
        """
        batch = self.batch_of(member)
        return batch if self.calibration is None else self.ensemble.members

    @property
    def threads(self) -> int | None:
        """Threads that it ran on, where that was a CPU."""
        found = re.match(r"CPU \((\d+) threads\)", self.found["engine"])
        return int(found[1]) if found else None

    def attention_backend(self, device: str) -> str:
        """The backend that it ran with, however that was chosen; on another kind of device, what was asked for.

        Parameters
        ----------
        device : str
            Type of the device that the forecast is made again on.
        """
        found = re.search(r"attention backend (\w+)", self.found["engine"])
        if found and (device == "cpu") == (self.threads is not None):
            return found[1]
        return str(self.found["options"].get("attention_backend", AUTO))


def _kind(error: Exception) -> str:
    """An error in few words; those of text that is none hold all of what was read."""
    return "no text" if isinstance(error, UnicodeDecodeError) else repr(error)[:MOST_SHOWN]


def read_card(path: Path) -> Card:
    """The card beside an output, or a copy of it.

    Raises
    ------
    InputError
        If it cannot be read, or is none.
    """
    try:
        found = parse_json(path.read_bytes())
        refuse_other_forms(found)
        card = Card(path, found)
        _ = (card.variant, card.ensemble, card.packing, card.region, card.threads, card.attention_backend("cpu"))
        _ = card.calibration
        _ = (found["weights"]["sha256"], found["input"]["source"], found["input"]["initial_time"])
        _ = [(file["file"], file["sha256"]) for file in card.data.values()]
        _ = (found["precision"], found["metadata"], dict(found["packages"]), found["ensemble_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
        raise InputError(
            f"{path}: expected the card of a forecast, NAME.grib{SUFFIX}, got something else ({_kind(error)})"
        ) from error
    return card
