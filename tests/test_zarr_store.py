"""What is missing in a Zarr store, damaged, or refused by its server, is said; nothing that was not read is used."""

import json
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from zarr_cases import GRID, LAGS, ZARR_3, Server, read_zarr, sample_dataset, sample_state, serving, stored

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.inputs.states import initial_states_of
from ai_models_mosaic.inputs.zarr import is_zarr, zarr_fields
from ai_models_mosaic.inputs.zarr_store import places
from ai_models_mosaic.verification.zarr_stores import ZarrForecasts, ZarrTruth

FORMATS = [2, 3] if ZARR_3 else [2]
T500 = next(channel for channel in CHANNELS if channel.label == "t500")
NEWEST = Wanted(time=sample_state().times[-1])


def refused(path: str, wanted: Wanted | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_zarr(path, GRID, LAGS, wanted)
    return str(caught.value)


def is_sample(path: str, wanted: Wanted | None = None) -> bool:
    state = read_zarr(path, GRID, LAGS, wanted)
    return state.times == sample_state().times and bool((state.values == sample_state().values).all())


def chunk_of(path: str, variable: str, *indices: int) -> Path:
    """The file of a chunk, whatever the format."""
    old, new = (
        Path(path) / variable / name for name in (".".join(map(str, indices)), "/".join(map(str, ("c", *indices))))
    )
    return old if old.exists() else new


def with_fill(path: str, variable: str, fill: object) -> None:
    """Give an array another fill value, as other programs write it."""
    root = Path(path)
    for file in (root / variable / ".zarray", root / variable / "zarr.json", root / ".zmetadata", root / "zarr.json"):
        if not file.exists():
            continue
        found = json.loads(file.read_text())
        held = found.get("metadata", found.get("consolidated_metadata", {}).get("metadata", {}))
        for entry in (found, held.get(f"{variable}/.zarray", {}), held.get(variable, {})):
            if "fill_value" in entry:
                entry["fill_value"] = fill
                entry.get("attributes", {}).pop("_FillValue", None)
        file.write_text(json.dumps(found))


# Chunks that are not there.


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_a_missing_chunk_without_a_fill_value_is_named_and_not_made_up(tmp_path: Path, zarr_format: int):
    path = stored(sample_dataset(), tmp_path, zarr_format=zarr_format)
    fill = None if zarr_format == 2 else 0.0
    with_fill(path, "temperature", fill)
    assert is_sample(path)
    gone = chunk_of(path, "temperature", 1, 0, 0, 0)
    gone.unlink()
    told = "no fill value" if fill is None else "the fill value 0.0, which is no sign of what was there"
    assert refused(path, NEWEST) == (
        f"{path}: the chunk {gone.relative_to(path)} is not in the store, and temperature has {told}. "
        "Was the store written, or copied, to its end? A time with all its chunks can be chosen with --date"
    )


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_a_missing_chunk_that_stands_for_nan_is_a_missing_field(tmp_path: Path, zarr_format: int):
    path = stored(sample_dataset(), tmp_path, zarr_format=zarr_format)
    with_fill(path, "temperature", "NaN")
    chunk_of(path, "temperature", 1, 0, 0, 0).unlink()
    assert refused(path, NEWEST).startswith(
        "the input lacks 13 of the 164 fields that a forecast from 2008-04-26 06:00"
    )


def test_a_missing_part_of_a_field_is_missing_values(tmp_path: Path):
    data = sample_dataset()
    data.to_zarr(
        tmp_path / "a.zarr",
        encoding={"2m_temperature": {"chunks": (1, 30, 31)}},
        **({"zarr_format": 2} if ZARR_3 else {}),
    )
    chunk_of(str(tmp_path / "a.zarr"), "2m_temperature", 1, 1, 0).unlink()
    assert "2t valid 2008-04-26 06:00 UTC: 930 of 1860 values are NaN" in refused(str(tmp_path / "a.zarr"))


def test_a_missing_chunk_of_a_coordinate_is_named(tmp_path: Path):
    path = stored(sample_dataset(), tmp_path)
    with_fill(path, "time", None)
    chunk_of(path, "time", 0).unlink()
    assert "the chunk time/0 is not in the store, and time has no fill value" in refused(path)


@pytest.mark.parametrize("reader", [ZarrTruth, ZarrForecasts])
def test_verification_names_a_missing_chunk(tmp_path: Path, reader: type):
    data = sample_dataset()
    if reader is ZarrForecasts:
        data = data.expand_dims(prediction_timedelta=np.array([24], "timedelta64[h]").astype("timedelta64[ns]"))
    path = stored(data, tmp_path)
    with_fill(path, "temperature", None)
    folder = Path(path) / "temperature"
    for chunk in folder.glob("[0-9]*"):
        chunk.unlink()
    read = (
        (lambda: ZarrTruth([path], [T500]).read(T500, sample_state().times))
        if reader is ZarrTruth
        else (lambda: next(iter(ZarrForecasts(path, [T500]).cases())).read(T500))
    )
    with pytest.raises(InputError, match=r"the chunk temperature/[01.]+ is not in the store, and temperature has no"):
        read()


# Chunks that are damaged.


def compressors() -> list[object]:
    from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd

    return [Blosc(), LZ4(), Zstd(), GZip(), Zlib(), None]


@pytest.mark.skipif(ZARR_3, reason="zarr 3 looks itself")
@pytest.mark.parametrize("codec", compressors(), ids=lambda codec: type(codec).__name__)
def test_a_chunk_of_another_length_is_damaged(tmp_path: Path, codec):
    path = stored(sample_dataset(), tmp_path, encoding={"compressor": codec})
    assert is_sample(path)
    short = np.full(31 * 60 // 2, 280, "f4").tobytes()
    chunk = chunk_of(path, "2m_temperature", 1, 0, 0)
    chunk.write_bytes(codec.encode(short) if codec else short)
    told = refused(path)
    assert "damaged" in told
    assert "2m_temperature" in told


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\xff" * len(data)]
)
def test_a_chunk_that_cannot_be_decoded_is_data_not_a_bug(tmp_path: Path, damage, zarr_format: int):
    path = stored(sample_dataset(), tmp_path, zarr_format=zarr_format)
    chunk = chunk_of(path, "2m_temperature", 1, 0, 0)
    chunk.write_bytes(damage(chunk.read_bytes()))
    assert "2m_temperature" in refused(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"metadata": 3}', '{"metadata": {".zgroup": {"zarr_format": 2}}}'])
def test_damaged_metadata_are_refused(tmp_path: Path, text: str):
    path = stored(sample_dataset(), tmp_path)
    (Path(path) / ".zmetadata").write_text(text)
    assert refused(path).startswith(f"{path}")


@pytest.mark.parametrize("consolidated", [True, False])
def test_a_coordinate_of_absurd_length_is_refused(tmp_path: Path, consolidated: bool):
    path = stored(sample_dataset(), tmp_path, consolidated=consolidated)
    for file in (Path(path) / "level" / ".zarray", Path(path) / ".zmetadata"):
        if file.exists():
            found = json.loads(file.read_text())
            (found["metadata"]["level/.zarray"] if "metadata" in found else found)["shape"] = [13 * 10**11]
            file.write_text(json.dumps(found))
    assert "expected coordinates of a usual length, got 1300000000000 in level/.zarray" in refused(path)


# What a store is known by.


def test_a_store_is_known_by_what_is_in_it(tmp_path: Path):
    path = stored(sample_dataset(), tmp_path, "era5")
    named = tmp_path / "named.zarr-v3"
    shutil.copytree(path, named)
    with zipfile.ZipFile(tmp_path / "era5.zip", "w") as archive:
        for file in sorted(Path(path).rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
    for name in (path, f"{path}/", str(named), str(tmp_path / "era5.zip"), f"file://{path}"):
        assert is_zarr(name), name
        assert is_sample(name), name
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"GRIB")
    assert not any(is_zarr(str(tmp_path / name)) for name in ("folder", "file", "absent"))
    assert is_zarr(str(tmp_path / "absent.zarr"))


def test_metadata_that_are_not_consolidated_will_do(tmp_path: Path):
    assert is_sample(stored(sample_dataset(), tmp_path, consolidated=False))


@pytest.mark.skipif(ZARR_3, reason="reads both")
def test_the_format_that_is_not_read_yet_is_named(tmp_path: Path):
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert refused(str(tmp_path)) == (
        f"{tmp_path} is a store of Zarr format 3, and zarr {zarr.__version__} is installed: "
        "write it with zarr_format=2, for instance xarray's to_zarr(…, zarr_format=2)"
    )


def test_an_xarray_that_does_without_the_zarr_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xarray, "__version__", "2026.8.1")
    monkeypatch.setattr(zarr, "__version__", "2.18.7")
    assert refused(f"{tmp_path}/x.zarr") == (
        f"reading {tmp_path}/x.zarr: xarray 2026.8.1 needs zarr 3, and zarr 2.18.7 is installed: "
        "pip install 'zarr>=3' or 'xarray<2026.8'"
    )


