"""Compare the network with outputs of the released code, of small random networks: ``python tests/parity.py FILE…``.

Files are in the format of the specification's section 12. Prints the largest absolute difference
of each and exits with 1 if one is above 1e-5.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ai_models_mosaic.checkpoints.format import Checkpoint, build_network
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.model.attention import DEFAULT_BACKEND
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import Architecture, Stage

TOLERANCE = 1e-5


def stage_of(config: dict[str, Any]) -> Stage:
    return Stage(
        nside=config["nside"],
        width=config["dim"],
        query_heads=config["num_heads"],
        local_block=config["block_attn_size"],
        sparse_block=config["sparse_block_size"],
        selected_blocks=config["sparse_block_count"],
        encoder_depth=config.get("encoder_depth", config.get("depth")),
        decoder_depth=config.get("decoder_depth", 0),
        mlp_ratio=config["mlp_ratio"],
        gqa_ratio=config["gqa_ratio"],
    )


def architecture_of(data: Any) -> Architecture:
    config = json.loads(str(data["config_json"]))
    return Architecture(
        grid=LatLonGrid(tuple(data["longitude"].tolist()), tuple(data["latitude"].tolist())),
        stages=tuple(stage_of(stage) for stage in config["stages"]),
        bottleneck=stage_of(config["bottleneck"]),
        neighbours=config["k_neighbors"],
        history=config["num_history_steps"],
        channels=len(config["variables"]),
        noise_width=config["noise_dim"],
    )


def tensors_of(data: Any, prefix: str) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix).removeprefix("model."): torch.from_numpy(data[key])
        for key in data.files
        if key.startswith(prefix)
    }


def load(path: Path, *, with_buffers: bool = True) -> tuple[MosaicNetwork, dict[str, torch.Tensor]]:
    """The network of a parity file, and its inputs and output as tensors."""
    data = np.load(path)
    state = tensors_of(data, "param/")
    if with_buffers:
        state |= tensors_of(data, "buffer/")
    network = build_network(architecture_of(data), Checkpoint(path, state), data["static"])
    return network, {key: torch.from_numpy(data[key]) for key in ("state", "day_year", "noise", "output")}


def predict(network: MosaicNetwork, case: dict[str, torch.Tensor]) -> torch.Tensor:
    members = case["noise"].shape[0]
    with torch.inference_mode():
        return network(case["state"].expand(members, -1, -1, -1, -1), case["day_year"], case["noise"])


def difference(path: Path, backend: str = DEFAULT_BACKEND, *, with_buffers: bool = True) -> float:
    """Largest absolute difference of a file's output from the network's."""
    network, case = load(path, with_buffers=with_buffers)
    network.use_backend(backend)
    return float((predict(network, case) - case["output"]).abs().max())


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    differences = {path: difference(Path(path)) for path in paths}
    for path, value in differences.items():
        print(f"{path}: largest absolute difference {value:.1e}")
    return int(not all(value <= TOLERANCE for value in differences.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
