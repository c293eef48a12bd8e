"""Runs with the Triton backend under its interpreter, while tiles are tuned in between: ``interpreted_run.py FOLDER``.

Prints JSON. A program of its own, since the interpreter is chosen when Triton is first imported.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import torch
import toy_command
from toy_command import RUN, run
from toy_variant import VARIANT

from ai_models_mosaic.model.attention.choice import stage_shape
from ai_models_mosaic.model.attention.tilings import Tiling
from ai_models_mosaic.model.attention.tuned import tuned_file, tuning_key, write_tuned
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import VARIANTS, Stage

# Two turns of the loop over the local run by the rule, one when it is tuned.
SHAPES = replace(
    VARIANT.architecture,
    stages=(Stage(4, 32, 4, 64, 32, 3, 1, 1, mlp_ratio=2.0),),
    bottleneck=Stage(2, 16, 4, 16, 8, 2, 1, mlp_ratio=2.0),
)
VARIANTS["toy"] = toy_command.VARIANT = replace(VARIANT, architecture=SHAPES)

WORDS = (*RUN, "--file", "in.grib", "--checkpoint", "toy.safetensors", "--attention-backend", "triton")
LONG = (*WORDS, "--lead-time", "48", "--path", "out.grib", "--bits-per-value", "24")
KEY = tuning_key(torch.device("cpu"), torch.float32)
SHAPE = str(stage_shape(SHAPES.stages[0]))
TUNED = {SHAPE: Tiling(64, 64, 64, warps=8, stages=1)}


def stopped() -> None:
    """As if somebody ended the run in its second step."""
    forward, calls = MosaicNetwork.forward, []

    def counted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return forward(*arguments, **keywords)

    MosaicNetwork.forward = counted


def output(folder: Path) -> bytes:
    return (folder / "out.grib").read_bytes()


def tiles_of(folder: Path) -> list[int] | None:
    card = json.loads((folder / "out.grib.provenance.json").read_text())
    return card["tilings"].get(SHAPE)


def main(where: Path) -> dict[str, object]:
    toy_command.prepare()
    os.environ["AI_MODELS_MOSAIC_CACHE"] = str(where / "cache")
    folders = [where / name for name in ("whole", "broken", "tuned")]
    for folder in folders:
        folder.mkdir()
        toy_command.write_inputs(folder)
    whole, broken, tuned = folders
    statuses = [run(whole, *LONG).status, run(broken, *LONG, before=stopped).status]
    write_tuned(KEY, TUNED)
    statuses += [run(broken, *LONG, "--resume").status, run(tuned, *LONG).status]
    again = run(
        whole, "replay", "out.grib.provenance.json", "--member", "1", "--steps", "24-48", "--output", "again.grib"
    )
    complete = run(whole, *LONG, "--resume")
    return {
        "statuses": statuses,
        "tiles": [tiles_of(folder) for folder in folders],
        "resumed alike": output(broken) == output(whole),
        "tuned alike": output(tuned) == output(whole),
        "replayed": again.said.strip().splitlines()[-1],
        "complete": "nothing to do" in complete.said and complete.status == 0,
        "tuned file": tuned_file(KEY).name,
    }


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