# Members, versions, lead times, others.


def members(count: int, dim: str = "number", first: int = 1) -> xarray.Dataset:
    data = sample_dataset()
    made = [data.assign({"2m_temperature": data["2m_temperature"] + first + index}) for index in range(count)]
    return xarray.concat(made, dim=dim).assign_coords({dim: np.arange(first, first + count)})


@pytest.mark.parametrize("dim", ["number", "member", "realization", "ensemble", "sample"])
@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_members_start_from_their_own(tmp_path: Path, dim: str, place: int):
    order = ["time", "level", "latitude", "longitude"]
    order.insert(place, dim)
    path = stored(members(15, dim).transpose(*order), tmp_path)
    starts = initial_states_of(zarr_fields(path, LAGS, Wanted()), GRID, LAGS, Wanted(), [2, 15])
    names = [channel.label for channel in CHANNELS]
    for number, start in starts.items():
        warmed = sample_state().values.copy()
        warmed[..., names.index("2t")] += np.float32(number)
        assert start.number == number
        np.testing.assert_allclose(start.values, warmed, rtol=1e-6)


@pytest.mark.parametrize("number", [0, 7])
def test_one_member_is_a_state(tmp_path: Path, number: int):
    assert is_sample(stored(sample_dataset().expand_dims(realization=[number]), tmp_path))


