import logging
import re
from datetime import date, datetime
from pathlib import Path

import eccodes
import pytest

from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.inputs.requests import check_file, choose_variant, mars_keys, parse_date, parse_hour, wanted_time
from ai_models_mosaic.variants import ERA5, HRES, MINI

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
NOON = datetime(2024, 3, 1, 12, 34, 56)


def grib_message(sample=None, **keys):
    """A message of the example, or of one of ecCodes' samples, with other labels."""
    if sample is None:
        with SAMPLE.open("rb") as file:
            handle = eccodes.codes_grib_new_from_file(file)
    else:
        handle = eccodes.codes_grib_new_from_samples(sample)
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return message


@pytest.fixture
def written(tmp_path):
    def write(*messages):
        path = tmp_path / "input.grib"
        path.write_bytes(b"".join(messages))
        return path

    return write


# The variant.


@pytest.mark.parametrize(
    ("source", "name"), [("cds", "era5"), ("mars", "hres"), ("opendata", "hres")], ids=lambda value: value
)
def test_a_service_decides_the_variant(source, name, caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.inputs.requests")
    assert choose_variant("auto", source, None).name == name
    assert caplog.messages == [f"Variant {name}, because the input is {source} (--variant overrides)"]


@pytest.mark.parametrize("source", ["cds", "mars", "opendata", "file", "anything"])
@pytest.mark.parametrize("variant", [ERA5, HRES, MINI], ids=lambda variant: variant.name)
def test_a_variant_that_was_asked_for_is_taken_without_a_look_at_the_input(source, variant, caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.inputs.requests")
    assert choose_variant(variant.name, source, "no such file") is variant
    assert caplog.messages == []


LABELLED = {"sample": "regular_ll_pl_grib2", "setLocalDefinition": 1}  # 16 × 31 points


@pytest.mark.parametrize(
    ("messages", "variant", "reason"),
    [
        ([{"class": "ea"}], ERA5, "is of class ea"),
        ([{"class": "od"}], HRES, "is of class od"),
        ([{"class": "rd"}, {"class": "od"}], HRES, "is of class od"),
        ([LABELLED | {"class": "ea", "endStep": 6}], ERA5, "is of class ea"),
        ([{}], MINI, "is on its grid of 60 × 31 points (6°)"),
        ([{"class": "ml", "endStep": 6}], MINI, "is on its grid of 60 × 31 points (6°)"),
        ([LABELLED | {"class": "ml", "endStep": step} for step in (0, 24, 48)], ERA5, "holds steps of 24 h"),
        ([LABELLED | {"class": "ml", "endStep": step} for step in (12, 0, 6, 18)], HRES, "holds steps of 6 h"),
    ],
)
def test_a_file_decides_the_variant_by_class_then_grid_then_steps(messages, variant, reason, written, caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.inputs.requests")
    path = written(*(grib_message(**keys) for keys in messages))
    assert choose_variant("auto", "file", str(path)) is variant
    assert caplog.messages == [f"Variant {variant.name}, because {path} {reason} (--variant overrides)"]


@pytest.mark.parametrize(
    ("messages", "got"),
    [
        ([LABELLED | {"class": "ml"}, LABELLED | {"class": "e4"}], "e4, ml"),
        ([LABELLED | {"class": "ml", "endStep": 12}], "ml"),
        ([LABELLED | {"sample": "reduced_gg_pl_32_grib2", "class": "rd"}], "rd"),
    ],
)
def test_a_file_that_suggests_no_variant_is_refused_with_what_it_is_of(messages, got, written):
    path = written(*(grib_message(**keys) for keys in messages))
    with pytest.raises(OptionError) as caught:
        choose_variant("auto", "file", str(path))
    assert str(caught.value) == (
        f"--variant auto cannot choose for {path}: expected class ea or od, got {got}; give --variant"
    )


@pytest.mark.parametrize(("source", "file"), [("file", None), ("other", None), ("other", str(SAMPLE))])
def test_an_input_that_suggests_no_variant_is_refused(source, file):
    with pytest.raises(OptionError) as caught:
        choose_variant("auto", source, file)
    assert str(caught.value) == f"--variant auto cannot choose for --input {source} without a file; give --variant"


@pytest.mark.parametrize(
    "content", [SAMPLE.read_bytes()[:1000], SAMPLE.read_bytes()[:900] + bytes(5000)], ids=["cut short", "with a hole"]
)
def test_a_file_that_cannot_be_read_is_an_error_of_the_input_and_not_of_eccodes(content, written):
    path = written(content)
    assert check_file(str(path)) == str(path)
    with pytest.raises(InputError) as caught:
        choose_variant("auto", "file", str(path))
    assert str(caught.value) == f"--file {path}: expected GRIB messages, found none that is whole and can be read"


def test_a_message_that_is_cut_short_is_not_asked_for_the_variant(written):
    assert choose_variant("auto", "file", str(written(SAMPLE.read_bytes()[:6000]))) is MINI


# The file.


def test_a_grib_file_is_accepted_also_behind_a_header_of_another_kind(written):
    assert check_file(str(SAMPLE)) == str(SAMPLE)
    path = written(b"TTAAii CCCC 010000\r\r\n", grib_message())
    assert check_file(str(path)) == str(path)


def test_the_name_of_a_zarr_store_is_left_to_its_reader():
    for name in ("gs://bucket/era5.zarr", "absent.zarr/"):
        assert check_file(name) == name
        assert choose_variant("auto", "file", name) is ERA5


def test_a_file_that_is_none_is_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_bytes(b"GRI is something else")
    names = tmp_path / "names.txt"
    names.write_bytes(b"GRIB is a format " * 100)
    empty = tmp_path / "empty"
    empty.touch()
    for path, message in [
        (None, "--input file: expected --file with the name of a GRIB file or a Zarr store"),
        (tmp_path / "absent", f"--file {tmp_path}/absent: there is no such file"),
        (
            tmp_path,
            f"--file {tmp_path}: expected a GRIB file or a Zarr store, got a folder without Zarr's .zgroup or zarr.json",
        ),
        (text, rf"--file {text}: expected a GRIB file, got one that starts with b'GRI '"),
        (names, f"--file {names}: expected a GRIB file, got one that starts with b'GRIB'"),
        (empty, f"--file {empty}: expected a GRIB file, got one that starts with b''"),
    ]:
        with pytest.raises(InputError) as caught:
            check_file(path and str(path))
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (
            b"CDF\x01",
            "netCDF, which is no input: ask the CDS for data_format grib",
        ),
        (
            b"\x89HDF\r\n\x1a\n",
            "netCDF 4 (HDF5), which is no input: ask the CDS for data_format grib",
        ),
        (b"PK\x03\x04", "a zip archive: unpack it, or ask the CDS for download_format unarchived"),
        (b"\x1f\x8b\x08", "a file compressed with gzip: unpack it"),
    ],
)
def test_a_file_of_another_kind_is_told_by_how_it_begins_even_where_it_speaks_of_grib(content, got, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(content + b"GRIB_paramId" + grib_message())
    with pytest.raises(InputError) as caught:
        check_file(str(path))
    assert str(caught.value) == f"--file {path}: expected a GRIB file, got {got}"


# Dates and times.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20240229", datetime(2024, 2, 29)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("19690720", datetime(1969, 7, 20)),
        ("0", datetime(2024, 3, 1)),
        ("-1", datetime(2024, 2, 29)),
        ("-61", datetime(2023, 12, 31)),
    ],
)
def test_a_date_is_a_day_or_days_before_today(text, expected):
    assert parse_date(text, today=NOON) == expected


