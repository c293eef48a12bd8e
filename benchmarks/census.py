"""The census of a forward on a GPU: launches, bytes and operations by part, and the time that follows from them.

What is counted, and by which rules, is said in `counting`. The roofline takes rates measured on one NVIDIA H100
(`Rates`): each launch takes the longer of computing and moving, and launches follow each other without a gap. So it is
a bound, not a forecast: a kernel reaches the rate of a copy, or of a large product, at best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from counting import PARTS, Count, pretending

from ai_models_mosaic.model.launches import Launch
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import Architecture

COMPUTING = ("products", "attention")
"""Parts that are to be bound by operations, and whose bytes are not limited."""


@dataclass(frozen=True)
class Rates:
    """What a device was measured to do; the H100 of 2026-11-26 unless said otherwise.

    Parameters
    ----------
    products, attention : float
        Operations per second in half precision.
    float32 : float
        Operations per second of products in float32, without TF32: the data sheet's 67, three quarters of which are
        assumed.
    bytes : float
        Per second, to and from memory.
    """

    products: float = 700e12
    attention: float = 350e12
    float32: float = 50e12
    bytes: float = 2.6e12

    def seconds(self, part: str, launch: Launch, *, half: bool) -> float:
        """The longer of computing and moving."""
        fast = self.attention if part == "attention" else self.products
        computing = launch.operations / (fast if half else self.float32)
        return max(computing, (launch.bytes_read + launch.bytes_written) / self.bytes)


@dataclass
class Sum:
    """What belongs together, for one forward of all members.

    Parameters
    ----------
    launches : int
        How many.
    bytes_read, bytes_written : int
        To and from memory.
    operations : float
        Of products.
    seconds : float
        At the rates of a device.
    """

    launches: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    operations: float = 0.0
    seconds: float = 0.0

    def add(self, count: Count, rates: Rates) -> None:
        """Take one in."""
        launch = count.launch
        self.launches += count.launches
        self.bytes_read += launch.bytes_read
        self.bytes_written += launch.bytes_written
        self.operations += launch.operations
        self.seconds += rates.seconds(count.part, launch, half=count.half)

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True)
class Census:
    """All launches of one forward.

    Parameters
    ----------
    members : int
        Of the forward.
    counts : tuple of Count
        In order, those of own kernels last.
    rates : Rates
        Of the device that times are told for.
    """

    members: int
    counts: tuple[Count, ...]
    rates: Rates = field(default_factory=Rates)

    def by(self, key: Callable[[Count], str]) -> dict[str, Sum]:
        """Sums by what a function says of a count."""
        sums: dict[str, Sum] = {}
        for count in self.counts:
            sums.setdefault(key(count), Sum()).add(count, self.rates)
        return sums

    @property
    def parts(self) -> dict[str, Sum]:
        """Sums by part, all of `PARTS`."""
        return {part: Sum() for part in PARTS} | self.by(lambda count: count.part)

    @property
    def launches(self) -> int:
        """Of the forward."""
        return sum(count.launches for count in self.counts)

    @property
    def bytes_per_member(self) -> float:
        """Moved outside of products and attention."""
        return sum(total.bytes for part, total in self.parts.items() if part not in COMPUTING) / self.members

    @property
    def seconds_per_member(self) -> float:
        """At the rates of the device."""
        return sum(total.seconds for total in self.parts.values()) / self.members

    def as_dict(self) -> dict[str, Any]:
        """Plain values, per forward where the name does not say per member."""
        names = self.by(lambda count: f"{count.part}: {count.launch.name}")
        return {
            "members": self.members,
            "launches": self.launches,
            "bytes per member outside of products and attention": self.bytes_per_member,
            "seconds per member": self.seconds_per_member,
            "rates": asdict(self.rates),
            "parts": {part: asdict(total) for part, total in self.parts.items()},
            "operators": {name: asdict(total) for name, total in sorted(names.items())},
        }


def take(
    architecture: Architecture, members: int, *, backend: str = "triton", precision: torch.dtype = torch.float16
) -> Census:
    """Count a forward on a GPU.

    Parameters
    ----------
    architecture : Architecture
        Of the network.
    members : int
        That go through it together.
    backend : str
        Of the attention.
    precision : torch.dtype
        Of the products.

    Returns
    -------
    Census
        Of the second forward: what is done once is done.
    """
    with torch.device("meta"):
        network = MosaicNetwork(architecture).eval().requires_grad_(False)
        state = torch.empty(members, architecture.history, *architecture.grid.shape, architecture.channels)
        progress, noise = torch.empty(2), torch.empty(members, architecture.noise_width)
    network.use_backend(backend)
    with pretending():
        network.prepare(precision)
        network(state, progress, noise)
    with pretending() as counts:
        network(state, progress, noise)
    return Census(members, tuple(counts))


def table(census: Census) -> Iterator[str]:
    """Lines of a Markdown table, per member but for the launches."""
    yield "| part | launches | GB read | GB written | TFLOP | predicted, ms |"
    yield "|---|---|---|---|---|---|"
    for part, total in census.parts.items():
        yield _row(part, total, census.members)
    every = Sum()
    for count in census.counts:
        every.add(count, census.rates)
    yield _row("**all**", every, census.members)


def _row(name: str, total: Sum, members: int) -> str:
    numbers = (total.bytes_read / 1e9, total.bytes_written / 1e9, total.operations / 1e12, total.seconds * 1e3)
    cells = " | ".join(f"{number / members:.2f}" for number in numbers)
    return f"| {name} | {total.launches} | {cells} |"
