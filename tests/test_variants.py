import dataclasses
import re

import pytest
import torch

from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import ERA5, HRES, MINI, VARIANTS, Architecture, Stage

STAGE = {
    "nside": 4,
    "width": 16,
    "query_heads": 4,
    "local_block": 48,
    "sparse_block": 12,
    "selected_blocks": 3,
    "encoder_depth": 1,
}

# The table of the network's specification: nside, tokens, width, query and key/value heads, local and sparse block,
# selected blocks, encoder and decoder depth.
RELEASED = [
    (64, 49_152, 768, 12, 3, 1024, 128, 24, 4, 2),
    (32, 12_288, 1024, 16, 4, 1024, 128, 12, 4, 2),
    (16, 3_072, 1280, 20, 5, 1024, 128, 4, 2, 0),
]


def row(stage):
    return (
        stage.nside,
        stage.pixels,
        stage.width,
        stage.query_heads,
        stage.key_value_heads,
        stage.local_block,
        stage.sparse_block,
        stage.selected_blocks,
        stage.encoder_depth,
        stage.decoder_depth,
    )


@pytest.mark.parametrize("variant", [ERA5, HRES], ids=lambda variant: variant.name)
def test_the_released_variants_have_the_stages_of_the_specification(variant):
    stages = [*variant.architecture.stages, variant.architecture.bottleneck]
    assert [row(stage) for stage in stages] == RELEASED
    assert [stage.head_width for stage in stages] == [64, 64, 64]
    assert [stage.hidden_width for stage in stages] == [3072, 4096, 5120]


@pytest.mark.parametrize(
    ("variant", "step_hours", "lags", "neighbours", "features", "shape"),
    [
        (ERA5, 24, (-24, 0), 24, 2 * 82 + 6 + 4, (240, 121)),
        (HRES, 6, (-18, -12, -6, 0), 20, 4 * 82 + 6 + 4, (240, 121)),
        (MINI, 24, (-24, 0), 4, 2 * 82 + 6 + 4, (60, 31)),
    ],
    ids=["era5", "hres", "mini"],
)
def test_a_variant_has_its_step_history_and_grid(variant, step_hours, lags, neighbours, features, shape):
    assert VARIANTS[variant.name] is variant
    assert variant.step_hours == step_hours
    assert variant.lags_hours == lags, "oldest first, and the initial time last"
    assert variant.architecture.neighbours == neighbours
    assert variant.architecture.features == features
    assert variant.architecture.grid.shape == shape
    assert (variant.architecture.channels, variant.architecture.noise_width) == (82, 32)


def test_the_network_of_era5_has_as_many_parameters_as_the_released_one():
    with torch.device("meta"):
        network = MosaicNetwork(ERA5.architecture)
    assert sum(parameter.numel() for parameter in network.parameters()) == 214_184_448


def test_the_variants_are_three_and_the_table_cannot_be_changed():
    assert list(VARIANTS) == ["era5", "hres", "mini"]
    for part in (ERA5, ERA5.architecture, ERA5.architecture.bottleneck):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.extra = 1


def test_only_the_variants_that_are_not_bundled_have_files_to_fetch():
    assert ERA5.asset_files == ("checkpoints/era5_best.pt", "data/norm_stats_era5.npz", "data/static_vars.npz")
    assert HRES.asset_files == ("checkpoints/hres_best.pt", "data/norm_stats_hres.npz", "data/static_vars.npz")
    assert MINI.asset_files == ()


@pytest.mark.parametrize(("variant", "statistics"), [(ERA5, "9d6aae59"), (HRES, "3cf454aa")])
def test_the_pinned_digests_are_those_of_files_that_the_variant_uses(variant, statistics):
    pinned = dict(variant.sha256)
    assert pinned.keys() <= set(variant.asset_files)
    assert pinned[variant.statistics].startswith(statistics)
    assert pinned[variant.statics].startswith("436b690e")
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in pinned.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query_heads": 3}, "3 heads do not divide width 16 into multiples of 4"),
        ({"query_heads": 8}, "8 heads do not divide width 16 into multiples of 4"),
        ({"query_heads": 2}, "2 query heads are not a multiple of the ratio 4"),
        ({"local_block": 50}, "blocks of 50 do not tile the 192 tokens of nside 4"),
        ({"sparse_block": 10}, "blocks of 10 do not tile the 192 tokens of nside 4"),
        ({"selected_blocks": 17}, "cannot select 17 of 16 blocks"),
        ({"selected_blocks": 0}, "cannot select 0 of 16 blocks"),
    ],
)
def test_a_stage_that_does_not_fit_together_is_refused(changed, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Stage(**STAGE | changed)


def test_a_stage_may_select_all_its_blocks():
    assert Stage(**STAGE | {"selected_blocks": 16}).key_value_heads == 1


def test_stages_that_do_not_halve_in_resolution_are_refused():
    coarse = Stage(**STAGE | {"nside": 2, "local_block": 48, "selected_blocks": 1})
    with pytest.raises(ValueError, match=re.escape("at half the nside of the one before, got [4, 2, 2]")):
        Architecture(MINI.architecture.grid, (Stage(**STAGE), coarse), coarse, neighbours=4, history=2)