@pytest.mark.parametrize(
    "text",
    ["1", "20230229", "20241301", "2024-2-30", "2024/02/29", "20240229T00", "yesterday", "", "-1.5", "202402"],
)
def test_a_date_that_is_none_is_refused(text):
    with pytest.raises(OptionError) as caught:
        parse_date(text, today=NOON)
    assert str(caught.value) == f"--date: expected YYYYMMDD, YYYY-MM-DD, or 0, -1, … days from today, got {text!r}"


@pytest.mark.parametrize("text", ["202411", "2024115"])
def test_a_date_with_too_few_digits_is_refused_and_not_guessed_at(text):
    with pytest.raises(OptionError, match=re.escape(f"got {text!r}")):
        parse_date(text, today=NOON)


@pytest.mark.parametrize("text", ["-1000000", "-9999999999"])
def test_a_date_before_the_calendar_begins_is_refused(text):
    with pytest.raises(OptionError, match=re.escape(f"got {text!r}")):
        parse_date(text, today=NOON)


@pytest.mark.parametrize(
    ("time", "hour"), [(0, 0), (6, 6), (12, 12), (23, 23), (100, 1), (600, 6), (1800, 18), (2300, 23)]
)
def test_an_hour_may_be_given_with_or_without_minutes(time, hour):
    assert parse_hour(time) == hour


@pytest.mark.parametrize("time", [-1, 24, 60, 99, 630, 1801, 2400, 120_000])
def test_an_hour_that_is_none_is_refused(time):
    with pytest.raises(OptionError) as caught:
        parse_hour(time)
    assert str(caught.value) == f"--time: expected an hour from 0 to 23, got {time}"


@pytest.mark.parametrize(
    ("day", "time", "wanted"),
    [
        (None, None, Wanted()),
        (None, 600, Wanted(hour=6)),
        (None, 0, Wanted(hour=0)),
        ("20240229", None, Wanted(day=date(2024, 2, 29))),
        ("2024-02-29", 18, Wanted(time=datetime(2024, 2, 29, 18))),
        ("20240229", 0, Wanted(time=datetime(2024, 2, 29))),
    ],
)
def test_the_initial_time_is_wanted_as_far_as_it_was_typed(day, time, wanted):
    assert wanted_time(day, time) == wanted


# Requests.


@pytest.mark.parametrize(
    ("time", "stream"),
    [
        (datetime(2020, 1, 1, 0), "oper"),
        (datetime(2020, 1, 1, 6), "scda"),
        (datetime(2020, 1, 1, 12), "oper"),
        (datetime(2020, 1, 1, 18), "scda"),
        (datetime(2026, 5, 11, 12), "oper"),
        (datetime(2026, 5, 11, 18), "scda"),
        (datetime(2026, 5, 12, 0), "oper"),
        (datetime(2026, 5, 12, 6), "oper"),
        (datetime(2026, 5, 12, 18), "oper"),
        (datetime(2030, 7, 1, 6), "oper"),
    ],
)
def test_the_analyses_of_06_and_18_utc_are_in_the_short_cut_off_stream_until_cycle_50r1(time, stream):
    assert mars_keys(HRES, time) == {"class": "od", "expver": "1", "type": "an", "stream": stream}
    for variant in (ERA5, MINI):
        assert mars_keys(variant, time) == {"class": "ea", "expver": "1", "type": "an", "stream": "oper"}
