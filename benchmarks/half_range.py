"""How near the numbers of a step in float16 come to the end of its range, 65 504, on real-valued states.

``python benchmarks/half_range.py [--variant era5 --checkpoint FILE.safetensors] [--steps 5]``

Runs the form of the network that is exported in float16 by PyTorch, which rounds every product to float16 as
a GPU does, and looks at every tensor in float16 that comes up. ONNX Runtime's provider for the CPU makes most
products in float32, and so need not show what overflows. Also prints how far the states are from float32's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import earthkit.data
import numpy as np
import torch
from onnx_step import PROGRESS, SAMPLE, compare
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ai_models_mosaic.arrays import Float32Array
from ai_models_mosaic.checkpoints.files import Assets, locate, read_static_fields, read_statistics
from ai_models_mosaic.checkpoints.format import build_network, read_checkpoint
from ai_models_mosaic.engines.onnx_export import Step
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.inputs.states import read_initial_state
from ai_models_mosaic.model.scanned import exportable
from ai_models_mosaic.variants import VARIANTS, Variant

LARGEST = torch.finfo(torch.float16).max


class Range(TorchDispatchMode):
    """Remembers the largest number that each operator made in float16; infinite if one is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let the operator do its work, and look at what it made."""
        made = operator(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.dtype == torch.float16 and not _is_view(made, args):
            with _disable_current_modes():
                low, high = (float(bound) for bound in made.aminmax())
            found = max(-low, high)
            self.largest[str(operator)] = max(self.largest[str(operator)], np.inf if np.isnan(found) else found)
        return made


def half_step(
    variant: Variant, assets: Assets
) -> Callable[[Float32Array, tuple[float, float], Float32Array], Float32Array]:
    """A step in the very form that is exported in float16."""
    checkpoint = read_checkpoint(assets.checkpoint)
    network = build_network(variant.architecture, checkpoint, read_static_fields(variant, assets, checkpoint)[0])
    module = Step(exportable(network, torch.float16), read_statistics(variant, assets, checkpoint)[0]).eval()

    def step(history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        with torch.no_grad():
            made: Tensor = module(torch.from_numpy(history), torch.tensor(progress), torch.from_numpy(noise))
        return made.numpy()

    return step


def _is_view(made: Tensor, args: Any) -> bool:
    place = made.untyped_storage().data_ptr()
    return any(isinstance(other, Tensor) and other.untyped_storage().data_ptr() == place for other in args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    parser.add_argument("--assets", type=Path, default=Path())
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--file", type=Path, default=SAMPLE, help="where to start")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    variant = VARIANTS[options.variant]
    assets = locate(variant, options.assets, options.checkpoint)
    engine, half = load_engine(variant, assets, torch.device("cpu"), "float32"), half_step(variant, assets)
    source = earthkit.data.from_source("file", str(options.file))
    ours = theirs = read_initial_state(source, variant.architecture.grid, variant.lags_hours).values[None]
    noise = np.random.default_rng(1).normal(size=(options.steps, 1, engine.noise_width)).astype(np.float32)
    for step in range(options.steps):
        progress = (PROGRESS[0] + step * variant.step_hours / 24, PROGRESS[1])
        with Range() as seen:
            made = half(ours, progress, noise[step])
        ours = np.concatenate([ours[:, 1:], made[:, None]], axis=1)
        theirs = np.concatenate([theirs[:, 1:], engine.step(theirs, progress, noise[step])[:, None]], axis=1)
        operator, largest = max(seen.largest.items(), key=lambda found: found[1])
        print(f"step {step + 1}: largest in float16 {largest:.4g} of {LARGEST:.0f} ({operator})", flush=True)
        compare(f"step {step + 1}", ours[0, -1], theirs[0, -1], every=step in (0, options.steps - 1))


if __name__ == "__main__":
    main()
