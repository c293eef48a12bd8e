"""Time, memory and floating-point rate of one member-step, beside the rate of matrix products in the same run.

``python benchmarks/member_step.py --variant era5 --checkpoint FILE [--json FILE]``; a checkpoint of random weights is
made where none is given. Every combination of backend, precision and members per batch runs in a process of its own.
Large products of the network's own shapes are timed before and after every step and between its blocks, and taken
out of the step's time, so that a machine that other jobs slow down does so to both sides of the ratio. Seconds of the
processor are printed beside those of the clock: with one thread they tell what the step costs where the clock cannot.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ai_models_mosaic.model import flops
from ai_models_mosaic.variants import VARIANTS, Variant

SAMPLE_ROWS = 2048
"""Rows of the products whose rate is measured: more than enough for full speed, and a fifth of a second."""

COLUMNS = (
    ("backend", "backend", "{}"),
    ("precision", "precision", "{}"),
    ("members", "members", "{}"),
    ("step_s", "s", "{:.3g}"),
    ("cpu_s", "CPU s", "{:.3g}"),
    ("peak_gb", "peak GB", "{:.2f}"),
    ("gflops", "GFLOP/s", "{:.0f}"),
    ("gemm_gflops", "products", "{:.0f}"),
    ("of_gemm", "share", "{:.2f}"),
    ("of_gemm_cpu", "share, CPU s", "{:.2f}"),
)
"""Key, heading and form of the table's columns; times are per member."""


