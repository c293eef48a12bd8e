import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest
from grib_files import message
from test_writer import plan, write

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.cli import main
from ai_models_mosaic.commands import inspect as command
from ai_models_mosaic.commands import inspection
from ai_models_mosaic.commands.inspect import inspect_files
from ai_models_mosaic.commands.inspection import inspect_ensemble
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.outputs.selection import Selection

GRID = LatLonGrid.regular(6.0)
ALL = range(len(CHANNELS))


@pytest.fixture(scope="module")
def encoder():
    with GribEncoder(GRID, Labels(datetime(2020, 2, 29, 18), 20, {})) as made:
        yield made


@pytest.fixture
def written(encoder, tmp_path):
    """Writes the members and steps of an ensemble but for some (member, step, channel); returns the file."""

    def write(members=(10, 2), steps=(24, 0), without=(), name="x.grib", channels=ALL, **keys):
        path = tmp_path / name
        with path.open("wb") as file:
            for member, step, channel in ((m, s, c) for m in members for s in steps for c in channels):
                if (member, step, channel) in without:
                    continue
                content = encoder.encode(channel, member, step, np.zeros(GRID.size)).to_bytes()
                file.write(labelled(content, keys) if keys else content)
        return path

    return write


def labelled(content, keys):
    handle = eccodes.codes_new_from_message(content)
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def line(paths, name):
    """What the report says under a name."""
    found = re.findall(rf"^  {name} +(.*)$", inspect_ensemble(paths), flags=re.MULTILINE)
    assert len(found) <= 1
    return found[0] if found else None


def test_a_complete_ensemble_is_told_in_six_lines(written):
    path = written()
    assert inspect_ensemble([path]).splitlines() == [
        f"{path}: 328 GRIB messages",
        "  start    20200229 1800 UTC",
        "  grid     regular_ll 60 × 31",
        "  members  2, 10 (of 20)",
        "  steps    0, 24 h",
        "  fields   82 per member and step",
    ]


def test_files_are_read_as_one_ensemble(written):
    first, second = (written(members=(member,), name=f"{member}.grib", channels=range(9)) for member in (1, 2))
    assert inspect_ensemble([second, first]).splitlines()[0] == f"{second}, {first}: 36 GRIB messages"
    assert line([second, first], "members") == "1, 2 (of 20)"
    assert line([second, first], "fields") == "9 per member and step"


def test_a_single_field_that_is_lacking_is_noticed(written):
    assert line([written(without=[(10, 24, 40)])], "fields") == "INCOMPLETE: 81 to 82 per member and step, not the same"


def test_a_step_that_one_member_lacks_is_noticed(written):
    path = written(channels=range(9), without=[(10, 24, channel) for channel in range(9)])
    assert line([path], "members") == "2, 10 (of 20)"
    assert line([path], "steps") == "0, 24 h"
    assert line([path], "fields") == "INCOMPLETE: 9 per member and step, not the same"


def test_members_that_lack_one_field_each_but_not_the_same_are_noticed(written):
    path = written(members=(1, 2), steps=(24,), without=[(1, 24, 40), (2, 24, 41)])
    assert line([path], "fields").startswith("INCOMPLETE")


def test_fields_that_are_there_twice_are_noticed(written):
    path = written(members=(1,), steps=(24,), channels=range(9))
    assert line([path, path], "fields") != "9 per member and step"


def test_fields_are_counted_for_every_start(written):
    words = {"members": (1,), "steps": (24,)}
    first = written(**words, channels=range(9), name="a.grib")
    second = written(**words, channels=range(9), name="b.grib", dataDate=20200301)
    fewer = written(**words, channels=range(8), name="c.grib", dataDate=20200301)
    assert line([first, second], "fields") == "9 per member and step of every start"
    assert line([first, fewer], "fields") == "INCOMPLETE: 8 to 9 per member and step, not the same at every start"


def test_a_field_of_the_same_name_on_another_level_is_another_field(written):
    assert line([written(members=(1,), steps=(0,), channels=(0, 1, 10, 11))], "fields") == "4 per member and step"


