import re
from pathlib import Path

import numpy as np
import parity
import pytest
import tiny
import torch

from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.model.buffers import make_buffers, rotary_table, standardise
from ai_models_mosaic.variants import ERA5, Architecture

FILE = Path(__file__).parent / "data" / "era5_tiny.npz"


@pytest.fixture(scope="module")
def stored():
    return parity.tensors_of(np.load(FILE), "buffer/")


@pytest.fixture(scope="module")
def computed(stored):
    data = np.load(FILE)
    return make_buffers(parity.architecture_of(data), stored, {}, data["static"])


def unit(longitude, latitude):
    """Points on the sphere in float64, from degrees."""
    longitude, latitude = np.radians(np.asarray(longitude, np.float64)), np.radians(np.asarray(latitude, np.float64))
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1)


def nested_centres(nside):
    """HEALPix centres (longitude, latitude) in degrees from Górski et al. (2005), sections 4.1 and 5.1."""
    found = []
    for pixel in range(12 * nside**2):
        face, rest = divmod(pixel, nside**2)
        x = sum(((rest >> (2 * bit)) & 1) << bit for bit in range(16))
        y = sum(((rest >> (2 * bit + 1)) & 1) << bit for bit in range(16))
        ring = (face // 4 + 2) * nside - x - y - 1
        if ring < nside:
            in_ring, z, shift = ring, 1 - ring**2 / (3 * nside**2), 0
        elif ring > 3 * nside:
            in_ring, z, shift = 4 * nside - ring, (4 * nside - ring) ** 2 / (3 * nside**2) - 1, 0
        else:
            in_ring, z, shift = nside, 4 / 3 - 2 * ring / (3 * nside), (ring - nside) % 2
        across = (1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7)[face]
        position = (across * in_ring + x - y + 1 + shift) // 2
        position += 4 * nside if position < 1 else -4 * nside if position > 4 * nside else 0
        found.append(((position - (shift + 1) / 2) * 90 / in_ring % 360, np.degrees(np.arcsin(z))))
    return np.array(found).T


# Against the released model.


def test_all_buffers_of_the_parity_file_are_computed_with_its_shapes_and_dtypes(stored, computed):
    assert computed.keys() == stored.keys()
    for key, buffer in stored.items():
        assert (computed[key].shape, computed[key].dtype) == (buffer.shape, buffer.dtype), key


@pytest.mark.parametrize("group", ["interp_to_hp", "interp_to_ll"])
def test_neighbours_are_exactly_those_of_the_released_model(stored, computed, group):
    key = f"{group}.neighbors"
    assert torch.equal(computed[key].sort(dim=1).values, stored[key].sort(dim=1).values)


def test_rotary_tables_are_exactly_those_of_the_released_model(stored, computed):
    tables = [key for key in stored if key.endswith("_freqs")]
    assert len(tables) == 6 * 4
    assert [key for key in tables if not torch.equal(computed[key], stored[key])] == []


def test_relative_positions_and_static_fields_are_those_of_the_released_model(stored, computed):
    others = [key for key in stored if key.endswith(("rel_pos", "static_vars"))]
    assert len(others) == 2 + 4 + 1
    for key in others:
        # The neighbours may be in another order.
        here, there = computed[key], stored[key]
        if key.startswith("interp"):
            orders = [
                neighbours[key.replace("rel_pos", "neighbors")].argsort(dim=1) for neighbours in (computed, stored)
            ]
            here, there = (
                x.take_along_dim(order[..., None], dim=1) for x, order in zip((here, there), orders, strict=True)
            )
        torch.testing.assert_close(here, there, rtol=0, atol=1e-5, msg=key)


# Against the formulas.


def test_the_rotary_angles_are_longitude_and_latitude_at_geometric_frequencies():
    longitude, latitude = nested_centres(2)
    frequencies = 10_000.0 ** (-2 * np.arange(4) / 8)
    angles = np.concatenate(
        [np.outer(np.radians(longitude), frequencies), np.outer(np.radians(latitude), frequencies)], 1
    )
    assert angles.shape == (48, 8)
    np.testing.assert_allclose(rotary_table(2, 16, cosine=True).numpy(), np.cos(angles), rtol=0, atol=1e-6)
    np.testing.assert_allclose(rotary_table(2, 16, cosine=False).numpy(), np.sin(angles), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "coarse"),
    [
        ("downsample_layers.0.rel_pos", 4),
        ("downsample_layers.1.rel_pos", 2),
        ("upsample_layers.0.rel_pos", 2),
        ("upsample_layers.1.rel_pos", 4),
    ],
)
def test_children_lie_relative_to_their_parent_standardised_column_by_column(computed, key, coarse):
    parents, children = unit(*nested_centres(coarse)), unit(*nested_centres(2 * coarse))
    rows = [
        np.concatenate([children[4 * parent + child] - parents[parent] for child in range(4)])
        for parent in range(len(parents))
    ]
    columns = np.array(rows)
    expected = (columns - columns.mean(axis=0)) / (columns.std(axis=0, ddof=1) + 1e-6)
    found = computed[key].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-4)
    assert (columns.std(axis=0) < 1e-12).sum() == 2
    assert (found == 0).all(axis=0).sum() == 2


