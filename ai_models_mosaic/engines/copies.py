"""How states get from the memory of the host to that of the device and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..arrays import AnyArray, Bool, Float32, Float32Array
from . import Arrival, Made
from .ring import HostRing, Lease

SPARE_BUFFERS = 4
"""Beyond those of histories: of steps under way, and of what is just being handed over."""

SPARE_MEMBERS = 16
"""Whose states may wait in the queue of the output."""

Parts = Sequence[Float32[Tensor, "_ lon lat channel"]]
"""New states on the device, of all members of a batch, part by part."""

Flags = Sequence[Bool[Tensor, "_ channel"]]
"""Which fields of these are finite."""


@dataclass(eq=False, slots=True)
class StoredState:
    """A state of one member, or of several that start from it.

    Parameters
    ----------
    host : Tensor (lon, lat, channel)
        In the memory of the host.
    device : Tensor (lon, lat, channel) or None
        In that of the device, if it is there.
    users : int
        Members whose history it is part of.
    lease : Lease or None
        The right to the buffer that `host` is in.
    arrived : object or None
        The event after which it is in `host`.
    """

    host: Float32[Tensor, "lon lat channel"]
    device: Float32[Tensor, "lon lat channel"] | None = None
    users: int = 0
    lease: Lease | None = None
    arrived: Any = None


class Copies(Protocol):
    """What `TensorStates` needs."""

    @property
    def ahead(self) -> int:
        """See `EnsembleStates.ahead`."""

    @property
    def separate(self) -> bool:
        """Whether the device has memory of its own."""

    def heed(self, stopping: Callable[[], bool]) -> None:
        """Wait for nothing any more when this says so."""

    def small(self, array: AnyArray) -> Tensor:
        """A small array on the device."""

    def to_device(self, states: Sequence[StoredState]) -> list[Tensor]:
        """These on the device, before anything that is computed from now on."""

    def finite(self, made: Float32[Tensor, "member lon lat channel"]) -> Bool[Tensor, "member channel"]:
        """Which fields of new states are finite, on the device."""

    def to_host(self, made: Parts, finite: Flags, most: int, vitals: Parts = ()) -> tuple[list[StoredState], Arrival]:
        """Begin to copy out what a batch has made.

        Parameters
        ----------
        made : sequence of Tensor (member, lon, lat, channel)
            Part by part; must live until it has arrived.
        finite : sequence of Tensor (member, channel)
            Likewise.
        most : int
            Batches of so many members that may be in the host's memory at a time.
        vitals : sequence of Tensor (member, number)
            Vital signs, likewise; empty where nothing is measured on the device.

        Returns
        -------
        list of StoredState
            Of every member.
        Arrival
            Waits until all of it is in the host's memory.
        """


class SharedMemory:
    """The device is the host: nothing is copied."""

    ahead, separate = 0, False

    def heed(self, stopping: Callable[[], bool]) -> None:
        """See `Copies.heed`: nothing is waited for."""

    def small(self, array: AnyArray) -> Tensor:
        """See `Copies.small`."""
        return torch.from_numpy(array)

    def to_device(self, states: Sequence[StoredState]) -> list[Tensor]:
        """See `Copies.to_device`."""
        return [state.host for state in states]

    def finite(self, made: Float32[Tensor, "member lon lat channel"]) -> Bool[Tensor, "member channel"]:
        """See `Copies.finite`."""
        # Ten times as fast as PyTorch's on the CPU.
        return torch.from_numpy(np.isfinite(made.numpy()).all(axis=(1, 2)))

    def to_host(self, made: Parts, finite: Flags, most: int, vitals: Parts = ()) -> tuple[list[StoredState], Arrival]:
        """See `Copies.to_host`; what is in host memory is measured there."""
        together, flags = (parts[0] if len(parts) == 1 else torch.cat(list(parts)) for parts in (made, finite))
        values = together.numpy()
        # The next step starts from the very arrays that are handed out.
        values.setflags(write=False)
        arrived = Made(values, flags.numpy())
        return [StoredState(state) for state in together], lambda: arrived


class StreamedCopies:
    """The device has memory of its own: states are copied beside the computation, by streams and pinned memory.

    Parameters
    ----------
    device : torch.device
        Where the states are computed.
    accelerator : module
        Gives streams: ``torch.cuda``, or what has the interface that it shares with ``torch.cpu``.
    """

    ahead, separate = 1, True

    def __init__(self, device: torch.device, accelerator: ModuleType = torch.cuda) -> None:
        self._device, self._accelerator = device, accelerator
        self._pinned = device.type == "cuda"
        self._inwards, self._outwards = self._stream(), self._stream()
        self._rings: dict[tuple[int, ...], HostRing] = {}
        self._stopping: Callable[[], bool] = lambda: False

    def heed(self, stopping: Callable[[], bool]) -> None:
        """See `Copies.heed`."""
        self._stopping = stopping

    def small(self, array: AnyArray) -> Tensor:
        """See `Copies.small`."""
        given = torch.from_numpy(np.ascontiguousarray(array))
        # From other memory, the host would wait for all that the device has to do before.
        return (given.pin_memory() if self._pinned else given).to(self._device, non_blocking=True)

    def to_device(self, states: Sequence[StoredState]) -> list[Tensor]:
        """See `Copies.to_device`."""
        missing = [state for state in dict.fromkeys(states) if state.device is None]
        copied = {}
        with self._accelerator.stream(self._inwards):
            for state in missing:
                if state.arrived is not None:
                    self._inwards.wait_event(state.arrived)
                copied[state] = torch.empty_like(state.host, device=self._device).copy_(state.host, non_blocking=True)
        if missing:
            self._compute().wait_stream(self._inwards)
        return [copied[state] if state.device is None else state.device for state in states]

    def finite(self, made: Float32[Tensor, "member lon lat channel"]) -> Bool[Tensor, "member channel"]:
        """See `Copies.finite`."""
        # The largest magnitude is NaN if any is: one pass, without an array of the states' size.
        return torch.linalg.vector_norm(made, torch.inf, dim=(1, 2)).isfinite()

    def to_host(self, made: Parts, finite: Flags, most: int, vitals: Parts = ()) -> tuple[list[StoredState], Arrival]:
        """See `Copies.to_host`; waits while all buffers are in use."""
        members = sum(map(len, made))
        lease = self._ring((members, *made[0].shape[1:]), most).take(self._stopping)
        flags = torch.empty(members, finite[0].shape[1], dtype=torch.bool, pin_memory=self._pinned)
        signs = torch.empty(members, vitals[0].shape[1], pin_memory=self._pinned) if vitals else None
        targets = [(lease.tensor, made), (flags, finite)] + ([] if signs is None else [(signs, vitals)])
        self._outwards.wait_stream(self._compute())
        with self._accelerator.stream(self._outwards):
            sizes = [len(part) for part in made]
            for target, sources in targets:
                for part, source in zip(target.split(sizes), sources, strict=True):
                    part.copy_(source, non_blocking=True)
            arrived = self._accelerator.Event()
            arrived.record(self._outwards)

        def arrival() -> Made:
            arrived.synchronize()
            return Made(lease.array(), flags.numpy(), lent=True, vitals=None if signs is None else signs.numpy())

        return [StoredState(host, lease=lease, arrived=arrived) for host in lease.tensor], arrival

    def _ring(self, shape: tuple[int, ...], most: int) -> HostRing:
        if shape not in self._rings:
            buffers = most + SPARE_BUFFERS + -(-SPARE_MEMBERS // shape[0])
            self._rings[shape] = HostRing(shape, buffers, pinned=self._pinned)
        return self._rings[shape]

    def _compute(self) -> Any:
        return self._accelerator.current_stream(self._device)

    def _stream(self) -> Any:
        return self._accelerator.Stream(self._device) if self._pinned else self._accelerator.Stream()


def host_tensor(values: Float32[Float32Array, "*shape"]) -> Float32[Tensor, "*shape"]:
    """An array as a tensor: the same memory, unless PyTorch cannot take it as it lies."""
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
