"""An accelerator as ``torch.cuda`` is one, whose copies are made as late as it may: when somebody waits for them.

The interface is that which ``torch.cuda`` and ``torch.cpu`` share. What is computed is computed at once, and what is
copied in another stream only when the host, or the stream that computes, waits for it; a copy that does not wait for
what it copies gets the garbage that was there before. So every wait that is missing shows in the bytes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ai_models_mosaic.engines.copies import StreamedCopies
from ai_models_mosaic.engines.tensor_states import TensorStates
from ai_models_mosaic.engines.torch import TorchEngine

CPU = torch.device("cpu")
GARBAGE = -1e30


class Event:
    """A point in the queue of a stream."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.after = 0

    def record(self, stream: Stream) -> None:
        self.stream, self.after = stream, stream.queued

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.run(self.after)


class Stream:
    """Work that waits until somebody waits for it."""

    def __init__(self) -> None:
        self.queued, self.done = 0, 0
        self.saw_compute = False
        self._work: deque[Callable[[], object]] = deque()

    def put(self, work: Callable[[], object]) -> None:
        self._work.append(work)
        self.queued += 1

    def run(self, until: int | None = None) -> None:
        while self.done < (self.queued if until is None else until):
            self.done += 1
            self._work.popleft()()

    def wait_stream(self, other: Stream | Compute) -> None:
        if isinstance(other, Compute):
            # All that is computed so far is there.
            self.saw_compute = True
        else:
            until = other.queued
            self.put(lambda: other.run(until))

    def wait_event(self, event: Event) -> None:
        self.put(event.synchronize)


class Compute:
    """The stream that computes: everything in it is done at once, after what it waits for."""

    def wait_stream(self, other: Stream) -> None:
        other.run()


class _Copying(TorchFunctionMode):
    """Puts copies into a stream; all else is done at once."""

    def __init__(self, device: LateDevice, stream: Stream) -> None:
        super().__init__()
        self._device, self._stream = device, stream

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        if function is not torch.Tensor.copy_:
            return function(*arguments, **(keywords or {}))
        target, source = arguments
        self._device.copies.append(tuple(target.shape))
        outwards = not self._device.is_of_host(source)
        with torch.inference_mode():
            if target.dtype == torch.float32:
                target.fill_(GARBAGE)
            seen = source if self._stream.saw_compute or not outwards else torch.full_like(source, GARBAGE)
        self._stream.put(lambda: _copied(target, seen))
        return target


def _copied(target: Tensor, source: Tensor) -> None:
    with torch.inference_mode():
        target.copy_(source)


class LateDevice:
    """Stands in for ``torch.cuda``; its memory is that of the host.

    ``copies`` has the shape of all that was copied, in order.
    """

    Event = Event

    def __init__(self) -> None:
        self.copies: list[tuple[int, ...]] = []
        self.streams: list[Stream] = []
        self._compute = Compute()

    def Stream(self) -> Stream:  # noqa: N802 - as torch.cuda has it
        self.streams.append(Stream())
        return self.streams[-1]

    def current_stream(self, _: torch.device) -> Compute:
        return self._compute

    def is_of_host(self, _: Tensor) -> bool:
        # The first of the two streams brings states to the device.
        return self._current is self.streams[0]

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._current = stream
        with _Copying(self, stream):
            yield
        # What is computed from now on must be waited for again.
        stream.saw_compute = False


def use_late_device(members_with_room: int) -> None:
    """Have every engine of this process compute on such a device, with room for the states of so many members."""

    def begin(self: TorchEngine, histories: Mapping[int, Any]) -> TensorStates:
        return TensorStates(self, histories, StreamedCopies(CPU, LateDevice()))  # type: ignore[arg-type]

    TorchEngine.begin = begin  # type: ignore[method-assign]
    TorchEngine.room = lambda *_: members_with_room  # type: ignore[method-assign, assignment]


class LateEngine(TorchEngine):
    """The network on such a device, with room for the states of so many members."""

    late: LateDevice | None = None
    members_with_room = 10**6

    def begin(self, histories: Mapping[int, Any]) -> TensorStates:
        self.late = LateDevice()
        return TensorStates(self, histories, StreamedCopies(CPU, self.late))  # type: ignore[arg-type]

    def room(self, members: int, state_bytes: int, history: int) -> int:
        return self.members_with_room
