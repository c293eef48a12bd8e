"""The finished ensemble to which members are to be added: where it is, and whether it is of this run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ResumeError
from .comparison import differences, warn_of_others
from .identity import Places, backend_of, digest_of_run, identity_of
from .provenance import SUFFIX as CARD_SUFFIX
from .provenance import complete_files, read_beside

EXTENDED_FROM = "extended from"
"""In the identity of an unfinished run that adds members: how many were there."""


@dataclass(frozen=True)
class EarlierEnsemble:
    """What is there of an ensemble.

    Parameters
    ----------
    size : int
        Its members, 1 to this.
    card : mapping of str to object
        Of its run.
    """

    size: int
    card: Mapping[str, Any]

    def files(self, path: str) -> list[Path]:
        """Its files, all of which are as the run left them.

        Parameters
        ----------
        path : str
            Of the first output; may hold keys in braces.

        Raises
        ------
        ResumeError
            If one is gone, or was changed.
        """
        complete = complete_files(path, str(self.card.get("run")))
        if complete is None:
            raise ResumeError(
                f"--extend: the ensemble of {self.size} in {path} is not as its run left it: make it anew, without "
                "--extend, of as many members as there are to be"
            )
        return complete

    def check_same(self, path: str, wanted: Mapping[str, Any], backend: Mapping[str, Any]) -> None:
        """Refuse to add members to an ensemble of another run.

        Parameters
        ----------
        path : str
            Of the first output.
        wanted : mapping of str to object
            The identity of a run of as many members with the options that are given now.
        backend : mapping of str to object
            As `identity.backend_of` gives it.

        Raises
        ------
        ResumeError
            Names all that differs.
        """
        try:
            found = identity_of(self.card)
        except (KeyError, TypeError, AttributeError) as error:
            raise ResumeError(
                f"--extend: the card beside {path} lacks what is needed ({error}): it is of an earlier version"
            ) from error
        differing = [one for one in differences(found, wanted) if one[0] != "path"]
        if differing:
            listed = "\n".join(f"  {name}: it was {then}, now {now}" for name, then, now in differing)
            raise ResumeError(
                f"--extend: the ensemble of {self.size} in {path} is of another run than this one:\n{listed}\n"
                "Give the same options, input and weights, or make it anew without --extend"
            )
        if digest_of_run(found) != self.card.get("run"):
            raise ResumeError(f"--extend: the card beside {path} was changed: make the ensemble anew without --extend")
        warn_of_others(backend_of(self.card), backend)


def find_earlier(places: Places, path: str, size: int) -> EarlierEnsemble:
    """The ensemble that a run's outputs hold.

    Parameters
    ----------
    places : Places
        Of the run that is to be.
    path : str
        Of the first output.
    size : int
        That it is to have.

    Raises
    ------
    ResumeError
        If there is none, or several, or one of more members.
    """
    cards: dict[str, dict[str, Any]] = {}
    for beside in {beside for template in places.templates for beside in template.glob(CARD_SUFFIX)}:
        file = beside.with_name(beside.name.removesuffix(CARD_SUFFIX))
        card = read_beside(file)
        said = card.get("input")
        start = said.get("initial_time") if isinstance(said, Mapping) else None
        if file.exists() and start == places.initial_time.isoformat() and places.has(file):
            cards[str(card.get("run"))] = card
    if not cards:
        raise ResumeError(
            f"--extend: expected a finished ensemble from {places.initial_time} UTC in {path} with its card "
            f"(NAME{CARD_SUFFIX}) beside it, got none: make one with --num-ensemble-members {size}"
        )
    if len(cards) > 1:
        raise ResumeError(
            f"--extend: expected the files of one run in {path}, got those of {len(cards)}: members that were made one "
            f"by one are added to with --num-ensemble-members {size} --member-number LIST"
        )
    (card,) = cards.values()
    members = card.get("members")
    if not isinstance(members, list) or members != list(range(1, len(members) + 1)):
        raise ResumeError(f"--extend: expected members from 1 on, all of them, in {path}, got {members}")
    if len(members) > size or card.get("ensemble_size") != len(members):
        raise ResumeError(
            f"--extend {size}: expected an ensemble of fewer members in {path}, got {len(members)} of an ensemble of "
            f"{card.get('ensemble_size')}"
        )
    return EarlierEnsemble(len(members), card)
