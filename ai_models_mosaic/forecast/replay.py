"""Some fields of a forecast made again, from the card that stands beside its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..channels import CHANNELS
from ..errors import OptionError, OutputError
from ..options.number_lists import parse_ranges
from ..outputs.grib.files import MessageFiles, check_writable
from ..outputs.grib.output import GribEncoder
from ..params import CHANNEL_FIELDS, named
from .originals import Key, distance, key_of, originals, read_messages
from .recorded import Card
from .remaking import prepare


@dataclass(frozen=True)
class Comparison:
    """Fields made again against those of the original.

    Parameters
    ----------
    fields : int
        Made again.
    identical : int
        Of them, those whose messages in the original are the same to the byte.
    differing : tuple of (Key, float, float)
        Of those that differ, the key, the largest difference, and that over the field's standard deviation.
    backend : tuple of (str, object, object)
        What is another than in the original run: name, then and now.
    """

    fields: int
    identical: int
    differing: tuple[tuple[Key, float, float], ...]
    backend: tuple[tuple[str, Any, Any], ...]

    def __str__(self) -> str:
        lines = [f"{name} was {then}, is {now}" for name, then, now in self.backend]
        compared = self.identical + len(self.differing)
        if not compared:
            return "\n".join([*lines, f"{self.fields} fields made again; the original is not there to compare with"])
        lines.append(f"{self.fields} fields made again, {self.identical} of {compared} identical to the original's")
        if self.differing:
            key, difference, share = max(self.differing, key=lambda found: found[2])
            lines.append(
                f"farthest off: {key[2]} at level {key[3]} of member {key[0]} at +{key[1]} h, by {difference:.3g}, "
                f"{share:.1e} of the field's standard deviation"
            )
        return "\n".join(lines)


def choose_hours(text: str, card: Card) -> tuple[int, ...]:
    """Lead times such as ``24,96-120``, in hours.

    Raises
    ------
    OptionError
        If it is no such list, or names no step of the variant's.
    """
    stride = card.variant.step_hours
    chosen: set[int] = set()
    for hours in parse_ranges(text, "--steps"):
        steps = {hour for hour in hours if hour % stride == 0}
        if not steps:
            raise OptionError(
                f"--steps: expected hours, multiples of {stride}, such as {stride},{2 * stride}-{4 * stride}, "
                f"got {text!r}"
            )
        chosen |= steps
    return tuple(sorted(chosen))


def choose_channels(text: str | None) -> tuple[int, ...]:
    """Indices of the channels that a list such as ``2t,z500,u`` names; a parameter alone means all its levels.

    Raises
    ------
    OptionError
        If a name is of no channel.
    """
    if text is None:
        return tuple(range(len(CHANNELS)))
    fields = [field for name in text.split(",") for field in named(name.strip(), "--params", CHANNEL_FIELDS)]
    return tuple(sorted({index for field in fields for index in field.channels}))


def replay(
    card: Card,
    member: int,
    hours: Sequence[int],
    channels: Sequence[int],
    output: Path,
    *,
    file: str | None = None,
    assets: Path | None = None,
) -> Comparison:
    """Make some fields again, write them, and compare them with the original where it is.

    Parameters
    ----------
    card : Card
        Of the forecast.
    member : int
        Which.
    hours : sequence of int
        Lead times, ascending.
    channels : sequence of int
        Indices in `channels.CHANNELS`.
    output : Path
        Where to.
    file : str or None
        The input, if it is elsewhere than it was.
    assets : Path or None
        Folder of the weights, if they are elsewhere than they were.

    Raises
    ------
    InputError
        If the input is not there, or not the one of the forecast.
    CheckpointError
        If the weights are not.
    OptionError
        If the member cannot be made alone.
    OutputError
        If the file cannot be written.
    """
    check_writable(output)
    _refuse_own_files(card, output, file)
    group = card.group_of(member)
    remake = prepare(card, [group], file, assets)
    files = MessageFiles()
    made: dict[Key, bytes] = {}
    with GribEncoder(card.region, remake.labels()) as encoder:
        for forecast in remake.steps(group, max(hours)):
            if forecast.lead_time_hours not in hours:
                continue
            for message in remake.messages(encoder, forecast, member, channels):
                files.append(output, message)
                made[key_of(message)] = message
    files.finish()
    return _compare(card, made, remake.changes)


def _refuse_own_files(card: Card, output: Path, file: str | None) -> None:
    """Refuse to write over what is to be compared with, or read."""
    kept = [card.path, *originals(card), Path(file or str(card.found["input"]["source"]))]
    if any(output.resolve() == path.resolve() for path in kept):
        raise OutputError(f"--output {output}: expected a new file, got one of the forecast itself or its input")


def _compare(card: Card, made: dict[Key, bytes], backend: tuple[tuple[str, Any, Any], ...]) -> Comparison:
    identical, differing = set(), {}
    for original in originals(card):
        for message in read_messages(original):
            key = key_of(message)
            if made.get(key) == message:
                identical.add(key)
            elif key in made:
                apart = distance(message, made[key])
                differing[key] = (apart.largest, apart.share)
    off = tuple((key, *apart) for key, apart in differing.items() if key not in identical)
    return Comparison(len(made), len(identical), off, backend)
