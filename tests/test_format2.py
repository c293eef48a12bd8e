"""Stores of Zarr format 2 are the same files whichever zarr is installed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from test_own_stores import begin, contents, go_on, zarr_alone
from test_writer import PRODUCTS, write

from ai_models_mosaic.outputs.store.format2 import Format2Store

LONGITUDE_DEG = np.arange(0, 360, 6.0)
VALUES = np.arange(60 * 31, dtype="<f4").reshape(60, 31)


@pytest.fixture
def store(tmp_path):
    made = Format2Store(tmp_path)
    made.begin()
    made.describe({"title": "Vorhersage für Österreich", "members": 2})
    made.put("longitude", LONGITUDE_DEG, {"units": "degrees_east"})
    made.create("t", (2, 60, 31), (1, 60, 31), {"units": "K", "_ARRAY_DIMENSIONS": ["number", "longitude", "latitude"]})
    made.write("t", (0, 0, 0), VALUES)
    made.write("t", (1, 0, 0), np.full_like(VALUES, np.nan))
    made.consolidate()
    return made


def test_the_files_are_those_of_zarr_2_to_the_byte(store):
    found = hashlib.sha256()
    for name, content in sorted(contents(store.folder).items()):
        found.update(name.encode() + content)
    # Of the store that zarr 2.18 made of the same.
    assert found.hexdigest() == "df7a621147f9c221dedbf92d3e64cc6ef73be4a4c9ba73e03968a23bc4a04043"


def test_zarr_reads_it(store):
    group = zarr.open_group(str(store.folder), mode="r")
    assert dict(group.attrs) == {"title": "Vorhersage für Österreich", "members": 2}
    assert sorted(name for name, _ in group.arrays()) == ["longitude", "t"]
    np.testing.assert_array_equal(group["longitude"][:], LONGITUDE_DEG)
    np.testing.assert_array_equal(group["t"][0], VALUES)
    assert np.isnan(group["t"][1]).all()
    assert group["t"].chunks == (1, 60, 31)


def test_a_chunk_of_missing_values_is_a_chunk(store):
    assert store.whole_chunks("t", (2, 1, 1)) == 2
    (store.folder / "t" / "0.0.0").write_bytes(b"")
    assert store.whole_chunks("t", (2, 1, 1)) == 1


def test_values_are_held_only_if_they_are_the_same_and_undamaged(store):
    assert store.holds("longitude", LONGITUDE_DEG)
    assert not store.holds("longitude", LONGITUDE_DEG[:-1])
    assert not store.holds("absent", LONGITUDE_DEG)
    chunk = store.folder / "longitude" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-30])
    assert not store.holds("longitude", LONGITUDE_DEG)


def test_nothing_is_written_through_a_link(store, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "file"
    other.write_text("somebody's")
    (store.folder / "t" / "0.0.0.partial").symlink_to(other)
    with pytest.raises(OSError, match="is a symbolic link"):
        store.write("t", (0, 0, 0), VALUES)
    assert other.read_text() == "somebody's"


@pytest.mark.parametrize("damaged", ["2m_temperature/.zarray", "geopotential_500_mean/.zattrs", "latitude/.zarray"])
def test_a_resumed_run_says_anew_what_a_store_holds(tmp_path: Path, damaged):
    made = zarr_alone(tmp_path, products=PRODUCTS)
    begin(made, "aa", count=2)
    (tmp_path / "x.zarr.partial" / damaged).write_bytes(b"{")
    go_on(made, "aa", count=2)
    assert json.loads((tmp_path / "x.zarr" / damaged).read_bytes())
    alone = tmp_path / "alone"
    alone.mkdir()
    write(zarr_alone(alone, products=PRODUCTS), run="aa")
    assert contents(tmp_path / "x.zarr") == contents(alone / "x.zarr")


def test_metadata_that_somebody_put_into_a_store_are_an_error_that_names_them(tmp_path):
    foreign = tmp_path / "x.zarr" / "X" / ".zarray"
    foreign.parent.mkdir(parents=True)
    store = Format2Store(tmp_path / "x.zarr")
    store.begin()
    foreign.write_bytes(b"[" * 100_000)
    with pytest.raises(OSError, match=r"X/\.zarray was changed by somebody else: expected at most"):
        store.consolidate()
