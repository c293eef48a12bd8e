import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ai_models_mosaic.checkpoints.format import Statistics, read_checkpoint, save_checkpoint
from ai_models_mosaic.errors import CheckpointError

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
from blend import NOISE, blend


def written(path, value, width=3, mean=1.0):
    state = {NOISE: torch.full((2, 2), value), "weight": torch.full((width,), value), "index": torch.tensor([4, 7])}
    statistics = Statistics(np.full(2, mean), np.ones(2))
    save_checkpoint(path, state, statistics, {"variant": "mini", "recipe": json.dumps({"seed": value})})
    return path


def test_a_blend_is_the_mean_with_its_noise_scaled(tmp_path):
    paths = [written(tmp_path / f"{value}.safetensors", value) for value in (1.0, 4.0)]
    blend(paths, 1.2, tmp_path / "blend.safetensors")
    made = read_checkpoint(tmp_path / "blend.safetensors")
    assert made.state["weight"].tolist() == [2.5] * 3
    torch.testing.assert_close(made.state[NOISE], torch.full((2, 2), 3.0))
    assert made.state["index"].tolist() == [4, 7]
    np.testing.assert_array_equal(made.statistics.mean, 1.0)


def test_a_blend_says_what_it_is_of(tmp_path):
    paths = [written(tmp_path / f"{value}.safetensors", value) for value in (1.0, 4.0)]
    blend(paths, 1.2, tmp_path / "blend.safetensors")
    metadata = read_checkpoint(tmp_path / "blend.safetensors").metadata
    assert (metadata["variant"], json.loads(metadata["recipe"])) == ("mini", {"seed": 4.0})
    assert json.loads(metadata["blend"]) == {"noise_factor": 1.2, "recipes": [{"seed": 1.0}, {"seed": 4.0}]}


@pytest.mark.parametrize("change", [{"width": 4}, {"mean": 2.0}])
def test_what_does_not_belong_together_is_refused(tmp_path, change):
    paths = [written(tmp_path / "one.safetensors", 1.0), written(tmp_path / "other.safetensors", 1.0, **change)]
    with pytest.raises(CheckpointError, match=r"one\.safetensors has other weights or another normalisation than"):
        blend(paths, 1.0, tmp_path / "blend.safetensors")
    assert not (tmp_path / "blend.safetensors").exists()