@pytest.mark.parametrize(
    ("keys", "members"),
    [
        ({"numberOfForecastsInEnsemble": 50}, "1 (of 50)"),
        ({"numberOfForecastsInEnsemble": 255}, "1 (of an unknown number)"),
        ({"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 255}, "1 (of 255)"),
        ({"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 1255}, "1 (of 1255)"),
        ({"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 65535}, "1 (of an unknown number)"),
    ],
)
def test_the_size_of_the_ensemble_is_told_as_far_as_it_is_known(written, keys, members):
    path = written(members=(1,), steps=(0,), channels=(3,), **keys | {"number": 1})
    assert line([path], "members") == members


def test_untrained_weights_are_told(written):
    assert line([written(members=(1,), steps=(0,))], "weights") is None
    path = written(members=(1,), steps=(0,), channels=(3,), expver="untr")
    assert line([path], "weights") == "UNTRAINED: random numbers, no forecast"


def test_a_file_that_is_absent_cut_short_or_no_grib_is_an_error(written, tmp_path):
    short, text = written(members=(1,), steps=(0,), channels=(3,)), tmp_path / "notes.txt"
    short.write_bytes(short.read_bytes()[:-10])
    text.write_text("GRIB is a format")
    absent = Path(tmp_path / "absent.grib")
    for path, reason in [
        (absent, f"[Errno 2] No such file or directory: '{absent}'"),
        (tmp_path, f"[Errno 21] Is a directory: '{tmp_path}'"),
        (short, "the message at byte 0 is not complete. Expected complete messages of edition 2, as its first is"),
        (text, "Edition not supported.. Expected complete messages"),
    ]:
        with pytest.raises(InputError) as caught:
            inspect_ensemble([path])
        assert str(caught.value) == f"{path} cannot be read as GRIB: {reason}"


def test_a_file_without_any_message_is_an_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind")
    with pytest.raises(InputError, match=re.escape(str(path))):
        inspect_ensemble([path])


def test_evenly_spaced_numbers_are_told_in_the_words_of_the_options(written):
    path = written(members=range(1, 6), steps=(0, 3, 6, 9, 12, 18, 24, 30), channels=(3,))
    assert line([path], "members") == "1-5 (of 20)"
    assert line([path], "steps") == "0/to/12/by/3, 18, 24, 30 h"


def test_the_long_form_names_every_field_and_all_that_is_missing(written):
    path = written(without=[(10, 24, 40), (10, 24, 41)], members=(2, 10), steps=(0, 24), channels=(0, 3, 40, 41))
    assert inspect_ensemble([path], long=True).splitlines()[5:] == [
        "  fields   INCOMPLETE: 2 to 4 per member and step, not the same",
        "    2t     2",
        "    msl",
        "    t      850, 925",
        "    member 10, 24 h lacks t 850, t 925",
    ]


def test_eccodes_is_asked_of_few_messages_only(written, monkeypatch):
    path = written(members=range(1, 21), steps=range(0, 30, 6), channels=range(8))
    asked, ordinary = [], inspection._kind
    monkeypatch.setattr(inspection, "_kind", lambda handle: asked.append(handle) or ordinary(handle))
    assert line([path], "fields") == "8 per member and step"
    assert len(asked) == 8


def test_members_of_large_ensembles_and_of_grib_1_are_told_one_by_one(written, tmp_path):
    keys = {"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 1255}
    parts = [written(members=(1,), steps=(24,), channels=(3,), **keys | {"number": n}).read_bytes() for n in (300, 301)]
    (tmp_path / "many.grib").write_bytes(b"".join(parts))
    assert line([tmp_path / "many.grib"], "members") == "300, 301 (of 1255)"
    content = message("2t", values=280.0, base=datetime(2020, 3, 1), step_hours=6, edition=1)
    (tmp_path / "old.grib").write_bytes(content)
    assert line([tmp_path / "old.grib"], "steps") == "6 h"


def test_progress_is_told_on_a_terminal_alone(written, monkeypatch, capsys):
    monkeypatch.setattr(command, "SECONDS", 0.0)
    path = str(written(channels=range(3)))
    assert main(["inspect", path]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["inspect", path]) == 0
    shown = capsys.readouterr().err
    assert re.match(r"\r\d+ k?B of \d+ kB\r", shown)
    assert shown.endswith("\r")


def test_a_pipe_is_read_once(written):
    path = written(channels=range(3))
    words = f"{sys.executable} -m ai_models_mosaic.cli inspect <(cat {path})"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True)
    assert "fields   3 per member and step" in done.stdout


# NetCDF and Zarr.


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    selection = Selection(params=("2t", "z", "t850"), levels=(500, 850))
    more = {"path": None, "grib": False, "selection": selection, "products": parse_products("mean,quantile:2.5@2t")}
    write(plan(folder, zarr=f"{folder}/x.zarr", netcdf=f"{folder}/x.nc", **more))
    write(plan(folder, netcdf=f"{folder}/m-{{number}}.nc", **more))
    return folder


@pytest.mark.parametrize(("name", "kind"), [("x.zarr", "Zarr store"), ("x.nc", "NetCDF")])
def test_stores_and_netcdf_are_told_as_grib_is(stores, name, kind):
    path = f"{stores}/{name}"
    told = inspect_files([path]).splitlines()
    assert told == [
        f"{path}: {kind}",
        "  start    20200229 1800 UTC",
        "  grid     12 × 7",
        "  members  1, 2, 3",
        "  steps    0, 24, 48 h",
        "  fields   4 per member and step",
        "  products 4 variables",
    ]
    detailed = inspect_files([path], long=True).splitlines()
    assert detailed[6:9] == ["    2t", "    z      500, 850", "    t      850"]


def test_files_of_single_members_are_told_together_and_alone(stores):
    together = inspect_files([f"{stores}/m-*.nc"]).splitlines()
    assert together[3:6] == ["  members  1, 2, 3", "  steps    0, 24, 48 h", "  fields   4 per member and step"]
    assert inspect_files([f"{stores}/m-2.nc"]).splitlines()[3:] == [
        "  members  2",
        "  steps    0, 24, 48 h",
        "  fields   4 per member and step",
    ]
    assert "products 4 variables" in inspect_files([f"{stores}/m-products.nc"])


def test_a_chunk_that_a_store_lacks_is_told(stores, tmp_path):
    shutil.copytree(stores / "x.zarr", tmp_path / "x.zarr")
    (tmp_path / "x.zarr" / "geopotential" / "0.1.1.0.0.0").unlink()
    assert "  INCOMPLETE: 8 of 9 chunks of geopotential" in inspect_files([f"{tmp_path}/x.zarr"]).splitlines()


def test_kinds_are_not_mixed(stores, written):
    grib = str(written(channels=(3,)))
    for names in ([grib, f"{stores}/x.nc"], [f"{stores}/x.zarr", f"{stores}/x.nc"], [f"{stores}/x.zarr", grib]):
        with pytest.raises(InputError, match=r"^expected GRIB files, NetCDF files, or one Zarr store; got "):
            inspect_files(names)
