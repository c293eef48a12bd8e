import re
from datetime import datetime, timedelta

import numpy as np
import pytest
import xarray
from worlds import GRID, START, fields, state, statics, write_store

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.geometry.harmonics import degrees, synthesis
from ai_models_mosaic.training.archive import Archive
from ai_models_mosaic.training.statistics import load, measure, save


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("archive") / "a.zarr", days=4)


@pytest.mark.parametrize("held", [False, True])
def test_a_state_is_what_was_written(store, held):
    archive = Archive(str(store), GRID)
    if held:
        archive.hold()
    time = START + timedelta(hours=30)
    np.testing.assert_array_equal(archive.state(time), state(fields(4, 0), time))
    assert archive.state(time).dtype == np.float32


def test_a_store_from_the_north_and_with_latitude_first_reads_the_same(store, tmp_path):
    turned = xarray.open_zarr(store, chunks=None).isel(latitude=slice(None, None, -1))
    turned.transpose("time", "level", "latitude", "longitude").to_zarr(tmp_path / "b.zarr")
    there, here = Archive(str(tmp_path / "b.zarr"), GRID), Archive(str(store), GRID)
    np.testing.assert_array_equal(there.state(START), here.state(START))
    np.testing.assert_array_equal(there.static_fields(), here.static_fields())


def test_forecasts_start_where_history_and_targets_are_there(store):
    starts = Archive(str(store), GRID).starts((-24, 0), (24, 48))
    assert (starts[0], starts[-1]) == (START + timedelta(hours=24), START + timedelta(hours=42))
    assert len(starts) == 4


def test_static_fields_come_in_the_order_of_the_network(store):
    found = Archive(str(store), GRID).static_fields()
    for index, name in enumerate(("geopotential_at_surface", "land_sea_mask", "soil_type")):
        np.testing.assert_array_equal(found[..., index], statics()[name].astype(np.float32))


def test_zero_coordinates_and_fields_are_numbers_and_not_missing(tmp_path):
    """Zarr's default fill value, 0, is a missing value to those who read by the conventions."""
    dataset = xarray.open_zarr(write_store(tmp_path / "a.zarr", days=1), chunks=None)
    assert dataset.longitude.values[0] == 0.0
    assert not np.isnan(dataset.land_sea_mask.values).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("temperature"), "lacks 13 channels: temperature_50, temperature_100, temperature_150"),
        (lambda ds: ds.sel(level=[500]), "lacks 72 channels"),
        (lambda ds: ds.isel(time=slice(0)), "expected states, got none: its dimension time is empty"),
        (
            lambda ds: ds.isel(longitude=slice(0, 12, 2)),
            "expected states on 12 × 7 points (30°), got 6 × 7 points (60°)",
        ),
    ],
)
def test_a_store_that_does_not_serve_is_refused(store, tmp_path, change, message):
    change(xarray.open_zarr(store, chunks=None)).to_zarr(tmp_path / "c.zarr")
    with pytest.raises(InputError, match=re.escape(message)):
        Archive(str(tmp_path / "c.zarr"), GRID)


def test_values_that_are_missing_are_told_by_name_and_time(store, tmp_path):
    dataset = xarray.open_zarr(store, chunks=None).load()
    dataset["2m_temperature"][2, 3, 3] = np.nan
    dataset.to_zarr(tmp_path / "d.zarr")
    archive = Archive(str(tmp_path / "d.zarr"), GRID)
    archive.state(START)
    with pytest.raises(InputError, match=re.escape("d.zarr: 2m_temperature of 2001-01-01 12 UTC is not finite")):
        archive.state(START + timedelta(hours=12))


def test_a_time_that_is_not_there_is_refused(store):
    with pytest.raises(
        InputError, match=r"a\.zarr has no 1999-01-01 00 UTC: 2001-01-01 00:00:00 … 2001-01-04 18:00:00"
    ):
        Archive(str(store), GRID).state(datetime(1999, 1, 1))


def test_static_fields_that_are_missing_are_named(store, tmp_path):
    xarray.open_zarr(store, chunks=None).drop_vars("soil_type").to_zarr(tmp_path / "e.zarr")
    with pytest.raises(InputError, match="lacks the static fields soil_type"):
        Archive(str(tmp_path / "e.zarr"), GRID).static_fields()


def test_archives_are_told_apart_by_their_digest(store, tmp_path):
    other = write_store(tmp_path / "o.zarr", days=4, seed=1)
    assert Archive(str(store), GRID).digest != Archive(str(other), GRID).digest
    assert Archive(str(store), GRID).digest == Archive(str(store), GRID).digest


def test_statistics_are_those_of_all_states_and_changes(store):
    archive = Archive(str(store), GRID)
    found = measure([archive], GRID, 24, 3)
    starts = archive.starts((), (0, 24))
    states = np.stack([archive.state(time) for time in starts]).astype(np.float64)
    after = np.stack([archive.state(time + timedelta(hours=24)) for time in starts]).astype(np.float64)
    area = np.broadcast_to(GRID.cell_weights() / GRID.shape[0], GRID.shape)[..., None] / len(starts)
    mean = (states * area).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(found.state_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.state_std, np.sqrt((((states - mean) ** 2) * area).sum(axis=(0, 1, 2))), rtol=1e-5)
    change = after - states
    drift = (change * area).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(
        found.residual_std, np.sqrt((((change - drift) ** 2) * area).sum(axis=(0, 1, 2))), rtol=1e-5
    )
    np.testing.assert_allclose(found.scale, found.state_std / found.residual_std)


def test_the_spectrum_of_the_change_is_that_of_the_waves(tmp_path):
    """A store whose fields change by one harmonic of degree 2 and size 1."""
    from worlds import times

    from ai_models_mosaic.world.store import WorldStore

    basis = (synthesis(GRID, 3) @ (degrees(3) == 2) / np.sqrt(5)).reshape(GRID.shape)
    made = fields(2, 0)
    for name, block in made.items():
        made[name] = np.zeros_like(block) + np.where(np.arange(8) >= 4, 1, 0).reshape(
            -1, *([1] * (block.ndim - 1))
        ) * basis.astype(np.float32)
    store = WorldStore(tmp_path / "w.zarr", GRID, times(2), statics(), {})
    store.write(made, times(2))
    store.finish()
    found = measure([Archive(str(tmp_path / "w.zarr"), GRID)], GRID, 24, 3)
    in_units = found.residual_spectrum * found.state_std
    np.testing.assert_allclose(in_units[2], 1 / np.sqrt(5), rtol=1e-5)
    assert np.abs(in_units[[0, 1, 3]]).max() < 1e-6


def test_statistics_survive_their_file(store, tmp_path):
    found = measure([Archive(str(store), GRID)], GRID, 24, 3)
    save(found, tmp_path / "s.npz")
    again = load(tmp_path / "s.npz")
    for name in ("state_mean", "state_std", "residual_std", "residual_spectrum"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert found.state_mean.shape == (len(CHANNELS),)
    (tmp_path / "s.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="does not hold the statistics of an archive"):
        load(tmp_path / "s.npz")


def test_an_archive_without_a_step_has_no_statistics(tmp_path):
    archive = Archive(str(write_store(tmp_path / "f.zarr", days=1)), GRID)
    with pytest.raises(InputError, match="are 24 h apart"):
        measure([archive], GRID, 24, 3)


def test_another_grid_of_the_same_size_is_refused(store):
    shifted = LatLonGrid(tuple(x + 5 for x in GRID.longitude_deg), GRID.latitude_deg)
    with pytest.raises(InputError, match="regrid them first"):
        Archive(str(store), shifted)
