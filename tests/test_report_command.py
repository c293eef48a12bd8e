"""The commands ``report`` and ``plot``: what they write, what they refuse, and every example of docs/report.md."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ensembles import ensemble
from grib_files import message, write

from ai_models_mosaic.cli import main
from ai_models_mosaic.report.options import KINDS

DOCUMENTATION = (Path(__file__).parent.parent / "docs" / "report.md").read_text()

FIELDS = (("z", 500), ("u", 500), ("t", 850), ("msl", None), ("2t", None), ("10u", None), ("10v", None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble")
    messages = (
        message(param, level, number=number, step_hours=step, values=None)
        for param, level in FIELDS
        for number in (1, 2, 3)
        for step in (0, 24, 48)
    )
    write(path / "ensemble.grib", messages)
    ensemble().to_netcdf(path / "ensemble.nc")
    return path


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def blocks(language):
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENTATION, re.DOTALL)
    return [text.replace("\\\n", " ") for text in found]


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_documentation(line, capsys):
    program, *arguments = shlex.split(line)
    output = Path(arguments[arguments.index("--output") + 1])

    assert program == "ai-models-mosaic"
    assert main(arguments) == 0, capsys.readouterr().err

    beginning = {".html": b"<!DOCTYPE html>", ".png": b"\x89PNG", ".svg": b"<?xml"}[output.suffix]
    assert output.read_bytes().startswith(beginning)
    assert capsys.readouterr().out == f"{output}: {output.stat().st_size / 1e6:.1f} MB\n"


def test_the_program_of_the_documentation(folder):
    (program,) = blocks("python")
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    assert (folder / "z500.png").stat().st_size > 10_000


def test_the_south_and_the_west_need_no_other_form(folder):
    words = ["plot", "plumes", "ensemble.grib", "--params", "2t", "--output", "south.svg", "--point"]
    assert main([*words, "-33.9,-70.7,Santiago"]) == 0
    assert "Santiago" in (folder / "south.svg").read_text()
    assert (
        main(["plot", "map", "ensemble.grib", "--params", "2t", "--area", "-10,110,-45,155", "--output", "a.png"]) == 0
    )


def test_a_date_may_say_its_zone(folder):
    words = ["plot", "mean", "ensemble.nc", "--params", "2t", "--output", "zone.png", "--date"]
    assert main([*words, "2020-01-02T13:00+01:00"]) == 0
    assert main([*words, "2020-01-02T12Z"]) == 0


def test_every_kind_of_picture_is_in_the_documentation():
    assert [kind for kind in KINDS if f"plot {kind} " not in DOCUMENTATION and f"`{kind}`" not in DOCUMENTATION] == []


def test_what_options_choose_is_on_the_page(folder):
    assert (
        main(
            shlex.split("report ensemble.nc --output few.html --params 2t --steps 24 --members 2-3 --threshold msl>1e5")
        )
        == 0
    )

    text = (folder / "few.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["times"] == ["+24 h, valid Fri 2020-01-03 12 UTC"]
    assert data["members"] == [2, 3]
    # The field of an event is there with it.
    assert [field["name"] for field in data["fields"]] == ["2t", "msl"]
    assert "Plumes at New York" in text
    assert "Scenarios" not in text


REFUSED = {
    "report ensemble.nc --output page.png": "--output: expected the name of a .html or .htm file in a folder that exists, got page.png",
    "report ensemble.nc --output no/page.html": "in a folder that exists, got no/page.html",
    "report ensemble.nc --output p.html --params z700": "expected fields that the ensemble has, got z700; it has msl, 2t",
    "report ensemble.nc --output p.html --params ,": "--params: expected fields such as z500,2t; got ,",
    "report ensemble.nc --output p.html --steps 7": "--steps: expected some of 0, 24, 48; got 7",
    "report ensemble.nc --output p.html --steps day1": "--steps: expected numbers and ranges such as 1-10,15; got day1",
    "report ensemble.nc --output p.html --members 5-9": "--members: expected some of 1, 2, 3, 4; got 5-9",
    "report ensemble.nc --output p.html --threshold 2t": "--threshold: expected a field, < or >, and a value in SI units",
    "report ensemble.nc --output p.html --threshold 2d<3": "expected fields that the ensemble has, got 2d",
    "report ensemble.nc --output p.html --point Berlin": "--point: expected LAT,LON[,NAME], such as 52.5,13.4,Berlin; got Berlin",
    "report ensemble.nc --output p.html --point 95,0": "--point: expected a latitude and a longitude in degrees, got 95,0",
    "report ensemble.nc --output p.html --contour z500": "--contour: expected FIELD=VALUE, such as z500=552; got z500",
    "report ensemble.nc --output p.html --area 1,2,3": "--area: expected N,W,S,E in degrees, such as 72,-25,34,45; got 1,2,3",
    "report ensemble.nc --output p.html --area 10,0,20,9": "--area: expected a north above its south",
    "report ensemble.nc --output p.html --area 9,0,0,9 --projection north": "expected --area or --projection, got both",
    "report ensemble.nc --output p.html --date tomorrow": "--date: expected a date such as 2020-01-31T00; got tomorrow",
    "report ensemble.nc ensemble.grib --output p.html": "expected GRIB files, NetCDF files, or one Zarr store; got ensemble.nc, ensemble.grib",
    "plot mean ensemble.nc --output p.gif": "--output: expected the name of a .png or .svg file in a folder that exists, got p.gif",
    "plot mean ensemble.nc --output p.png --params 2t,msl": "--params: expected one field for mean, got 2t,msl",
    "plot mean ensemble.nc --output p.png --steps 0-48": "--steps: expected one lead time for mean, got 0-48",
    "plot member ensemble.nc --output p.png --members 1-3": "--members: expected one member for member, got 1-3",
    "plot probability ensemble.nc --output p.png": "expected --threshold for probability, such as --threshold '2t<273.15'; got none",
    "plot map ensemble.nc --output p.png --threshold 2t<3": "--threshold is of probability; it changes nothing of map",
    "plot plumes ensemble.nc --output p.png --point 1,2 --area 9,0,0,9": "--area is of map, mean, spread, member, probability, stamps, spaghetti, tracks, variance; it changes nothing of plumes",
    "plot mean ensemble.nc --output p.png --dpi 0": "--dpi: expected a number from 1 to 2400, got 0",
    "plot plumes ensemble.nc --output p.png": "expected --point for plumes, such as --point 52.5,13.4,Berlin; got none",
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_refused(line, capsys):
    assert main(line.split()) == 2 + ("ensemble.grib" in line)
    assert REFUSED[line] in capsys.readouterr().err


def test_what_is_no_ensemble_is_refused(folder, capsys):
    assert main(["report", "absent.grib", "--output", "p.html"]) == 3
    assert "absent.grib: expected a GRIB file, a folder of files" in capsys.readouterr().err
    assert main(["plot", "tracks", "ensemble.nc", "--output", "p.png"]) == 3
    assert "no tracks of tropical cyclones: the grid's points lie 10° apart" in capsys.readouterr().err
    assert not (folder / "p.png").exists()


def test_the_help_needs_nothing_heavy():
    program = "import sys; from ai_models_mosaic.cli import main\ntry: main(['plot', '--help'])\nexcept SystemExit: pass\nprint(sorted({'matplotlib', 'xarray', 'scipy', 'torch'} & {*sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout.splitlines()[-1] == "[]"
