"""Member-steps on a CUDA GPU, beside the published figure and the roofline.

``python benchmarks/gpu.py`` on any machine with a CUDA GPU; ``--estimate`` prints the roofline anywhere.
Weights are random unless ``--checkpoint`` is given: times do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ai_models_mosaic.checkpoints.format import Checkpoint, Statistics, build_network, read_checkpoint
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.model import flops
from ai_models_mosaic.model.attention import BACKENDS
from ai_models_mosaic.model.network import MosaicNetwork, initialise
from ai_models_mosaic.variants import VARIANTS, Architecture, Variant

PUBLISHED_SECONDS = {"era5": 0.048}
"""Per member-step: 24 members × 10 steps in 12 s on one H100 (arXiv:2604.16429)."""

GEMM = 8192
"""Side of the square product whose rate is taken for the machine's."""


@dataclass(frozen=True)
class Device:
    """What a device is said to do at best.

    Parameters
    ----------
    name : str
        Of the device.
    operations : float
        Per second, dense, in float16 and bfloat16.
    bytes : float
        Per second, to and from its memory.
    """

    name: str
    operations: float
    bytes: float


ASSUMED = Device("H100 SXM", 989e12, 3.35e12)
"""Data sheet of the maker: dense bfloat16 or float16 on tensor cores; HBM3."""


def bytes_moved(architecture: Architecture, element_bytes: int, members: int = 1) -> int:
    """Bytes that a step of some members moves between the device and its memory.

    Every weight is read once, and so are the inputs of every operation, and its result written once: norm, q with k and
    v, rotation, attention with gates, output with the residual sum; norm, first map, gating, second map with the
    residual sum. The residual stream is float32 whatever the precision. Kernels that fuse more move less.

    Parameters
    ----------
    architecture : Architecture
        Of the variant.
    element_bytes : int
        Of what the products take and give.
    members : int
        That share one reading of the weights.

    Returns
    -------
    int
        Bytes of a step of all of them.
    """
    stages = (*architecture.stages, architecture.bottleneck)
    per_member = 0.0
    for stage in stages:
        # In units of one field (token, width). Queries, keys and values together:
        heads = 1 + 2 * stage.key_value_heads / stage.query_heads
        hidden = stage.hidden_width / stage.width
        attention = 2 + heads + 2 * heads + heads + 2  # norm to projections, their result, rotation, attention, output
        feed_forward = 2 + 2 * hidden + 3 * hidden + hidden  # norm to first map, its result, gating, second map
        fields = attention + feed_forward
        # Read by a norm, read and written by the sum after it.
        stream = 2 * 3
        field = stage.pixels * stage.width
        per_member += (stage.encoder_depth + stage.decoder_depth) * field * (fields * element_bytes + stream * 4)
    ends = architecture.grid.size * (architecture.features + architecture.channels + 6 * architecture.stages[0].width)
    weights = flops.weight_count(architecture) * element_bytes
    return int(weights + members * (per_member + ends * 4))


def estimate(variant: Variant, device: Device, members: int) -> dict[str, float]:
    """The roofline of a member-step: the longer of computing and moving, at the device's best, s."""
    work = flops.step_flops(variant.architecture)
    moved = bytes_moved(variant.architecture, 2, members) / members
    computing, moving = work.total / device.operations, moved / device.bytes
    found = {"TFLOP": work.total / 1e12, "GB": moved / 1e9, "computing": computing, "moving": moving}
    return {**found, "roofline": max(computing, moving)}


def print_estimate(device: Device, names: list[str], members: int) -> None:
    """The table of `estimate`, with its assumptions."""
    print(
        f"Not measured. {device.name}: {device.operations / 1e12:.0f} TFLOP/s in float16 or bfloat16, "
        f"{device.bytes / 1e12:.2f} TB/s; weights read once for {members} members.\n"
    )
    print("| variant | TFLOP | GB moved | computing | moving | roofline | published |\n|---|---|---|---|---|---|---|")
    for name in names:
        found = estimate(VARIANTS[name], device, members)
        times = " | ".join(f"{found[part] * 1e3:.2f} ms" for part in ("computing", "moving", "roofline"))
        published = f"{PUBLISHED_SECONDS[name] * 1e3:.0f} ms" if name in PUBLISHED_SECONDS else ""
        print(f"| {name} | {found['TFLOP']:.3g} | {found['GB']:.3g} | {times} | {published} |")


def random_network(variant: Variant) -> MosaicNetwork:
    """The network of a variant with random weights and static fields."""
    network = MosaicNetwork(variant.architecture)
    initialise(network, torch.Generator().manual_seed(0))
    state = {key: value.detach() for key, value in network.named_parameters()}
    return build_network(
        variant.architecture, Checkpoint(Path("random"), state), np.zeros((*variant.architecture.grid.shape, 3))
    )


def network_of(variant: Variant, checkpoint: Path | None) -> MosaicNetwork:
    """The network to measure."""
    if checkpoint is None:
        return random_network(variant)
    statics = np.zeros((*variant.architecture.grid.shape, 3))
    return build_network(variant.architecture, read_checkpoint(checkpoint), statics)


