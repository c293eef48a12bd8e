"""What makes a run the one that it is, and what it may not find in its place under ``--resume``.

The identity is read off the card of a run, section by section: names of one section never meet those of another.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ResumeError
from ..options.declarations import compared
from ..outputs.placeholders import PathTemplate
from .comparison import differences
from .options import Options
from .provenance import SUFFIX as CARD_SUFFIX
from .provenance import read_beside
from .resume import SUFFIX as STATE_SUFFIX
from .resume import read_record, state_folder
from .tiles import NAME as TILINGS

MEMBERS_MARK = ".members-"
"""In the name of a folder of state; after it come the members."""

LONGEST_LIST = 40
"""Of members that the name of a folder spells out, characters."""

Identity = dict[str, dict[str, Any]]

OF_THE_RUN = ("variant", "steps", "members_per_batch", "precision", "metadata", "path")
"""What a card says of a run at its top, and what may not change; some stands for an option."""


def identity_of(card: Mapping[str, Any]) -> Identity:
    """What must be the same for going on with a run.

    Parameters
    ----------
    card : mapping of str to object
        As `provenance.gather` puts it together, or as JSON gives it back.

    Returns
    -------
    dict of str to dict
        By section: the run, its options by their flags, and the digests of all that it reads.

    Raises
    ------
    KeyError, TypeError
        If the card lacks something, as those of earlier versions do.
    """
    weights = card["weights"]
    identity = {
        "run": {**{name: card[name] for name in OF_THE_RUN}, "initial time": card["input"]["initial_time"]},
        "options": compared(Options, card["options"]),
        "data": {
            "input": card["input"]["sha256"],
            "weights": weights["sha256"],
            "calibration": (card["options"]["output"].get("calibration") or {}).get("sha256"),
            **{name: file["sha256"] for name, file in weights["data"].items()},
        },
    }
    found: Identity = json.loads(json.dumps(identity))
    return found


def backend_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for going on with a run to the bit; of a card that says less, as much as it says."""
    found = {"engine": card.get("engine"), "ai-models-mosaic": card.get("ai-models-mosaic"), **card.get("packages", {})}
    return found | ({TILINGS: card[TILINGS]} if TILINGS in card else {})


def digest_of_run(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, by which the files of a run know each other."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Places:
    """Files that a run will write, as far as that is known before it writes them.

    Parameters
    ----------
    templates : tuple of PathTemplate
        Of all outputs; the first is the one beside which the state is kept.
    members : tuple of int
        Of the run.
    initial_time : datetime
        Of the run.
    """

    templates: tuple[PathTemplate, ...]
    members: tuple[int, ...]
    initial_time: datetime

    @property
    def state(self) -> Path:
        """The folder for the state: one for every list of members, where members have files of their own."""
        first = self.templates[0]
        folder = state_folder(first.text, self.initial_time)
        if not first.tells_members_apart:
            return folder
        listed = "_".join(str(member) for member in self.members)
        shown = listed if len(listed) <= LONGEST_LIST else hashlib.sha256(listed.encode()).hexdigest()[:16]
        return folder.with_name(f"{folder.name.removesuffix(STATE_SUFFIX)}{MEMBERS_MARK}{shown}{STATE_SUFFIX}")

    def has(self, file: Path) -> bool:
        """Whether a file may be one of them: by the members of its name, and anything where other keys stand."""
        return any(pattern.fullmatch(str(file)) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [template.pattern(self.members) for template in self.templates]

    def refuse_others(self, fresh: Mapping[str, Any]) -> None:
        """Refuse to begin, under ``--resume``, where files of another run of the same initial time are.

        Parameters
        ----------
        fresh : mapping of str to object
            The identity of this run.

        Raises
        ------
        ResumeError
            If one is complete, or is being written by an unfinished run; names all that differs.
        """
        for card in {card for template in self.templates for card in template.glob(CARD_SUFFIX)}:
            file = card.with_name(card.name.removesuffix(CARD_SUFFIX))
            if file.exists() and self.has(file):
                self._refuse_complete(file, fresh)
        for folder in self._states_of_other_members():
            record = read_record(folder)
            if record is not None and any(self.has(Path(name)) for name in record.positions or {}):
                _refuse(f"{folder} is of an unfinished run that writes the same files", record.identity, fresh)

    def _refuse_complete(self, file: Path, fresh: Mapping[str, Any]) -> None:
        try:
            found = identity_of(read_beside(file))
        except (KeyError, TypeError, AttributeError):
            # No card, or one of before cards said all of this.
            return
        # One of another initial time is done with, as where a job writes to the same name every day.
        if found["run"]["initial time"] == self.initial_time.isoformat():
            _refuse(f"{file} is complete, and of another run than this one", found, fresh)

    def _states_of_other_members(self) -> list[Path]:
        own = self.state
        common, mark, _ = own.name.rpartition(MEMBERS_MARK)
        if not mark or not self.templates[0].tells_members_apart:
            return []
        return [folder for folder in own.parent.glob(f"{glob.escape(common + mark)}*{STATE_SUFFIX}") if folder != own]


def _refuse(what: str, found: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    # That the files are the same was seen; how their path was typed is of no matter.
    differing = [one for one in differences(found, fresh) if one[0] != "path"]
    if differing:
        listed = "\n".join(f"  {name}: it was {then}, now {now}" for name, then, now in differing)
        raise ResumeError(
            f"{what}:\n{listed}\nGive the same options, input and weights, or another --path, or run without --resume "
            "to write it anew"
        )
