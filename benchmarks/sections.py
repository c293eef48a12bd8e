"""What ``gpu.py --quick`` measures, section by section."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections import deque
from importlib import metadata
from itertools import product
from typing import Any

import numpy as np
import torch
from bench import CLOCK, ROOT, SAMPLE, Bench
from census import Rates
from counting import KERNELS, Count

from ai_models_mosaic.engines import Arrival
from ai_models_mosaic.engines.form import choose_form
from ai_models_mosaic.engines.torch import PRECISIONS
from ai_models_mosaic.forecast.rollout import Ensemble
from ai_models_mosaic.model import flops
from ai_models_mosaic.model.attention.tuning import event_timer, fastest, timings
from ai_models_mosaic.model.fused import KernelPasses
from ai_models_mosaic.model.launches import counting

PUBLISHED = {"era5": 0.048}
"""Seconds per member-step: 24 members × 10 steps in 12 s on one H100 (arXiv:2604.16429)."""

PRODUCT = 8192
"""Side of the square product whose rate is taken for the machine's; a sixteenth of it on a CPU."""

COPIED_BYTES = 2**31
"""Of the copy whose rate is taken for that of the memory; a 64th of it on a CPU."""

MEMBERS = (1, 2, 4, 8)
"""At once."""

PARTS_OF_NAMES = (
    ("products", r"gemm|cutlass|nvjet|xmma|splitK"),
    ("attention", r"flash|fmha|cudnn.*sdpa"),
    ("norms", r"rms_?norm|layer_?norm"),
    ("interpolation", r"EmbeddingBag|index|gemv|gather_kernel"),
    ("selection", r"topk|gatherTopK|radix|sort"),
    ("gating", r"silu|softmax|MulFunctor"),
    ("sums", r"Functor_add|AddFunctor|addcmul"),
    ("copies", r"copy|Cat|Memcpy|Memset|Fill"),
    ("rotation and means", r"reduce_kernel|complex"),
)
"""Parts by the first pattern that a name of a CUDA kernel holds, where it is none of our own."""


