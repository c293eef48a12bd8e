"""Starts crossed with noise: which member is what, and where the variance of the ensemble comes from."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray
from running import MINI, SAMPLE, Runner, changed, elsewhere, messages, of_member, values

from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.forecast.rollout import Ensemble
from ai_models_mosaic.options.crossing import Crossing, parse_crossing
from ai_models_mosaic.outputs.variance import PARTS, split
from ai_models_mosaic.report.options import area_of
from ai_models_mosaic.report.origins import open_split, origins

DOCUMENTATION = (Path(__file__).parent.parent / "docs" / "members.md").read_text()


def by_the_book(crossed):
    """Variances of starts, noise and both, of ``(start, noise, ...)``, by the mean squares."""
    starts, noises = crossed.shape[:2]
    mean, of_start, of_noise = crossed.mean(axis=(0, 1)), crossed.mean(axis=1), crossed.mean(axis=0)
    between_starts = noises * ((of_start - mean) ** 2).sum(axis=0) / (starts - 1)
    between_noises = starts * ((of_noise - mean) ** 2).sum(axis=0) / (noises - 1)
    rest = ((crossed - of_start[:, None] - of_noise + mean) ** 2).sum(axis=(0, 1)) / ((starts - 1) * (noises - 1))
    return np.stack([(between_starts - rest) / noises, (between_noises - rest) / starts, rest])


def errors_by_the_book(crossed):
    """Jackknife over starts, over noise, and the larger of both."""

    def jackknife(axis):
        count = crossed.shape[axis]
        left_out = np.stack([by_the_book(np.delete(crossed, place, axis=axis)) for place in range(count)])
        return np.sqrt((count - 1) / count * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))

    starts, noise = jackknife(0), jackknife(1)
    return np.stack([starts[0], noise[1], np.maximum(starts[2], noise[2])])


def in_members(crossed):
    return np.swapaxes(crossed, 0, 1).reshape(-1, *crossed.shape[2:])


def test_the_split_and_its_error_are_numpys():
    crossed = 5e4 + np.random.default_rng(1).normal(size=(5, 4, 3, 2)) * 30
    found = split(in_members(crossed), 5)

    assert [*found][:3] == [*PARTS]
    np.testing.assert_allclose(np.stack([*found.values()][:3]), by_the_book(crossed), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.stack([*found.values()][3:]), errors_by_the_book(crossed), rtol=1e-9)


def test_the_split_is_unbiased_and_its_error_is_of_the_right_size():
    chance, points = np.random.default_rng(2), 20_000
    crossed = (
        3.0 * chance.normal(size=(6, 1, points)) + 2.0 * chance.normal(size=(1, 5, points)) + chance.normal(size=(6, 5, points))
    )  # fmt: skip
    found = split(in_members(crossed), 6)

    for kind, truth in zip(PARTS, (9, 4, 1), strict=True):
        scatter = found[kind].std()
        assert found[kind].mean() == pytest.approx(truth, abs=4 * scatter / np.sqrt(points))
        assert np.sqrt((found[f"{kind}_error"] ** 2).mean()) == pytest.approx(scatter, rel=0.3)


def test_members_that_are_the_same_have_no_variance():
    assert all((part == 0).all() for part in split(np.full((9, 4), 280.0), 3).values())


def test_a_noise_is_that_of_an_ordinary_member_whatever_the_start():
    from datetime import datetime

    time, crossing = datetime(2020, 1, 1), Crossing(4, 3)
    crossed, usual = Ensemble(7, tuple(range(1, 13)), crossing=crossing), Ensemble(7, (1, 2, 3))
    for member in crossed.members:
        noise = usual.noise(time, (member - 1) // 4 + 1, 2, 32)
        assert (crossed.noise(time, member, 2, 32) == noise).all()
    assert [crossing.start_of(member) for member in crossed.members] == [1, 2, 3, 4] * 3


def test_a_crossing_is_read_in_any_spelling():
    assert parse_crossing("8x6") == parse_crossing("8×6") == parse_crossing(" 8 * 6 ") == Crossing(8, 6)
    for text in ("8", "8x", "x6", "8x6x2", "-8x6", ""):
        with pytest.raises(OptionError, match=r"^--crossed: expected starts × draws of noise, such as 8x6, got "):
            parse_crossing(text)
    for text in ("2x6", "6x2", "0x9", "400x400"):
        with pytest.raises(
            OptionError, match=r"^--crossed: expected at least 3 starts and 3 draws of noise, and at most"
        ):
            parse_crossing(text)


# The whole of it.


def ensemble_of(count, path):
    """The sample as so many members, each a little warmer than the one before."""
    written = []
    for number in range(1, count + 1):
        for message in messages(SAMPLE):
            other = changed(message, productDefinitionTemplateNumber=1, type="pf", number=number)
            written.append(changed(other, values(other) * (1 + 1e-4 * (number - 1) ** 2)))
    path.write_bytes(b"".join(written))


(WHOLE,) = re.findall(r"```sh\n(ai-models mosaic [^`]*--crossed [^`]*)```", DOCUMENTATION)
"""The first command of the documentation."""

CHOSEN = ("--output-params", "2t,z500,t850")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The first command of the documentation, run, and what it starts from."""
    path = tmp_path_factory.mktemp("crossed")
    ensemble_of(4, path / "analyses.grib")
    done = elsewhere(path, *shlex.split(WHOLE.replace("\\\n", " "))[1:])
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def store(folder):
    return xarray.open_zarr(folder / "crossed.zarr").load()


