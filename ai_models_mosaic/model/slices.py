"""How steps without gradients go in slices: of rows, so that what a product has made is still in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ..arrays import Float, Float32

CACHED_AT_ONCE = 3 * 2**22
"""Elements of the widest tensor of a slice on a CPU (48 MiB in float32, 2048 rows at full size): what a product
has made is read again while it is still in the cache, and the memory allocator hands the same pages to the next
slice."""

HELD_AT_ONCE = 2**26
"""The same on a GPU, which is not busy with fewer rows."""


def row_slices(batch: int, rows: int, widest: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Slices of ``(member, row, …)`` that lie in one piece: of rows of one member, on a GPU also of whole members.

    Parameters
    ----------
    batch, rows : int
        Shape of what is sliced.
    widest : int
        Elements per row of the widest tensor that is made of a slice.
    device : torch.device
        Where it is made.

    Yields
    ------
    (slice, slice)
        Of members and of rows, each pair of both once.
    """
    on_cpu = device.type == "cpu"
    at_once = max(1, (CACHED_AT_ONCE if on_cpu else HELD_AT_ONCE) // widest)
    # On a CPU, a product has as many rows in a batch as alone, and so rounds in the same way.
    members = 1 if on_cpu else max(1, at_once // rows)
    for member in range(0, batch, members):
        for row in range(0, rows, at_once):
            yield slice(member, member + members), slice(row, row + at_once)


def by_row(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "member row inputs"]
) -> Float[Tensor, "member row outputs"]:
    """A function of rows over ``(member, row, width)``: a product with two dimensions is one call of the library."""
    return function(x.flatten(0, 1)).unflatten(0, (x.shape[0], -1))


def add_product(
    to: Float32[Tensor, "member row width"],
    rows: Float[Tensor, "member row inputs"],
    weight: Float[Tensor, "width inputs"],
    out: Float32[Tensor, "member row width"] | None = None,
) -> None:
    """``to + rows · weightᵀ`` in the place of `to`, or into `out`: where precisions allow, within the product.

    Parameters
    ----------
    to, out : Tensor (member, row, width)
        In float32.
    rows : Tensor (member, row, inputs)
        Rounded to the precision of `weight`.
    weight : Tensor (width, inputs)
        As `torch.nn.Linear` holds it.
    """
    out = to if out is None else out
    if weight.dtype == to.dtype:
        torch.addmm(to.flatten(0, 1), rows.flatten(0, 1), weight.t(), out=out.flatten(0, 1))
    else:
        torch.add(to, by_row(lambda each: functional.linear(each.to(weight.dtype), weight), rows), out=out)


def in_one_go() -> bool:
    """Whether whole tensors are to be computed.

    That is so for gradients, for graphs, which slices would swell, and under autocast, which does not
    choose the precision of products into given memory.

    Returns
    -------
    bool
        Asked anew in every call: it depends on the modes of PyTorch that are on.
    """
    autocast = any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or autocast
