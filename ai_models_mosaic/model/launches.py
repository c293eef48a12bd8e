"""The one place where kernels of our own are launched, and where they are counted without a GPU.

A forward over tensors of the device ``meta`` computes nothing; kernels that it would launch report here what they would
read, write and compute, as PyTorch's own operators do through its dispatcher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """What one launch of a kernel asks of a device.

    Parameters
    ----------
    name : str
        Of the kernel.
    bytes_read, bytes_written : int
        To and from the device's memory, every element once.
    operations : float
        Floating-point operations of its matrix products; 0 where it has none.
    """

    name: str
    bytes_read: int
    bytes_written: int
    operations: float = 0.0


_counted: ContextVar[list[Launch] | None] = ContextVar("counted", default=None)


@contextmanager
def counting() -> Iterator[list[Launch]]:
    """Collect what is launched within, in order.

    Yields
    ------
    list of Launch
        Grows with every launch.
    """
    launches: list[Launch] = []
    token = _counted.set(launches)
    try:
        yield launches
    finally:
        _counted.reset(token)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    *arguments: Any,
    reads: Sequence[Tensor | int],
    writes: Sequence[Tensor | int],
    operations: float = 0.0,
    name: str | None = None,
    **constants: Any,
) -> None:
    """Launch a Triton kernel, or on the device ``meta`` only count it.

    Parameters
    ----------
    kernel : triton.JITFunction
        What runs; not touched on ``meta``, where None will do.
    grid : tuple of int
        Programs.
    *arguments
        Of the kernel, tensors and numbers.
    reads, writes : sequence of Tensor or int
        What is read and written, for the count: whole tensors, or bytes where a kernel touches a part, or a part often.
    operations : float
        Of matrix products within.
    name : str or None
        For the count; None: that of the kernel.
    **constants
        Compile-time arguments of the kernel, and Triton's ``num_warps`` and ``num_stages``.
    """
    counted = _counted.get()
    if counted is not None:
        called = name or kernel.__name__
        counted.append(Launch(called, _bytes_of(reads), _bytes_of(writes), operations))
    tensors = [each for each in arguments if isinstance(each, Tensor)]
    if any(tensor.is_meta for tensor in tensors):
        return
    # Triton launches on the current device, wherever the tensors are.
    on_gpu = [tensor.device for tensor in tensors if tensor.is_cuda]
    with torch.cuda.device(on_gpu[0]) if on_gpu else nullcontext():
        kernel[grid](*arguments, **constants)


def _bytes_of(touched: Sequence[Tensor | int]) -> int:
    return sum(each if isinstance(each, int) else each.numel() * each.element_size() for each in touched)