class Clock:
    """Seconds of the clock and of the processor since it was made."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._start = self._now()

    def _now(self) -> np.ndarray[Any, Any]:
        self._wait()
        return np.array([time.perf_counter(), time.process_time()])

    def __call__(self) -> np.ndarray[Any, Any]:
        """Both."""
        return self._now() - self._start


class Parts:
    """Seconds by part of the network, each without those of the parts inside it."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: dict[str, np.ndarray[Any, Any]] = defaultdict(lambda: np.zeros(2))
        self._wait = wait
        self._inner = [np.zeros(2)]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside."""
        clock = Clock(self._wait)
        self._inner.append(np.zeros(2))
        yield
        taken = clock()
        self.seconds[name] += taken - self._inner.pop()
        self._inner[-1] += taken

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the calls of a function or method."""
        watched = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            with self.part(part):
                return watched(*arguments, **named)

        setattr(owner, name, counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled one, or random weights")
    parser.add_argument("--backend", nargs="+", default=["sdpa"])
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--members", type=int, nargs="+", default=[1], help="per batch")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=0, metavar="STEPS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="raw figures")
    parser.add_argument("--shallow", action="store_true", help="one block per resolution: for a busy machine")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        options.one.write_text(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        variant = variant_of(options)
        if options.shallow or (options.checkpoint is None and not variant.bundled):
            options.checkpoint = random_checkpoint(variant, Path(folder))
        found = [
            measured_apart(options, Path(folder) / "one.json", *case)
            for case in product(options.backend, options.precision, options.members)
        ]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    show(options.variant + ", one block per resolution" * options.shallow, found)


def variant_of(options: argparse.Namespace) -> Variant:
    """The variant, or with one block per resolution, all of them on the way down."""
    variant = VARIANTS[options.variant]
    if not options.shallow:
        return variant
    architecture = variant.architecture
    stages = tuple(replace(stage, encoder_depth=1, decoder_depth=0) for stage in architecture.stages)
    bottleneck = replace(architecture.bottleneck, encoder_depth=1)
    return replace(variant, architecture=replace(architecture, stages=stages, bottleneck=bottleneck))


def random_checkpoint(variant: Variant, folder: Path) -> Path:
    """Weights to measure with: times do not depend on what they are."""
    from ai_models_mosaic.checkpoints.random_weights import make_random_checkpoint
    from ai_models_mosaic.state import InitialState

    shape = (variant.architecture.history, *variant.architecture.grid.shape, variant.architecture.channels)
    values = np.random.default_rng(0).normal(1, 0.1, size=shape).astype(np.float32)
    times = tuple(datetime(2020, 1, 1) + timedelta(hours=lag) for lag in variant.lags_hours)
    path = folder / f"{variant.name}-random.safetensors"
    make_random_checkpoint(variant, InitialState(variant.architecture.grid, times, values), path, seed=0)
    return path


def measured_apart(options: argparse.Namespace, path: Path, backend: str, precision: str, members: int) -> Any:
    """`measure` in a process of its own, whose peak memory is that of this case alone."""
    command = [sys.executable, __file__, "--one", str(path), "--variant", options.variant, "--backend", backend]
    command += ["--precision", precision, "--members", str(members), "--repeats", str(options.repeats)]
    command += ["--warm-up", str(options.warm_up), *["--shallow"] * options.shallow]
    for name in ("checkpoint", "threads"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    subprocess.run(command, check=True)  # noqa: S603
    return json.loads(path.read_text())


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one case, in this process."""
    import torch

    import ai_models_mosaic.engines.torch as engines
    from ai_models_mosaic.checkpoints.files import locate
    from ai_models_mosaic.checkpoints.format import read_checkpoint

    variant, backend, precision, members = (
        variant_of(options),
        options.backend[0],
        options.precision[0],
        options.members[0],
    )
    if options.threads:
        torch.set_num_threads(options.threads)
    device = engines.choose_device(only_gpu=False)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    assets = locate(variant, Path(), options.checkpoint)
    statistics = read_checkpoint(assets.checkpoint).statistics
    clock = Clock(wait)
    engine = engines.load_engine(variant, assets, device, precision)
    engine.network.use_backend(backend)
    load_s = float(clock()[0])
    shape = (members, variant.architecture.history, *variant.architecture.grid.shape, variant.architecture.channels)
    generator = np.random.default_rng(0)
    mean, std = (statistics.mean, statistics.std) if statistics is not None else (0.0, 1.0)
    history = (mean + std * generator.normal(size=shape)).astype(np.float32)
    noise = generator.normal(size=(members, engine.noise_width)).astype(np.float32)
    for step in range(options.warm_up):
        engine.step(history, progress_of(step), noise)
    parts, samples = Parts(wait), Samples(engine, wait)
    watch_parts(parts, samples)
    taken = []
    samples.take()
    for step in range(options.repeats):
        before, clock = samples.seconds.copy(), Clock(wait)
        engine.step(history, progress_of(options.warm_up + step), noise)
        taken.append((clock() - (samples.seconds - before)).tolist())
    samples.take()
    step_s, cpu_s = (sorted(column)[len(taken) // 2] / members for column in zip(*taken, strict=True))
    operations = flops.step_flops(variant.architecture).total
    wall_rate, cpu_rate = (samples.operations / samples.seconds / 1e9).tolist()
    total = sum(seconds for seconds in parts.seconds.values())
    return {
        "variant": variant.name,
        "shallow": options.shallow,
        "backend": backend,
        "precision": precision,
        "members": members,
        "engine": engine.description,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "time": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "threads": torch.get_num_threads(),
        "load_s": load_s,
        "times": taken,
        "step_s": step_s,
        "cpu_s": cpu_s,
        "tflop": operations / 1e12,
        "gflops": operations / step_s / 1e9,
        "gemm_gflops": wall_rate,
        "gemm_gflops_cpu": cpu_rate,
        "of_gemm": operations / step_s / 1e9 / wall_rate,
        "of_gemm_cpu": operations / cpu_s / 1e9 / cpu_rate,
        "peak_gb": peak_bytes(device) / 1e9,
        "parts": {name: (seconds / np.maximum(total, 1e-9)).tolist() for name, seconds in parts.seconds.items()},
    }


def progress_of(step: int) -> tuple[float, float]:
    """Another for every step: of members that start alike, an engine computes the beginning once."""
    return 0.25 + step, 0.7


class Samples:
    """Products of the network's own shapes, timed where a step lets them."""

    def __init__(self, engine: Any, wait: Callable[[], None]) -> None:
        self.seconds, self.operations = np.zeros(2), 0
        self._wait, self._device = wait, engine.device
        blocks = [block for stage in engine.network.encoder_stages for block in stage.blocks]
        self._weights = [blocks[0].ffn.w13.weight, blocks[0].ffn.w2.weight]
        # Memory that is new to the process would be fetched within a product's time, and so flatter the step.
        self._made = [weight.new_zeros(SAMPLE_ROWS, weight.shape[0]) for weight in self._weights]

    def take(self) -> None:
        """One product of either shape of the finest stage's feed-forward."""
        import torch

        with torch.inference_mode():
            for weight, made in zip(self._weights, self._made, strict=True):
                rows = torch.ones(SAMPLE_ROWS, weight.shape[1], dtype=weight.dtype, device=self._device)
                clock = Clock(self._wait)
                torch.matmul(rows, weight.t(), out=made)
                self.seconds += clock()
                self.operations += 2 * SAMPLE_ROWS * weight.numel()


def watch_parts(parts: Parts, samples: Samples) -> None:
    """Count what runs by part, and sample the rate of products after every block."""
    import torch

    from ai_models_mosaic.model import attention, fused, interpolation, layers, network, resampling
    from ai_models_mosaic.model.attention import problem as attention_problem

    for owner, name in ((layers.Linear, "forward"), (torch, "mm")):
        parts.watch(owner, name, "linear maps")
    parts.watch(layers.RMSNorm, "forward", "norms")
    for passes in (fused.Passes, fused.KernelPasses):
        parts.watch(passes, "add_product", "linear maps")
        parts.watch(passes, "norm_to", "norms")
        parts.watch(passes, "rotate", "rotation and gates")
    parts.watch(layers.Attention, "_projected", "queries, keys, values, gates")
    parts.watch(layers, "block_sparse_attention", "gated sum of the branches")
    parts.watch(attention, "select_blocks", "choice of blocks")
    parts.watch(attention_problem, "local_branch", "local branch")
    parts.watch(attention_problem, "compressed_branch", "compressed branch")
    parts.watch(attention, "_selected", "selected branch")
    parts.watch(attention, "tiled_selected", "selected branch")
    parts.watch(layers.Attention, "added_to", "residual of the attention")
    parts.watch(layers.FeedForward, "add_to", "gates and residual of the feed-forward")
    parts.watch(interpolation.CrossGridAttention, "forward", "interpolation")
    for sampling in (resampling.Downsample, resampling.Upsample):
        parts.watch(sampling, "forward", "change of resolution")
    parts.watch(network.MosaicNetwork, "forward", "the rest")
    forward = layers.Block.forward

    def sampled(*arguments: Any, **named: Any) -> Any:
        made = forward(*arguments, **named)
        with parts.part("(samples)"):
            samples.take()
        return made

    layers.Block.forward = sampled  # type: ignore[method-assign]


def peak_bytes(device: Any) -> int:
    """Peak memory: of the process, or of the allocator of a GPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(variant: str, found: list[dict[str, Any]]) -> None:
    """The table, and the shares of the parts in seconds of the processor."""
    first = found[0]
    print(f"{variant}, {first['tflop']:.4g} TFLOP per member-step; {first['engine']}, PyTorch {first['torch']}")
    print("| " + " | ".join(heading for _, heading, _ in COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for case in found:
        print("| " + " | ".join(form.format(case[key]) for key, _, form in COLUMNS) + " |")
    for case in found:
        shares = {name: share for name, share in case["parts"].items() if name != "(samples)"}
        whole = sum(share[1] for share in shares.values())
        print(f"\n{case['backend']}, {case['precision']}, {case['members']} members per batch:")
        for name, share in sorted(shares.items(), key=lambda item: -item[1][1]):
            print(f"  {share[1] / whole:6.1%}  {name}")


if __name__ == "__main__":
    main()