def test_the_store_has_the_split_of_its_members(store):
    assert store.number.values.tolist() == list(range(1, 10))
    for name in ("2m_temperature", "geopotential_500", "temperature_850"):
        members = np.moveaxis(store[name].values[0], 1, 0).astype(np.float64)
        crossed = np.swapaxes(members.reshape(3, 3, *members.shape[1:]), 0, 1)
        for kind, wanted, error in zip(PARTS, by_the_book(crossed), errors_by_the_book(crossed), strict=True):
            part, scale = store[f"{name}_{kind}"], members.var(axis=0).max()
            np.testing.assert_allclose(part.values[0], wanted, rtol=1e-5, atol=1e-9 * scale)
            np.testing.assert_allclose(store[f"{name}_{kind}_error"].values[0], error, rtol=1e-5, atol=1e-9 * scale)
    # At the start there is no model.
    start = store["2m_temperature_variance_model"].values[0, 0]
    assert np.abs(start).max() < 1e-6 * store["2m_temperature_variance_starts"].values[0, 0].max()
    assert store["2m_temperature_variance_model"].values[0, 1].mean() > 0
    assert store["geopotential_500_variance_starts"].attrs["units"] == "(m2 s-2)2"
    assert store["2m_temperature_variance_starts"].attrs["units"] == "K2"


def test_netcdf_has_it_too_and_says_what_it_is(folder, store):
    with netCDF4.Dataset(folder / "crossed.nc") as file:
        part = file["t2m_variance_interaction"]
        assert part.long_name == "2m temperature: variance of what start and noise make together"
        assert part.cell_methods == "realization: variance (comment: variance of what start and noise make together)"
        assert part.units == "K2"
        there = np.swapaxes(store["2m_temperature_variance_interaction"].values[0], -1, -2)[..., ::-1, :]
        np.testing.assert_array_equal(part[:], there)


