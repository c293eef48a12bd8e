"""Members that stand for an ensemble: the medoid, and scenarios with their weights."""

import json
import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ensembles import ensemble
from grib_files import message, write
from running import keys, messages

from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.report.ensemble import open_ensemble
from ai_models_mosaic.report.options import area_of
from ai_models_mosaic.report.scenarios import representatives

DOCUMENTATION = (Path(__file__).parent.parent / "docs" / "scenarios.md").read_text()

EUROPE = area_of("70,-30,30,50")


@pytest.fixture
def grouped():
    """Members 1-3, 4-5 and 6 near one another over Europe, and otherwise in the far south."""
    dataset = ensemble(members=6)
    shift = np.array([0, 1, 2, 100, 101, 200.0], dtype=np.float32)[:, None, None]
    south = np.array([0, 900, 0, 900, 0, 900.0], dtype=np.float32)[:, None, None]
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    pattern = np.cos(np.radians(2 * longitude))[None] * np.exp(-(((latitude - 50) / 15) ** 2))[:, None]
    values = 50_000 + shift * pattern + south * np.where(latitude < -30, 1, 0)[:, None]
    dataset["z"].values[:, 1, 0] = values
    return dataset


def test_clusters_are_those_of_the_region_with_their_shares_and_medoids(grouped):
    chosen = representatives(grouped, "z500", 24, EUROPE, 3)

    assert [(one.member, one.members) for one in chosen.scenarios] == [(2, (1, 2, 3)), (4, (4, 5)), (6, (6,))]
    assert [one.weight for one in chosen.scenarios] == [3 / 6, 2 / 6, 1 / 6]
    assert chosen.medoid == 3
    assert chosen == representatives(grouped, "z500", 24, EUROPE, 3)
    # Elsewhere other members are alike.
    south = representatives(grouped, "z500", 24, area_of("-35,-180,-90,180"), 2)
    assert [one.members for one in south.scenarios] == [(1, 3, 5), (2, 4, 6)]


def test_the_medoid_and_the_variance_are_numpys_weighted_by_area(grouped):
    chosen = representatives(grouped, "t850", 48, None, 1)
    values = grouped["t"].sel(level=850).isel(step=2).values.astype(np.float64)
    weights = np.cos(np.radians(grouped["latitude"].values)).clip(0)[:, None] * np.ones(values.shape[1:])
    apart = [[np.sqrt(((a - b) ** 2 * weights).sum()) for b in values] for a in values]

    assert chosen.medoid == 1 + int(np.argmin(np.sum(apart, axis=1))) == chosen.scenarios[0].member
    weighted = ((values - values.mean(axis=0)) * np.sqrt(weights)).reshape(6, -1)
    shares = np.linalg.svd(weighted, compute_uv=False) ** 2
    shares = np.cumsum(shares / shares.sum())
    assert chosen.eofs == 1 + int(np.searchsorted(shares, 0.9))
    assert chosen.explained == pytest.approx(shares[chosen.eofs - 1])


def test_what_has_no_scenarios_is_refused(grouped):
    grouped["2t"].values[1:4, 1] = grouped["2t"].values[:1, 1]
    with pytest.raises(
        OptionError, match=r"^--clusters: expected a number from 1 to 3, as many as there are different"
    ):
        representatives(grouped, "2t", 24, None, 4)
    with pytest.raises(OptionError, match=r"^--clusters: expected a number from 1 to 6, .* got 0$"):
        representatives(grouped, "z500", 24, None, 0)
    with pytest.raises(OptionError, match=r"^--area: expected a region with points of the ensemble's grid, got none"):
        representatives(grouped, "z500", 24, area_of("45,1,44,2"))
    grouped["2t"].values[2, 1, 9, 9] = np.nan
    with pytest.raises(InputError, match=r"^2t from .*, \+24 h, .*: members 3 have no values in the whole region$"):
        representatives(grouped, "2t", 24)
    grouped["2t"].values[:, 1] = 280
    assert representatives(grouped, "2t", 24, None, 1).scenarios[0].members == (1, 2, 3, 4, 5, 6)


def wave(number, mean, longitude, latitude):
    return mean + number**2 * np.cos(np.radians(longitude + 9 * number)) * np.cos(np.radians(latitude))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenarios")
    write(
        path / "ensemble.grib",
        (
            message(param, level, number=number, step_hours=step, values=partial(wave, number, mean))
            for param, level, mean in (("z", 500, 5e4), ("2t", None, 280))
            for number in (1, 2, 3, 4, 5)
            for step in (0, 24)
        ),
    )
    (path / "chosen").mkdir()
    ensemble().to_netcdf(path / "ensemble.nc")
    return path


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", DOCUMENTATION, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_documentation(line, folder, capsys):
    program, *arguments = shlex.split(line)
    assert program == "ai-models-mosaic"
    assert main(arguments) == 0, capsys.readouterr().err
    if arguments[0] == "report":
        page = (folder / "page.html").read_text()
        chosen = representatives(open_ensemble(["ensemble.grib"]), "z500", 24, area_of("72,-25,34,45"), 3)
        assert '<section id="scenarios">' in page
        assert all(f"<dt>{title}<dd>members " in page for title in chosen.titles)


def test_messages_of_the_chosen_are_copied(folder, capsys):
    words = ["representatives", "ensemble.grib", "--param", "z500", "--lead-time", "24", "--clusters", "2"]
    assert main([*words, "--json", "--messages", "chosen"]) == 0
    said = json.loads(capsys.readouterr().out)

    assert said["field"] == "z500"
    assert sum(one["weight"] for one in said["scenarios"]) == pytest.approx(1)
    assert sorted(number for one in said["scenarios"] for number in one["members"]) == [1, 2, 3, 4, 5]
    for name, member in [("medoid", said["medoid"]), ("scenario-2", said["scenarios"][1]["member"])]:
        copied = messages(folder / "chosen" / f"{name}-member-{member}.grib")
        assert copied == [one for one in messages(folder / "ensemble.grib") if keys(one, "number") == (member,)]
        assert len(copied) == 4


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("representatives ensemble.nc --param z700 --lead-time 24", 2, "expected fields that the ensemble has, got z700"),
        ("representatives ensemble.nc --param z500 --lead-time 7", 2, "expected a lead time that the ensemble has, got 7"),
        ("representatives ensemble.nc --param z500 --lead-time 24 --area 1/2/3", 2, "--area: expected N,W,S,E in degrees"),
        ("representatives ensemble.nc --param z500 --lead-time 24 --messages no", 2, "expected a folder that exists, got no"),
        ("representatives ensemble.nc --param z500 --lead-time 24 --messages chosen", 3, "expected an ensemble in GRIB, got"),
        ("report ensemble.nc --output p.html --scenarios z500", 2, "--scenarios: expected FIELD@HOURS or FIELD@HOURS:K"),
        ("report ensemble.nc --output p.html --scenarios z500@24:9", 2, "--clusters: expected a number from 1 to 4"),
    ],
)  # fmt: skip
def test_bad_words_are_answered(line, status, message, capsys):
    assert main(line.split()) == status
    assert message in capsys.readouterr().err