def device(bench: Bench) -> dict[str, Any]:
    """What is measured, and with what."""
    found: dict[str, Any] = {
        "name": bench.device.type,
        "processors": os.cpu_count(),
        "Python": platform.python_version(),
    }
    if bench.on_gpu:
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {"name": properties.name, "capability": f"sm_{properties.major}{properties.minor}"}
        found |= {"memory, GB": properties.total_memory / 1e9, "multiprocessors": properties.multi_processor_count}
        found |= {"CUDA": torch.version.cuda}
    names = ("ai-models-mosaic", "torch", "triton", "numpy")
    return found | {name: _version(name) for name in names} | {"commit": _commit(), "variant": bench.variant.name}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Of the checkout, or of the file that a bundle leaves in its place."""
    written = ROOT / "COMMIT"
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)  # noqa: S607
    return said.stdout.strip() or "unknown"


def rates(bench: Bench) -> dict[str, Any]:
    """Of a large product, and of a copy."""
    side = PRODUCT if bench.on_gpu else PRODUCT // 16
    left, right = (torch.randn(side, side, device=bench.device).to(PRECISIONS[bench.precision]) for _ in range(2))
    products = 2 * side**3 / bench.timed(lambda: left @ right, 5)
    source = torch.zeros(COPIED_BYTES // (1 if bench.on_gpu else 64), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() / bench.timed(lambda: target.copy_(source), 5)
    bench.rates = Rates(products=products, attention=products / 2, bytes=moved)
    return {f"product of {side}³, TFLOP/s": products / 1e12, "copy, both ways, TB/s": moved / 1e12}


def parity(bench: Bench) -> dict[str, Any]:
    """The released outputs of small networks, by file, backend and precision."""
    sys.path.append(str(ROOT / "tests"))
    import parity as released

    backends = ("triton", "sdpa", "reference") if bench.on_gpu else ("sdpa", "reference")
    precisions = ("float16", "float32", "bfloat16") if bench.on_gpu else ("float32",)
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, Any] = {}
    for backend, precision, path in product(backends, precisions, sorted((ROOT / "tests" / "data").glob("*.npz"))):
        if bench.left() <= 0:
            # Kernels are compiled for every shape and precision.
            return found | {"not complete": "no time was left"}
        network, case = released.load(path)
        network = network.to(bench.device)
        dtype = PRECISIONS[precision]
        choose_form(backend, network.architecture, bench.device, dtype).use_in(network)
        network.prepare(dtype)
        case = {key: value.to(bench.device) for key, value in case.items()}
        off = released.predict(network, case).float() - case["output"]
        worst, rms = float(off.abs().max()), float(off.square().mean().sqrt() / case["output"].std())
        found.setdefault(path.stem, {})[f"{backend} {precision}"] = {"largest difference": worst, "rms / std": rms}
    return found


def network(bench: Bench) -> dict[str, Any]:
    """Make a random checkpoint, and the one engine of it."""
    start = time.monotonic()
    # They are compiled beside the rest, the first time.
    kernels = bench.kernels
    size = bench.checkpoint.stat().st_size
    made = time.monotonic()
    passes = kernels.form().passes
    tried = time.monotonic()
    found = {
        "engine": bench.engine.description,
        "checkpoint, GB": size / 1e9,
        "making it, s": made - start,
        "waiting for the trials of kernels, s": tried - made,
        "loading it, and waiting for the other kernels, s": time.monotonic() - tried,
    }
    if isinstance(passes, KernelPasses):
        found["sums within products"] = passes.adds_within
    return found


def step(bench: Bench) -> dict[str, Any]:
    """A member-step of the network alone, by members at once."""
    total, found = flops.step_flops(bench.variant.architecture).total, {}
    for members in MEMBERS if bench.on_gpu else MEMBERS[:2]:
        bench.check_time()
        inputs = bench.inputs(members)
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode():
            taken = bench.timed(lambda inputs=inputs: bench.engine.network(*inputs)) / members
        row = {"s per member-step": taken}
        if bench.rates is not None:
            row["share of the rate of products"] = total / taken / bench.rates.products
        if bench.on_gpu:
            row["memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
            row["estimated, GB"] = bench.engine.memory_bytes(members) / 1e9
        found[f"{members} at once"] = row
    published = PUBLISHED.get(bench.variant.name)
    return found | ({"published, s per member-step": published} if published else {})


def parts(bench: Bench) -> dict[str, Any]:
    """Where a forward of four members spends its time, and each kernel of our own beside its floor."""
    bench.need_gpu()
    from torch.profiler import ProfilerActivity, profile

    inputs = bench.inputs(4)
    with torch.inference_mode():
        bench.engine.network(*inputs)
        with counting() as launches:
            bench.engine.network(*inputs)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            bench.engine.network(*inputs)
            torch.cuda.synchronize()
    ran = {
        event.key: (event.self_device_time_total / 1e6, event.count)
        for event in seen.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA and event.self_device_time_total
    }
    counts = [Count(KERNELS.get(launch.name, "other"), launch) for launch in launches]
    return {
        "on the device, s": sum(taken for taken, _ in ran.values()),
        "launches": sum(count for _, count in ran.values()),
        "parts": by_part(ran),
        "own kernels": against_floor(ran, counts, bench.rates or Rates()),
        "longest": {name[:100]: _row(*ran[name]) for name in sorted(ran, key=lambda name: -ran[name][0])[:24]},
    }


def by_part(ran: dict[str, tuple[float, int]]) -> dict[str, Any]:
    """Seconds and launches of the parts, and their share, from those of kernels by name."""
    sums: dict[str, tuple[float, int]] = {}
    for name, (taken, count) in ran.items():
        part = part_of(name)
        before = sums.get(part, (0.0, 0))
        sums[part] = (before[0] + taken, before[1] + count)
    whole = sum(taken for taken, _ in sums.values())
    return {
        part: _row(taken, count) | {"share": taken / whole}
        for part, (taken, count) in sorted(sums.items(), key=lambda item: -item[1][0])
    }


def part_of(name: str) -> str:
    """The part of a CUDA kernel."""
    return KERNELS.get(name) or next((part for part, pattern in PARTS_OF_NAMES if re.search(pattern, name)), "other")


def against_floor(ran: dict[str, tuple[float, int]], counts: list[Count], rates: Rates) -> dict[str, Any]:
    """Seconds of every own kernel, what the rates of the device allow at best, and the ratio of the two."""
    floors: dict[str, float] = {}
    for count in counts:
        floors[count.launch.name] = floors.get(count.launch.name, 0.0) + rates.seconds(
            count.part, count.launch, half=True
        )
    found = {}
    for kernel, floor in floors.items():
        taken, _ = ran.get(kernel, (0.0, 0))
        found[kernel] = {"s": taken, "floor, s": floor, "of its floor": taken / floor if floor else 0.0}
    return found


def _row(taken: float, count: int) -> dict[str, Any]:
    return {"s": taken, "launches": count}


def tiles(bench: Bench) -> dict[str, Any]:
    """How attention is cut fastest, stage by stage, the default first; the runs before this had the default."""
    bench.need_gpu()
    measured, architecture = [], bench.variant.architecture
    with torch.inference_mode():
        timed = timings(architecture, bench.device, PRECISIONS[bench.precision], event_timer(bench.device), members=4)
        for one in timed:
            measured.append(one)
            if bench.left() <= 0:
                break
    shown = {
        f"{one.shape} {one.tiling}": one.failure or {"ms": one.milliseconds, "TFLOP/s": one.teraflops}
        for one in measured
    }
    best = {shape: str(tiling) for shape, tiling in fastest(measured).items()}
    return {"complete": bench.left() > 0, "timed": shown, "fastest": best}


def resident(bench: Bench) -> dict[str, Any]:
    """The whole run of all members, the states where the engine keeps them, each new one brought to the host."""
    engine, members = bench.engine, tuple(range(1, bench.members + 1))
    ensemble = Ensemble(seed=0, members=members, per_batch=engine.best_batch(len(members)))
    states = engine.begin(dict.fromkeys(members, bench.start.values))
    begun, done, coming = time.monotonic(), 0, deque[Arrival]()
    for number in range(1, bench.options.steps + 1):
        bench.check_time()
        for batch in ensemble.batches():
            noise = np.stack(
                [ensemble.noise(bench.start.initial_time, one, number, engine.noise_width) for one in batch]
            )
            coming.append(states.advance(batch, CLOCK, noise))
            while len(coming) > states.ahead:
                coming.popleft()()
        done = number
    while coming:
        coming.popleft()()
    taken = time.monotonic() - begun
    return {
        "members": len(members),
        "members at once": ensemble.per_batch,
        "steps": done,
        "whole run, s": taken,
        "s per member-step": taken / done / len(members),
    }


def command(bench: Bench) -> dict[str, Any]:
    """The command from its start to its end, without output and with GRIB."""
    hours = bench.variant.step_hours * bench.options.steps
    words = [sys.executable, "-m", "ai_models_mosaic.cli", "forecast", "--variant", bench.variant.name]
    words += ["--checkpoint", str(bench.checkpoint), "--file", str(SAMPLE), "--lead-time", str(hours)]
    words += ["--num-ensemble-members", str(bench.members)]
    found: dict[str, Any] = {"members": bench.members, "steps": bench.options.steps}
    if bench.on_gpu:
        # What this process holds, the command cannot have.
        torch.cuda.empty_cache()
    for name, more in (("no output", ["--output", "none"]), ("GRIB", ["--path", str(bench.folder / "out.grib")])):
        bench.check_time()
        start = time.monotonic()
        done = subprocess.run(  # noqa: S603
            [*words, *more],
            capture_output=True,
            text=True,
            check=False,
            timeout=bench.left(),
            cwd=bench.folder,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        found[f"{name}, s"] = time.monotonic() - start
    return found