def test_the_picture_is_of_the_means_over_a_region(folder, store, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (command,) = re.findall(r"^ai-models-mosaic (plot variance .*)$", DOCUMENTATION, re.MULTILINE)
    assert main(shlex.split(command)) == 0
    assert (folder / "variance.png").read_bytes().startswith(b"\x89PNG")

    area = area_of("60,-30,30,40")
    for path in ("crossed.zarr", "crossed.nc"):
        axis = origins(open_split([path]), "t850", area).axes[0]
        lines = [container.lines[0].get_ydata() for container in axis.containers]
        inside = (store.latitude >= 30) & (store.latitude <= 60) & ((store.longitude + 30) % 360 <= 70)
        for part, line in zip(PARTS, lines, strict=True):
            weights = np.cos(np.radians(store.latitude)) * inside
            wanted = store[f"temperature_850_{part}"][0].weighted(weights).mean(("latitude", "longitude"))
            np.testing.assert_allclose(line, wanted, rtol=1e-5)

    for words, status, message in (
        ("crossed.zarr --params 2t,z500", 2, "--params: expected some of"),
        ("crossed.zarr", 2, "expected --params for variance"),
        ("crossed.zarr --params msl", 3, "as a run with --crossed writes them; there are those of"),
        (
            "crossed.grib --params 2t",
            3,
            "expected the Zarr store or NetCDF file of a run with --crossed, got crossed.grib",
        ),
    ):
        assert main(["plot", "variance", *words.split(), "--output", "x.png"]) == status
        assert message in capsys.readouterr().err


def test_members_share_starts_and_noise_with_those_of_an_ordinary_run(run: Runner, folder):
    """Member 2 has start 2 and noise 1, member 4 start 1 and noise 2, whatever else is run."""
    ensemble_of(2, run.path("two.grib"))
    second = [message for message in messages(run.path("two.grib")) if message != b""]
    run.path("second.grib").write_bytes(b"".join(second[len(second) // 2 :]))
    run.path("first.grib").write_bytes(b"".join(second[: len(second) // 2]))
    words = (*MINI[:3], "--lead-time", 24, *CHOSEN, "--num-threads", 1)
    for source, number, member in (("second.grib", 1, 2), ("first.grib", 2, 4)):
        run(*words, "--file", source, "--member-number", number, "--path", "usual.grib")
        there = [values(message) for message in of_member(folder / "crossed.grib", member)]
        usual = [values(message) for message in of_member(run.path("usual.grib"), number)]
        assert len(usual) == 6
        assert all((one == other).all() for one, other in zip(usual, there, strict=True))


def test_the_files_are_checked_as_any_others(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["replay", "crossed.grib.provenance.json", "--check", "2", "--params", "2t"]) == 0
    assert "identical to the byte\n  2t   off by 0 K" in capsys.readouterr().out
    card = json.loads((folder / "crossed.grib.provenance.json").read_text())
    assert card["options"]["crossed"] == {"starts": 3, "noises": 3}
    assert card["ensemble_size"] == 9


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--crossed", "3x3"), 2, "--crossed: expected --zarr or --netcdf with it, for the split of the variance"),
        (("--crossed", "5x3", "--zarr", "x.zarr"), 3, "--crossed: expected an input with 5 members or more"),
        (
            ("--crossed", "5x3", "--num-ensemble-members", 3),
            2,
            "--num-ensemble-members: expected 15 with --crossed 5x3",
        ),
        (("--crossed", "3x3", "--member-number", 3), 2, "--member-number: expected it without --crossed"),
        (("--crossed", "3x3", "--extend", 9), 2, "--extend: expected it without --crossed"),
        (("--crossed", "3x3", "--deadline", "60s"), 2, "--deadline: expected it without --crossed"),
        (("--crossed", "3x3", "--mc-error", "1@mean:2t"), 2, "--mc-error: expected it without --crossed"),
        (("--crossed", "3x3", "--antithetic"), 2, "--antithetic: expected it without --crossed"),
        (("--crossed", "3"), 2, "--crossed: expected starts × draws of noise, such as 8x6, got '3'"),
    ],
)
def test_what_cannot_be_crossed_is_refused(run: Runner, folder, words, status, message):
    source = folder / "analyses.grib"
    refused = run.refused(*MINI[:3], "--file", source, "--lead-time", 24, *words, "--path", "x.grib")
    assert (refused.status, message in refused.message) == (status, True), refused.message


KILLED = """
import os, signal, sys
from ai_models.__main__ import _main
from ai_models_mosaic.engines.tensor_states import TensorStates
step, calls = TensorStates.advance, 5
def dying(*arguments):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
TensorStates.advance = dying
sys.argv[0] = "ai-models"
_main(sys.argv[1:])
"""


def test_a_run_killed_within_a_step_is_gone_on_with_to_the_same_split(run: Runner, folder):
    words = shlex.split(WHOLE.replace("\\\n", " ").replace("analyses.grib", str(folder / "analyses.grib")))[1:]
    words += ["--state-interval", "0"]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=run.folder, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not run.path("crossed.zarr").exists()
    run(*words, "--resume")
    assert run.path("crossed.grib").read_bytes() == (folder / "crossed.grib").read_bytes()
    files = [path.relative_to(folder) for path in (folder / "crossed.zarr").rglob("*") if path.is_file()]
    assert len(files) > 100
    assert all(run.path(str(path)).read_bytes() == (folder / path).read_bytes() for path in files)