def test_static_fields_and_point_vectors_are_standardised_over_all_points_unweighted(computed):
    data = np.load(FILE)
    longitude, latitude = np.meshgrid(data["longitude"], data["latitude"], indexing="ij")
    columns = np.concatenate([data["static"], unit(longitude, latitude)], axis=-1).reshape(-1, 6).astype(np.float64)
    expected = (columns - columns.mean(axis=0)) / (columns.std(axis=0, ddof=1) + 1e-6)
    np.testing.assert_allclose(computed["static_vars"].numpy()[:, 0], expected, rtol=0, atol=1e-5)


def test_directions_lead_from_the_neighbours_to_the_target(computed):
    data = np.load(FILE)
    longitude, latitude = np.meshgrid(data["longitude"], data["latitude"], indexing="ij")
    points, mesh = unit(longitude.ravel(), latitude.ravel()), unit(*nested_centres(8))
    for group, targets, sources in (("interp_to_hp", mesh, points), ("interp_to_ll", points, mesh)):
        offsets = targets[:, None] - sources[computed[f"{group}.neighbors"].numpy()]
        expected = offsets / np.linalg.norm(offsets, axis=-1, keepdims=True)
        np.testing.assert_allclose(computed[f"{group}.rel_pos"].numpy(), expected, rtol=0, atol=1e-5)


def test_a_neighbour_at_the_very_point_has_no_direction():
    # The centres of nside 4 on the equator are at 11.25°, 33.75° …: all 16 lie on this grid.
    grid = LatLonGrid.regular(11.25)
    architecture = Architecture(grid, tiny.ARCHITECTURE.stages, tiny.ARCHITECTURE.bottleneck, neighbours=3, history=1)
    keys = [f"{group}.{name}" for group in ("interp_to_hp", "interp_to_ll") for name in ("neighbors", "rel_pos")]
    made = make_buffers(architecture, keys, {})
    longitude, latitude = np.meshgrid(grid.longitude_deg, grid.latitude_deg, indexing="ij")
    points, mesh = unit(longitude.ravel(), latitude.ravel()), unit(*nested_centres(4))
    for group, targets, sources in (("interp_to_hp", mesh, points), ("interp_to_ll", points, mesh)):
        distance = np.linalg.norm(targets[:, None] - sources[made[f"{group}.neighbors"].numpy()], axis=-1)
        length = made[f"{group}.rel_pos"].norm(dim=-1).numpy()
        assert (distance < 1e-7).sum() == 16
        assert (length[distance < 1e-7] == 0).all()
        np.testing.assert_allclose(length[distance > 1e-7], 1, rtol=0, atol=1e-6)


def test_standardised_columns_have_mean_0_and_unbiased_deviation_1_and_constants_become_0():
    columns = np.array([[1.0, 5.0, 0.0], [2.0, 5.0, 1e-7], [4.0, 5.0, 0.0]])
    found = standardise(columns)
    assert found.dtype == torch.float32
    deviation = np.sqrt(((columns[:, 0] - 7 / 3) ** 2).sum() / 2)
    np.testing.assert_allclose(found[:, 0], (columns[:, 0] - 7 / 3) / (deviation + 1e-6), rtol=1e-6)
    assert found[:, 1].tolist() == [0, 0, 0]
    # Rounding noise is not blown up to 1: that is what the eps is for.
    assert found[:, 2].abs().max() < 0.07


# What is computed, and what is taken as known.


def test_directions_follow_from_the_neighbours_of_the_checkpoint(computed):
    data = np.load(FILE)
    known = {"interp_to_hp.neighbors": computed["interp_to_hp.neighbors"].flip(0, 1)}
    made = make_buffers(parity.architecture_of(data), ["interp_to_hp.rel_pos"], known)
    assert made.keys() == {"interp_to_hp.rel_pos"}
    sources = unit(*(x.ravel() for x in np.meshgrid(data["longitude"], data["latitude"], indexing="ij")))
    offsets = unit(*nested_centres(8))[:, None] - sources[known["interp_to_hp.neighbors"].numpy()]
    expected = offsets / np.linalg.norm(offsets, axis=-1, keepdims=True)
    np.testing.assert_allclose(made["interp_to_hp.rel_pos"].numpy(), expected, rtol=0, atol=1e-5)


def test_blocks_of_one_resolution_share_one_table_in_memory(computed):
    of_finest = [
        buffer
        for key, buffer in computed.items()
        if key.startswith(("encoder_stages.0", "decoder_stages.1")) and key.endswith("cos_freqs")
    ]
    assert len(of_finest) == 6
    assert len({buffer.data_ptr() for buffer in of_finest}) == 1
    assert {buffer.shape for buffer in of_finest} == {(768, 4)}


def test_only_what_is_asked_for_is_computed():
    # Of the released size: anything else would take long.
    key = "bottleneck.blocks.1.attention.k_rope.sin_freqs"
    made = make_buffers(ERA5.architecture, [key], {})
    assert {name: tuple(buffer.shape) for name, buffer in made.items()} == {key: (3072, 32)}


def test_without_static_fields_their_buffer_cannot_be_computed():
    sentence = "the static fields are needed, and were not given"
    with pytest.raises(LookupError, match=f"^{re.escape(sentence)}$"):
        make_buffers(tiny.ARCHITECTURE, ["static_vars"], {})