@pytest.mark.parametrize("names", [[1, 5], ["0001", "0005"]])
def test_of_two_versions_the_one_that_is_there_is_taken(tmp_path: Path, names: list[object]):
    data, empty = sample_dataset(), sample_dataset() * np.nan
    early, late = (
        xarray.concat([a.isel(time=[0]), b.isel(time=[1])], "time") for a, b in ((data, empty), (empty, data))
    )
    path = stored(xarray.concat([early, late], dim="expver").assign_coords(expver=names), tmp_path)
    assert is_sample(path)


def test_versions_that_both_have_all_are_told_and_never_mixed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = sample_dataset()
    path = stored(xarray.concat([data + 1, data], dim="expver").assign_coords(expver=[5, 1]), tmp_path)
    assert is_sample(path)
    assert "at 2008-04-26 06:00 UTC expver 5, 1 all have the fields; 1 is taken, for it comes first" in caplog.text
    halves = [data.assign(temperature=data.temperature * np.nan), (data * np.nan).assign(temperature=data.temperature)]
    path = stored(xarray.concat(halves, dim="expver").assign_coords(expver=[1, 5]), tmp_path)
    assert refused(path, NEWEST).endswith(
        "UTC no one expver has all 82 fields: 1 has 69, from 2t; 5 has 13, from t50. "
        "States are not mixed from two: select or merge them before"
    )


def test_other_dimensions_are_named(tmp_path: Path):
    data = sample_dataset()
    path = stored(data.expand_dims(run=["a", "b"]), tmp_path)
    assert refused(path) == (
        f"{path} has a dimension run, of 2 entries (a, b): expected time, level, latitude, longitude, member, expver, "
        "lead_time and no other. Select one with xarray, .isel(run=0) for instance, and write that"
    )
    assert is_sample(stored(data.expand_dims(surface=[0]), tmp_path))
    assert refused(stored(data.expand_dims(quantile=[0.5]), tmp_path)).endswith(
        "no other. These are products, not states"
    )


