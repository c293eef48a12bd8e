"""What a forward on a GPU asks of it, counted where there is none: launches, bytes and operations, by part.

The network runs over tensors of the device ``meta``, which have shapes and no numbers, and which say that they are on
a GPU where the code asks. What it then calls is what it would call there, and is counted by these rules:

- An operator of PyTorch that computes is one launch. Views, shapes and fresh memory are none. Composite operators are
  counted by what they are made of; the ones that CUDA has a kernel for, and ``meta`` has not, as that kernel: a fused
  attention and an RMS norm are one. An ``addmm`` that does not add in place first copies what it adds to: two.
  ``topk`` is one, and two more where it sorts.
- Bytes: each input is read once and each result written once, whatever the caches do and however often a gather comes
  back to one place; a dimension that is only repeated counts as one.
- Operations: two for each multiplication within a matrix product or an attention. Nothing else has any.
- Kernels of our own report theirs (`ai_models_mosaic.model.launches`).
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ai_models_mosaic
from ai_models_mosaic.model.launches import Launch, counting

PARTS = (
    "products",
    "attention",
    "norms",
    "rotation and means",
    "gating",
    "interpolation",
    "selection",
    "sums",
    "copies",
    "other",
)
"""Where a launch may belong."""

PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm"})
COPIES = frozenset({"_to_copy", "copy_", "clone", "cat", "stack", "fill_", "zero_", "zeros", "full", "repeat"})
OPERATORS = {**dict.fromkeys(("add", "add_", "addcmul", "addcmul_"), "sums"), "silu": "gating", "silu_": "gating"}
"""Parts of operators that are called from nowhere in particular."""

NOTHING = frozenset(
    {
        "empty",
        "empty_like",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "_unsafe_view",
        "device",
        "detach",
        "lift_fresh",
    }
)
"""Operators that launch nothing, besides views."""

WRITTEN_ONLY = frozenset({"copy_", "fill_", "zero_"})
"""Operators in place that do not read what they write to."""

PLACES = {
    "_gather": "interpolation",
    "_slices": "interpolation",
    "select_blocks": "selection",
    "block_means": "rotation and means",
    "of_rows": "rotation and means",
    "branch_gates": "gating",
    "add_to": "gating",
    "postprocess": "gating",
    "gated_sum": "sums",
    "accumulated": "sums",
    "add_product": "sums",
    "_joined": "sums",
    "_dealt_out": "sums",
}
"""Parts of what is neither product, norm nor copy, by the innermost function of the package that calls it."""

KERNELS = {
    "attend": "attention",
    "attend_to_means": "attention",
    "join": "attention",
    "select": "selection",
    "normalise": "norms",
    "rotate": "rotation and means",
    "gate_in_place": "gating",
    "interpolate": "interpolation",
    "map_members": "other",
}
"""Parts of our own kernels."""

GPU, CAPABILITY = torch.device("cuda"), (9, 0)
"""What tensors say that they are on: an H100."""


@dataclass(frozen=True)
class Count:
    """One or more launches of one operator or kernel.

    Parameters
    ----------
    part : str
        A name in `PARTS`.
    launch : Launch
        Of all of them together.
    launches : int
        How many.
    half : bool
        What it multiplies is in half precision.
    """

    part: str
    launch: Launch
    launches: int = 1
    half: bool = True


class AsOnGPU(TorchFunctionMode):
    """Lets tensors of ``meta`` say that they are on a GPU, and has fused kernels counted that only CUDA has.

    Parameters
    ----------
    counts : list of Count or None
        Grows by what is called within; None: nothing is counted, and all keeps its gradients.
    """

    def __init__(self, counts: list[Count] | None) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What a call gives."""
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            return GPU
        if func == torch.Tensor.is_cuda.__get__:
            return True
        if self._counts is not None and func is torch.nn.functional.scaled_dot_product_attention:
            return self._attended(self._counts, *args)
        if self._counts is not None and func in (torch.nn.functional.rms_norm, torch.rms_norm):
            made = torch.empty(args[0].shape, dtype=args[0].dtype, device="meta")
            self._counts.append(Count("norms", Launch("rms_norm", byte_count(args[0]), byte_count(made))))
            return made
        args, kwargs = torch.utils._pytree.tree_map_only(torch.device, _on_meta, (args, kwargs))
        if isinstance(kwargs.get("device"), str):
            kwargs["device"] = _on_meta(torch.device(kwargs["device"]))
        return func(*args, **kwargs)

    def _attended(self, counts: list[Count], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device="meta")
        operations = 2.0 * query.numel() * key.shape[-2] + 2.0 * made.numel() * key.shape[-2]
        read = sum(map(byte_count, (query, key, value)))
        launch = Launch("scaled_dot_product_attention", read, byte_count(made), operations)
        counts.append(Count("attention", launch, half=query.dtype != torch.float32))
        return made