def gemm_rate(precision: torch.dtype, device: torch.device, repeats: int) -> float:
    """Operations per second of a large square product."""
    left, right = (torch.randn(GEMM, GEMM, device=device, dtype=precision) for _ in range(2))
    return 2 * GEMM**3 / seconds(lambda: left @ right, repeats)


def seconds(what: Any, repeats: int) -> float:
    """Median time of a call on the GPU, after one that is not counted."""
    what()
    torch.cuda.synchronize()
    taken = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        what()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken)


def engine_of(variant: Variant, network: MosaicNetwork, precision: str, *, graphs: bool) -> TorchEngine:
    """An engine on the GPU for states that are normalised already."""
    channels = variant.architecture.channels
    unit = Statistics(np.zeros(channels), np.ones(channels))
    return TorchEngine(network, unit, torch.device("cuda"), precision, graphs=graphs)


def member_step(engine: TorchEngine, variant: Variant, members: int, repeats: int) -> dict[str, Any]:
    """Time per member of a step of a batch, from and to arrays of the host, and memory."""
    architecture, generator = variant.architecture, np.random.default_rng(0)
    shape = (members, architecture.history, *architecture.grid.shape, architecture.channels)
    history = generator.normal(size=shape).astype(np.float32)
    noise = generator.normal(size=(members, architecture.noise_width)).astype(np.float32)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        taken = seconds(lambda: engine.step(history, (0.25, 0.5), noise), repeats) / members
    except Exception as error:  # whatever a backend does that this device or precision is not for
        return {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:80]}
    measured = torch.cuda.max_memory_allocated()
    return {"seconds": taken, "measured GB": measured / 1e9, "estimated GB": engine.memory_bytes(members) / 1e9}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows, printed as they come."""
    device, rows = torch.device("cuda"), []
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print(
        "| variant | backend | precision | graphs | members | s per member-step | of GEMM rate | memory | estimated |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rates = {name: gemm_rate(getattr(torch, name), device, options.repeats) for name in options.precision}
    for name, precision in product(options.variant, options.precision):
        # An engine rounds the weights of its network for good.
        variant, network = VARIANTS[name], network_of(VARIANTS[name], options.checkpoint)
        total = flops.step_flops(variant.architecture).total
        for backend, graphs in product(options.backend, (False, True) if options.graphs else (False,)):
            network.use_backend(backend)
            engine = engine_of(variant, network, precision, graphs=graphs)
            for members in options.members:
                row = {"variant": name, "backend": backend, "precision": precision, "graphs": graphs}
                row |= {"members": members, **member_step(engine, variant, members, options.repeats)}
                if "seconds" in row:
                    row["share"] = total / row["seconds"] / rates[precision]
                rows.append(row)
                print_row(row)
    print("\n" + "; ".join(f"GEMM rate in {name}: {rate / 1e12:.0f} TFLOP/s" for name, rate in rates.items()))
    for name, published in PUBLISHED_SECONDS.items():
        print(f"published for {name} on an H100: {published} s per member-step (float16)")
    return rows


def print_row(row: dict[str, Any]) -> None:
    """One row of the table; the reason where there is no time."""
    head = f"| {row['variant']} | {row['backend']} | {row['precision']} | {'on' if row['graphs'] else 'off'} |"
    if "failed" in row:
        print(f"{head} {row['members']} | {row['failed']} | | | |", flush=True)
        return
    memory = f"{row['measured GB']:.1f} GB | {row['estimated GB']:.1f} GB"
    print(f"{head} {row['members']} | {row['seconds']:.4f} | {row['share']:.0%} | {memory} |", flush=True)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--estimate", action="store_true", help="only print the roofline; needs no GPU")
    made.add_argument("--variant", nargs="+", choices=sorted(VARIANTS), default=["era5", "hres", "mini"])
    made.add_argument("--backend", nargs="+", choices=sorted(BACKENDS), default=sorted(BACKENDS.keys() - {"tiled"}))
    made.add_argument("--precision", nargs="+", default=["float16", "bfloat16", "float32"])
    made.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8])
    made.add_argument("--graphs", action="store_true", help="with CUDA graphs as well")
    made.add_argument("--checkpoint", type=Path, help="weights of the one variant that is measured")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--operations", type=float, default=ASSUMED.operations, help="of the roofline, per second")
    made.add_argument("--bandwidth", type=float, default=ASSUMED.bytes, help="of the roofline, bytes per second")
    made.add_argument("--json", type=Path, help="write raw figures")
    options = made.parse_args()
    if not options.estimate and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU that PyTorch can use: nothing to measure; --estimate prints the roofline")
    named = (options.operations, options.bandwidth) == (ASSUMED.operations, ASSUMED.bytes)
    device = Device(ASSUMED.name if named else "as given", options.operations, options.bandwidth)
    if options.estimate:
        print_estimate(device, options.variant, options.members[0])
        rows = [{"variant": name, **estimate(VARIANTS[name], device, options.members[0])} for name in options.variant]
    else:
        rows = measure(options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