def test_a_lead_time_is_nought_or_refused(tmp_path: Path):
    data = sample_dataset()
    leads = np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]")
    assert is_sample(stored(data.expand_dims(prediction_timedelta=leads[:1]), tmp_path))
    assert "holds forecasts, with 2 lead times" in refused(stored(data.expand_dims(step=leads), tmp_path))
    assert "holds forecasts, with 1 lead times" in refused(stored(data.expand_dims(step=leads[1:]), tmp_path))


def test_means_over_time_or_members_are_no_states(tmp_path: Path):
    data = sample_dataset()
    data["temperature"].attrs["cell_methods"] = "area: mean time: mean (interval: 1 hour)"
    assert "temperature is not a state, but has cell_methods" in refused(stored(data, tmp_path))
    data["temperature"].attrs["cell_methods"] = "area: mean time: point"
    assert is_sample(stored(data, tmp_path))


# Levels and times.

LEVELS = {
    "Pa": ("level", 100, {"units": "Pa"}),
    "Pa by value": ("plev", 100, {}),
    "Pa by name": ("isobaricInPa", 100, {}),
    "millibars": ("level", 1, {"units": "millibars"}),
    "hPa by value": ("pressure_level", 1, {}),
    "hPa by name": ("isobaricInhPa", 1, {}),
}


@pytest.mark.parametrize("case", LEVELS)
def test_levels_are_read_in_their_units(tmp_path: Path, case: str):
    name, factor, attributes = LEVELS[case]
    data = sample_dataset().rename(level=name)
    assert is_sample(stored(data.assign_coords({name: (name, data[name].values * factor, attributes)}), tmp_path))


@pytest.mark.parametrize(
    ("values", "units", "told"),
    [
        (np.arange(13) + 1.0, "m", "expected pressure levels in hPa or Pa, got 1/2/3/4/5/6/7/8/9/10/11/12/… m"),
        (np.arange(13) * 100.0 + 1000, "", "without units: give the coordinate units"),
        (np.array([*np.arange(12) + 1.0, np.nan]), "hPa", "1 of 13 values of the coordinate level are missing (NaN)"),
        (np.array([1.0] * 2 + list(range(2, 13))), "hPa", "a pressure level stands there more than once"),
        (np.arange(13) * 1000.0 + 1000, "hPa", "hPa; are they Pa?"),
    ],
)
def test_levels_that_are_not_to_be_told_are_refused(tmp_path: Path, values: np.ndarray, units: str, told: str):
    attributes = {"units": units} if units else {}
    assert told in refused(stored(sample_dataset().assign_coords(level=("level", values, attributes)), tmp_path))


def later(*extra: xarray.Dataset) -> xarray.Dataset:
    """The sample, then other days."""
    data = sample_dataset()
    days = [part.assign_coords(time=data.time + np.timedelta64(2 * day, "D")) for day, part in enumerate(extra, 1)]
    return xarray.concat([data, *days], dim="time")


def test_newest_times_that_are_empty_are_passed_over_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = sample_dataset()
    path = stored(later(data * np.nan), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert is_sample(path)
    assert "2 newer times (to 2008-04-28 06:00 UTC) are not complete" in caplog.text
    assert "Starting from 2008-04-26 06:00 UTC; --date chooses another" in caplog.text
    path = stored(later(data.assign(geopotential=data.geopotential * np.nan)), tmp_path)
    assert is_sample(path)
    asked = Wanted(time=sample_state().times[-1].replace(day=28))
    assert "lacks 26 of the 164 fields" in refused(path, asked)
    assert "at 2008-04-28 06:00 UTC 13 of 82 fields are NaN everywhere, and count as missing: z50, z100," in caplog.text
    assert refused(stored(later(data * np.nan), tmp_path), asked).endswith(
        ": at 2008-04-28 06:00 UTC, and the states before, not all fields have values: they are NaN everywhere, or not "
        "written yet. Choose a time that has them with --date and --time"
    )


def test_times_that_miss_the_hour_by_nanoseconds_are_that_hour(tmp_path: Path):
    data = sample_dataset()
    assert is_sample(stored(data.assign_coords(time=data.time - np.timedelta64(13, "ns")), tmp_path))


def test_the_only_member_may_be_nought_and_left_out(tmp_path: Path):
    # zarr 3 leaves out chunks of zeros, even where there is no fill value.
    path = stored(sample_dataset().expand_dims(number=[0]), tmp_path)
    chunk_of(path, "number", 0).unlink(missing_ok=True)
    with_fill(path, "number", None)
    assert is_sample(path)


def test_times_that_stand_there_twice_or_not_at_all_are_refused(tmp_path: Path):
    data = sample_dataset()
    twice = data.isel(time=[0, 1, 1])
    assert "time has 2008-04-26 06:00 more than once" in refused(stored(twice, tmp_path))
    none = data.assign_coords(time=[data.time.values[0], np.datetime64("NaT", "ns")])
    assert "1 of 2 values of the coordinate time are missing" in refused(stored(none, tmp_path))
    assert "it has no coordinate" in refused(stored(data.drop_vars("latitude"), tmp_path))


def test_a_dimension_whose_values_have_the_other_name_is_found(tmp_path: Path):
    data = sample_dataset().rename(latitude="lat")
    assert is_sample(stored(data.rename(lat="latitude").swap_dims(latitude="lat"), tmp_path))


# Servers.


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places, "PAUSES_S", (0.0, 0.0))
    stored(sample_dataset(), tmp_path)
    with serving(tmp_path) as served:
        yield served