class Operators(TorchDispatchMode):
    """Counts the operators of PyTorch.

    Parameters
    ----------
    counts : list of Count
        Grows by what is called within.
    """

    def __init__(self, counts: list[Count]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What an operator gives."""
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        if name not in NOTHING and not _is_view(func):
            self._counts.append(_counted(func, name, args, kwargs, results))
        return results


def byte_count(tensor: Tensor) -> int:
    """Of the elements that a tensor has memory for."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(size if stride else min(size, 1) for size, stride in sizes)


def _on_meta(device: torch.device) -> torch.device:
    return torch.device("meta") if device.type == "cuda" else device


def _is_view(func: Any) -> bool:
    """Whether what it gives is memory that it was given, unchanged."""
    return any(given.alias_info is not None and not given.alias_info.is_write for given in func._schema.returns)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _counted(func: Any, name: str, args: Any, kwargs: Any, results: Any) -> Count:
    """The count of a call, by the rules above."""
    written = [value for argument, value in _arguments(func, args, kwargs) if _writes(argument)]
    read = [
        value
        for argument, value in _arguments(func, args, kwargs)
        if not (_writes(argument) and (argument.kwarg_only or name in WRITTEN_ONLY))
    ]
    inputs = {id(tensor): tensor for tensor in _tensors(read)}.values()
    outputs = _tensors(written) or _tensors(results)
    bytes_read, bytes_written = (sum(map(byte_count, tensors)) for tensors in (inputs, outputs))
    launches = 1
    if name == "addmm" and args[0].dim() == 2 and not _same_memory(args[0], outputs[0]):
        # The library adds in place: what is added to comes there first.
        launches, moved = 2, byte_count(outputs[0])
        bytes_read, bytes_written = bytes_read + moved, bytes_written + moved
    if name == "topk" and (args[4] if len(args) > 4 else kwargs.get("sorted", True)):
        launches = 3
    factors = _factors(name, args)
    operations = 2.0 * factors[0].numel() * factors[1].shape[-1] if factors else 0.0
    half = not factors or factors[0].dtype != torch.float32
    return Count(_part(name), Launch(name, bytes_read, bytes_written, operations), launches, half)


def _arguments(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """The arguments of a schema with their values, where they were given."""
    for index, argument in enumerate(func._schema.arguments):
        if index < len(args):
            yield argument, args[index]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return (
        one.untyped_storage()._cdata == other.untyped_storage()._cdata
        and one.storage_offset() == other.storage_offset()
    )


def _factors(name: str, args: Any) -> tuple[Tensor, ...]:
    """What a product multiplies; nothing of other operators."""
    return tuple(args[:2] if name in ("mm", "bmm") else args[1:3]) if name in PRODUCTS else ()


def _part(name: str) -> str:
    """Where an operator belongs."""
    place = next((PLACES[called] for called in _callers() if called in PLACES), "other")
    if name in COPIES:
        return "copies"
    if name in PRODUCTS and place not in ("interpolation", "selection"):
        return "products"
    return OPERATORS.get(name, place) if place == "other" else place


PACKAGE = str(Path(ai_models_mosaic.__file__).parent)


def _callers() -> Iterator[str]:
    """Functions of the package that are running, the innermost first."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            yield frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]


@contextmanager
def pretending() -> Iterator[list[Count]]:
    """Tensors of ``meta`` are taken for ones on a GPU, and what they are put through is counted.

    Yields
    ------
    list of Count
        Grows with every call.
    """
    counts: list[Count] = []
    capable = mock.patch.object(torch.cuda, "get_device_capability", return_value=CAPABILITY)
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        capable,
        Operators(counts),
        AsOnGPU(counts),
        counting() as launches,
    ):
        # Of autocast, which finds no GPU.
        warnings.simplefilter("ignore")
        yield counts
    counts.extend(Count(KERNELS[launch.name], launch) for launch in launches)
