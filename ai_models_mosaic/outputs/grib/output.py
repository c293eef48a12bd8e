"""The ensemble as GRIB2: one message per member, step and channel; one per product, step and field."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import eccodes
import numpy as np

from ...arrays import FloatArray
from ...errors import OutputError
from ...geometry.grid import to_grib_order
from ...params import CHANNEL_FIELDS, Field
from ..contents import count_messages
from ..placeholders import GRIB_KEYS, PRODUCT, PathTemplate
from ..products import Product
from ..queue import Commit, Job
from .earlier import EarlierMembers
from .encoder import GribEncoder
from .every_path import HasKeys, all_paths
from .files import MessageFiles, check_folder, check_writable, is_stream
from .keys import EXPVER, UNTRAINED_EXPVER, Labels
from .templates import EncodedMessage

if TYPE_CHECKING:
    from ...state import ForecastStep

__all__ = ["EXPVER", "UNTRAINED_EXPVER", "EncodedMessage", "GribEncoder", "GribOutput", "Labels", "check_output"]

OnMessage = Callable[[dict[str, str], Path], None]
"""Gets the MARS keys of a message, and the file that it went to."""


@dataclass(frozen=True)
class Encoded:
    """A message on its way into its file.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes
        The message.
    mars : dict of str to str, or None
        Its MARS keys, where somebody wants them.
    """

    path: Path
    content: bytes
    mars: dict[str, str] | None


class GribOutput:
    """Writes forecasts to the files that a path with placeholders names.

    Parameters
    ----------
    path : str
        May hold GRIB keys in braces, such as ``out-{number:03d}-{step}.grib``.
    encoder : GribEncoder
        Makes the messages.
    on_message : callable or None
        Called with every message's MARS keys and the path that it went to, in the order of messages.
    workers : int
        Threads that may run its jobs at the same time.
    files : MessageFiles or None
        The files, where they are shared with another output; None for its own.
    option : str
        Where the path was given, for messages.

    Raises
    ------
    OutputError
        If the path has something else than names of keys in braces.
    """

    def __init__(
        self,
        path: str,
        encoder: GribEncoder,
        on_message: OnMessage | None = None,
        workers: int = 1,
        files: MessageFiles | None = None,
        option: str = "--path",
    ) -> None:
        self._path, self._option = path, option
        self._template = grib_template(path, option, encoder.labels.metadata, encoder.placeholders)
        self._encoder = encoder
        self._twins = [encoder.twin() for _ in range(workers - 1)]
        self._idle = [encoder, *self._twins]
        self._on_message = on_message
        self._files = MessageFiles() if files is None else files

    def jobs(self, forecast: ForecastStep) -> Iterator[Job]:
        """What encodes a step, member by member with channels in order: one job per member, for an `OrderedQueue`.

        Parameters
        ----------
        forecast : ForecastStep
            On the whole grid.
        """
        for member, fields in zip(forecast.members, forecast.values, strict=True):
            yield partial(self._encode_member, forecast.lead_time_hours, member, fields)

    def encode_products(self, field: Field, made: Sequence[tuple[Product, FloatArray]], lead_time_hours: int) -> Commit:
        """Encode a field's products; what is returned appends them.

        Parameters
        ----------
        field : Field
            Of which field.
        made : sequence of (Product, float64 array (lon, lat))
            On the encoder's region.
        lead_time_hours : int
            Hours since the initial time.
        """
        # Popping from a list cannot be interrupted by another thread.
        encoder = self._idle.pop()
        try:
            encoded = [
                self._encoded(encoder.encode_product(product, field, lead_time_hours, to_grib_order(values)))
                for product, values in made
            ]
        finally:
            self._idle.append(encoder)
        return lambda: self._append(encoded)

    def check_writable(self, members: Sequence[int], lead_times_hours: Sequence[int] = (0,)) -> None:
        """Raise if a file of a member could not be written.

        Parameters
        ----------
        members : sequence of int
            Of the run.
        lead_times_hours : sequence of int
            All that will be written.

        Raises
        ------
        OutputError
            If its folder is absent or not writable, or as `path_of`.
        """
        encoder, first = self._encoder, lead_times_hours[0]
        messages: Iterator[EncodedMessage] = (encoder.first_message(member, first) for member in members)
        if "{" in str(Path(self._path).parent):
            later = (encoder.first_message(member, hours) for member in members for hours in lead_times_hours[1:])
            others = (encoder.first_message(members[0], first, channel) for channel in encoder.channels)
            messages = itertools.chain(messages, later, others)
        for path in dict.fromkeys(self.path_of(message) for message in messages):
            check_writable(path)

    def append_earlier(self, earlier: EarlierMembers, lead_time_hours: int) -> None:
        """Append the messages of members that were written before; where commits are made, in their order.

        Parameters
        ----------
        earlier : EarlierMembers
            Has them.
        lead_time_hours : int
            Of which lead time.

        Raises
        ------
        OutputError
            If one cannot be read, or written.
        """
        for labels, message in earlier.messages(lead_time_hours):
            mars = None if self._on_message is None else labels.mars()
            self._append([Encoded(self.path_of(labels), message, mars)])

    def resume(self, positions: Mapping[str, int], *, finished: bool = False) -> None:
        """Go on with the files of an unfinished run; see `MessageFiles.resume`.

        Raises
        ------
        OutputError
            If a file is gone, or shorter than it was, or holds anything else than whole messages.
        """
        places = self._files.resume(positions, finished=finished)
        for name, place in zip(positions, places, strict=True):
            messages = count_messages(place)
            if messages is None:
                raise OutputError(
                    f"cannot write {name}: expected whole GRIB messages in {place}, got something else: it was changed "
                    "since. Run without --resume"
                )
            self._files.count(Path(name), messages)
        if self._on_message is not None:
            for name, place in zip(positions, places, strict=True):
                for message in _messages(place):
                    self._on_message(message.mars(), Path(name))

    def check_products_writable(self) -> None:
        """Raise if the first file of a product could not be written.

        Raises
        ------
        OutputError
            As `check_writable`.
        """
        for path in {self.path_of(message) for message in self._encoder.product_messages()}:
            check_writable(path)

    def check_one_type(self) -> None:
        """Raise if a file would hold products of several MARS types.

        Raises
        ------
        OutputError
            Says which file, and how to name others.
        """
        types: dict[Path, set[str]] = {}
        for message in self._encoder.product_messages():
            types.setdefault(self.path_of(message), set()).add(message.get("type"))
        for path, found in types.items():
            if len(found) > 1:
                raise OutputError(
                    f"--archive-requests: {path} would hold the types {', '.join(sorted(found))}, and a request is of "
                    "one: name the files by type, as in --products-path '{type}.grib'"
                )

    def check_told_apart(self) -> None:
        """Raise if a file would hold two products of a field that readers take for one, and keep the last of.

        cfgrib knows neither quantiles, percentiles nor thresholds, only types.

        Raises
        ------
        OutputError
            Says which, and how to name files.
        """
        seen: dict[tuple[Path, str, str], str] = {}
        for (product, field), message in zip(self._encoder.products, self._encoder.product_messages(), strict=True):
            path = self.path_of(message)
            before = seen.setdefault((path, message.get("type"), field.label), product.name)
            if before != product.name and not is_stream(path):
                raise OutputError(
                    f"{self._option} {self._path}: {path} would hold {before} and {product.name} of {field.label}, "
                    f"of which cfgrib shows one and loses the other: name the files by product, such as "
                    f"{told_apart(self._path)}"
                )

    def paths_of_members(self, members: Sequence[int], lead_times_hours: Sequence[int]) -> Iterator[Path]:
        """Every file that members go to.

        Parameters
        ----------
        members, lead_times_hours : sequence of int
            All that are written.

        Raises
        ------
        OutputError
            As `path_of`.
        """
        encoder, member, hours = self._encoder, members[0], lead_times_hours[0]
        return all_paths(
            self.path_of,
            (encoder.first_message(each, hours) for each in members),
            (encoder.first_message(member, each) for each in lead_times_hours),
            (encoder.first_message(member, hours, each) for each in encoder.channels),
        )

    def paths_of_products(self, lead_times_hours: Sequence[int]) -> Iterator[Path]:
        """Every file that products go to; as `paths_of_members`.

        Raises
        ------
        OutputError
            As `path_of`.
        """
        return all_paths(
            self.path_of,
            self._encoder.product_messages(),
            (next(self._encoder.product_messages(each)) for each in lead_times_hours),
        )

    def path_of(self, message: HasKeys) -> Path:
        """The file that a message goes to.

        Raises
        ------
        OutputError
            If a key is not of this message, or its format does not suit it.
        """
        return self._template.fill(message.get)

    def _encode_member(self, lead_time_hours: int, member: int, fields: FloatArray) -> Commit:
        encoder = self._idle.pop()
        try:
            by_channel = np.moveaxis(fields, -1, 0)
            # A list of all would copy them once more.
            everything = len(encoder.channels) == len(by_channel) == len(CHANNEL_FIELDS)
            chosen = encoder.region.take(by_channel if everything else by_channel[list(encoder.channels)])
            encoded = [
                self._encoded(encoder.encode(channel, member, lead_time_hours, values))
                for channel, values in zip(encoder.channels, to_grib_order(chosen).astype(np.float64), strict=True)
            ]
        finally:
            self._idle.append(encoder)
        return lambda: self._append(encoded)

    def _encoded(self, message: EncodedMessage) -> Encoded:
        mars = None if self._on_message is None else message.mars()
        return Encoded(self.path_of(message), message.to_bytes(), mars)

    def _append(self, encoded: Sequence[Encoded]) -> None:
        for message in encoded:
            self._files.append(message.path, message.content)
            if self._on_message is not None and message.mars is not None:
                self._on_message(message.mars, message.path)

    def release(self) -> None:
        """Give back what was made for other threads; the encoder itself belongs to whoever made it."""
        for twin in self._twins:
            twin.close()
        self._twins.clear()
        self._idle[:] = [self._encoder]


def check_output(path: str, encoder: GribEncoder) -> None:
    """Raise before a long run if the files of members could not be written.

    Parameters
    ----------
    path : str
        May hold GRIB keys in braces.
    encoder : GribEncoder
        Makes the messages; its initial time is of no matter.

    Raises
    ------
    OutputError
        If a placeholder is no GRIB key, or the folder is absent or not writable; a folder with
        placeholders is left for `GribOutput.check_writable`.
    """
    output = GribOutput(path, encoder)
    if "{" in str(Path(path).parent):
        output.path_of(encoder.first_message(1))
        certain, _, _ = path.partition("{")
        check_folder(Path(f"{certain}x").with_name(Path(path).name))
    else:
        output.check_writable([1])


def grib_template(path: str, option: str, metadata: Mapping[str, str], more: Sequence[str] = ()) -> PathTemplate:
    """The path of GRIB files: what may stand in its braces are `GRIB_KEYS`, the user's own, and perhaps more.

    Raises
    ------
    OutputError
        If something else does.
    """
    return PathTemplate(path, option, tuple(dict.fromkeys([*GRIB_KEYS, *more, *metadata])))


def told_apart(path: str) -> str:
    """A path with the name of the product before its ending: ``out-{product}.grib``."""
    stem, dot, ending = path.rpartition(".")
    mark = f"-{{{PRODUCT}}}"
    return f"{stem}{mark}.{ending}" if dot and "/" not in ending else f"{path}{mark}"


def is_grib(path: Path) -> bool:
    """Whether a file is there that begins as GRIB does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GRIB"


def recount(paths: Iterable[Path], on_message: OnMessage) -> None:
    """Tell of every message of complete files, of those that are GRIB, as when they were written."""
    for path in paths:
        for message in _messages(path) if is_grib(path) else ():
            on_message(message.mars(), path)


def _messages(path: Path) -> Iterator[EncodedMessage]:
    """The messages of a file, each until the next."""
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                yield EncodedMessage(handle)
            finally:
                eccodes.codes_release(handle)