CHUNK = "store.zarr/2m_temperature/1.0.0"


@pytest.mark.parametrize("answers", [[200], [429, 200], [503, 500, 200], ["broken", 200]], ids=str)
def test_what_passes_is_waited_for(server: Server, answers: list[int | str]):
    count = len(answers)
    server.answers[CHUNK] = answers
    assert is_sample(f"{server.url}/store.zarr/")
    assert server.asked[CHUNK] == count


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        (403, 1, "the server answered 403 (access refused, which some servers also say of what is not there)"),
        (401, 1, "the server answered 401 (log-in wanted)"),
        (429, 3, "the server answered 429 (too many requests), 3 times"),
        (503, 3, "the server answered 503 (Service Unavailable), 3 times"),
        ("broken", 3, "ChunkedEncodingError: ProtocolError, 3 times"),
    ],
)
@pytest.mark.parametrize("key", ["2m_temperature/1.0.0", ".zmetadata"])
def test_what_does_not_pass_is_an_error_of_the_input(server: Server, answer, asked: int, told: str, key: str):
    for name in (key, *(("zarr.json", ".zgroup") if key == ".zmetadata" else ())):
        server.answers[f"store.zarr/{name}"] = [answer if name == key else 404]
    assert refused(f"{server.url}/store.zarr") == f"{server.url}/store.zarr: {key} cannot be read: {told}"
    assert server.asked[f"store.zarr/{key}"] == asked


def test_refused_consolidated_metadata_are_told_though_others_are_there(server: Server):
    server.answers["store.zarr/.zmetadata"] = [403]
    server.answers["store.zarr/zarr.json"] = [404]
    assert ".zmetadata cannot be read: the server answered 403" in refused(f"{server.url}/store.zarr")


def test_a_server_that_wants_a_long_pause_is_not_waited_for(server: Server):
    server.answers[CHUNK], server.retry_after = [429], "3600"
    assert refused(f"{server.url}/store.zarr").endswith("429 (too many requests) and asks to come back in 3600 s")
    assert server.asked[CHUNK] == 1
    server.retry_after = "0"
    server.answers[CHUNK] = [429, 200]
    assert is_sample(f"{server.url}/store.zarr")


def test_a_server_that_is_not_there_is_an_error_of_the_input(server: Server):
    assert refused("http://user:secret@127.0.0.1:1/a.zarr?sig=secret") == (
        "http://***@127.0.0.1:1/a.zarr?sig=*** .zmetadata cannot be read: ConnectionError: NewConnectionError, 3 times"
    )


def test_a_url_without_a_store_is_refused(server: Server):
    assert refused(f"{server.url}/other").startswith(
        f"{server.url}/other cannot be opened as a Zarr store: expected a group"
    )
    (server.folder / "store.zarr" / ".zmetadata").unlink()
    for file in server.folder.rglob("zarr.json"):
        file.unlink()
    assert "a web server does not list what it has: run zarr.consolidate_metadata" in refused(
        f"{server.url}/store.zarr"
    )
