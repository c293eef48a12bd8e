"""Timing of tilings on a device, stage by stage, as ``ai-models-mosaic tune`` does it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from ...variants import Architecture, Stage
from .choice import Shape, UnfitBackendError, stage_shape, tried
from .problem import BlockLayout, Problem
from .tilings import StageShape, Tiling, default_tiling, power_of_two
from .triton import attend_tokens, capability_of

CANDIDATES = (
    Tiling(64, 128, 64, warps=4, stages=3),
    Tiling(64, 128, 128, warps=4, stages=3),
    Tiling(64, 128, 64, warps=4, stages=2),
    Tiling(64, 64, 64, warps=4, stages=3),
    Tiling(64, 64, 64, warps=4, stages=4),
    Tiling(128, 64, 64, warps=4, stages=3),
    Tiling(128, 64, 64, warps=4, stages=4),
    Tiling(128, 64, 64, warps=8, stages=3),
    Tiling(128, 128, 64, warps=8, stages=3),
    Tiling(256, 64, 64, warps=8, stages=3),
)
"""What is timed beside the default; larger ones spill much."""

REPEATS = 7

Timer = Callable[[Callable[[], object]], float]
"""Milliseconds that a call takes on the device."""


@dataclass(frozen=True)
class Timing:
    """What one tiling took.

    Parameters
    ----------
    shape : StageShape
        Of the stage.
    tiling : Tiling
        How it was cut.
    milliseconds : float or None
        Of one launch; None: it did not run.
    operations : float
        Floating-point operations of one launch.
    failure : str
        Why it did not.
    """

    shape: StageShape
    tiling: Tiling
    milliseconds: float | None
    operations: float
    failure: str = ""

    @property
    def teraflops(self) -> float:
        """Operations per second, 10¹²."""
        return self.operations / (self.milliseconds or float("inf")) / 1e9


def event_timer(device: torch.device) -> Timer:
    """A timer by CUDA events: the median of some launches after a first one.

    Parameters
    ----------
    device : torch.device
        A CUDA GPU.

    Returns
    -------
    Timer
        For that device.
    """

    def timed(call: Callable[[], object]) -> float:
        call()
        taken = []
        for _ in range(REPEATS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(torch.cuda.current_stream(device))
            call()
            end.record(torch.cuda.current_stream(device))
            end.synchronize()
            taken.append(begin.elapsed_time(end))
        return statistics.median(taken)

    return timed


def candidates_of(shape: StageShape, element_bytes: int, capability: tuple[int, int] | None) -> tuple[Tiling, ...]:
    """The tilings to time for a stage, none larger than its blocks; the default is the first.

    Parameters
    ----------
    shape : StageShape
        The stage.
    element_bytes : int
        Of queries, keys and values.
    capability : (int, int) or None
        Of the device.

    Returns
    -------
    tuple of Tiling
        Each once.
    """
    most_rows = max(16, power_of_two(shape.sparse * shape.ratio))
    most_keys, most_local = (max(16, power_of_two(size)) for size in (shape.sparse, shape.local))
    cut = [
        replace(
            each,
            rows=min(each.rows, most_rows),
            keys=min(each.keys, most_keys),
            local_keys=min(each.local_keys, most_local),
        )
        for each in CANDIDATES
    ]
    return tuple(dict.fromkeys([default_tiling(shape, element_bytes, capability), *cut]))


def timings(
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    timer: Timer,
    *,
    members: int,
    most_pixels: int | None = None,
) -> Iterator[Timing]:
    """Time every candidate on every stage, one after the other.

    Parameters
    ----------
    architecture : Architecture
        Gives the stages.
    device : torch.device
        Where.
    dtype : torch.dtype
        Of queries, keys and values.
    timer : Timer
        Takes the time of a launch.
    members : int
        In a batch.
    most_pixels : int or None
        Of a stage, for tests; None: all.

    Yields
    ------
    Timing
        Stage by stage, each shape once.
    """
    # Of several stages of one shape the finest, which takes the most time.
    coarsest_first = (architecture.bottleneck, *reversed(architecture.stages))
    stages = dict(reversed({stage_shape(stage): stage for stage in coarsest_first}.items()))
    for shape, stage in stages.items():
        problem, compressed = _problem(stage, members, device, dtype, most_pixels)
        out = torch.empty_like(problem.query)
        operations = 4.0 * problem.query.numel() * (shape.local + shape.selected * shape.sparse)
        for tiling in candidates_of(shape, dtype.itemsize, capability_of(device)):
            cut = replace(problem, layout=replace(problem.layout, tiling=tiling))
            try:
                # A fast one that is wrong must not win.
                layout = replace(cut.layout, selected=min(shape.selected, 2))
                tried("triton", Shape(layout, shape.ratio, shape.width), device, dtype)
                taken = timer(lambda cut=cut, out=out, means=compressed: attend_tokens(cut, means, out))  # type: ignore[misc]
            except (UnfitBackendError, RuntimeError) as error:
                yield Timing(shape, tiling, None, operations, str(error))
            else:
                yield Timing(shape, tiling, taken, operations)


def fastest(measured: Iterable[Timing]) -> Mapping[str, Tiling]:
    """The tiling of every shape that took the least time; an earlier one where several took the same.

    Parameters
    ----------
    measured : iterable of Timing
        As of `timings`.

    Returns
    -------
    mapping of str to Tiling
        By shape; without those of which none ran.
    """
    best: dict[str, Timing] = {}
    for one in measured:
        if one.milliseconds is not None:
            name = str(one.shape)
            best[name] = min(best.get(name, one), one, key=lambda timing: timing.milliseconds or 0.0)
    return {shape: one.tiling for shape, one in best.items()}


def _problem(
    stage: Stage, members: int, device: torch.device, dtype: torch.dtype, most_pixels: int | None
) -> tuple[Problem, torch.Tensor]:
    """A random problem of the size of a stage, and its compressed branch."""
    width, heads, groups = stage.head_width, stage.query_heads, stage.key_value_heads
    pixels = min(stage.pixels, most_pixels or stage.pixels)
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    widths = [heads * width, groups * width, groups * width]
    joined = normal(members, pixels, sum(widths)).split(widths, dim=-1)
    query, key, value = (each.unflatten(-1, (-1, width)).transpose(1, 2) for each in joined)
    # A branch's gates of a head next to one another, as the network has them.
    gates = normal(members, heads, 3, pixels).float().softmax(dim=2).transpose(2, 3)
    blocks = pixels // stage.sparse_block
    means = tuple(normal(members, count, blocks, width).float() for count in (heads, groups, groups))
    chance = torch.rand(members, groups, blocks, blocks, generator=generator, device=device)
    lists = chance.topk(min(stage.selected_blocks, blocks), dim=-1).indices.int()
    layout = BlockLayout(stage.local_block, stage.sparse_block, lists.shape[-1])
    return Problem(query, key, value, gates, (means[0], means[1], means[2]), lists, layout), means[0]
