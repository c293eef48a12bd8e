"""The miniature world: from what the simulator writes to stores and samples.

The simulator itself needs JAX, in an environment of its own; a stand-in program writes what it would.
"""

import ast
import re
import stat
import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray
from running import messages
from worlds import write_store

from ai_models_mosaic.channels import CHANNELS, LEVELS_HPA, STANDARD_GRAVITY
from ai_models_mosaic.cli import main
from ai_models_mosaic.commands.world import run_of
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.geometry.regrid import ConservativeRegridder
from ai_models_mosaic.training.archive import Archive
from ai_models_mosaic.variants import MINI
from ai_models_mosaic.world import simulation
from ai_models_mosaic.world.sample import write_sample
from ai_models_mosaic.world.simulation import Run, Simulator, invented_soil, make_world
from ai_models_mosaic.world.store import WorldStore

GRID = LatLonGrid.regular(30.0)

STAND_IN = """#!{python}
import argparse, sys
from datetime import datetime, timedelta
from pathlib import Path
import numpy as np
parser = argparse.ArgumentParser()
parser.add_argument("program")
for name in ("output", "seed", "start", "days", "truncation", "spin-up-days", "block-days", "interval-hours"):
    parser.add_argument("--" + name, required=True)
known = parser.parse_args()
folder, days, each = Path(known.output), int(known.days), int(known.block_days)
done = folder / "state"
first = int(done.read_text()) if done.exists() else 0
latitude = 90 - 180 * (np.arange(12) + 0.5) / 12
longitude = np.arange(24) * 15.0
shape = (12, 24)
with open(folder / "static.part", "wb") as file:
    np.savez(file, latitude=latitude, longitude=longitude, orography=np.repeat(latitude[:, None], 24, 1),
             land_sea_mask=np.repeat(latitude[:, None] > 0, 24, 1) * 1.0)
(folder / "static.part").rename(folder / "static.npz")
for block in range(first, -(-days // each)):
    if block == {dies}:
        done.write_text(str(block))
        Path(folder / "died").touch()
        sys.exit("the weather was too wild")
    hours = np.arange(24 * each * block, min(24 * each * (block + 1), 24 * days), 6)
    times = np.datetime64(known.start, "s") + hours.astype("timedelta64[h]")
    fields = dict()
    for index, name in enumerate("2t 10u 10v msl z q t u v w".split()):
        level = np.arange(13)[:, None, None] if index > 3 else 0
        value = 1000.0 * index + hours[:, None, None, None] + level + np.zeros((1, 1, *shape)) + latitude[:, None] / 100
        fields[name] = (value if index > 3 else value[:, 0]).astype("f4")
    with open(folder / f"block-{{block:05d}}.part", "wb") as file:
        np.savez(file, time=times, **fields)
    (folder / f"block-{{block:05d}}.part").rename(folder / f"block-{{block:05d}}.npz")
    done.write_text(str(block + 1))
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(simulation, "POLL_SECONDS", 0.02)


def stand_in(folder: Path, dies: int = -1) -> Simulator:
    path = folder / "python"
    path.write_text(STAND_IN.format(python=sys.executable, dies=dies))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Simulator(path, block_days=2)


def made(folder, runs, simulator, grid=GRID, jobs=1):
    days = []
    make_world(folder, runs, simulator, grid, jobs, days.append)
    return sum(days)


RUN = Run("train", date(2001, 1, 1), 5, 3)


def test_a_run_becomes_a_store_in_the_layout_of_weatherbench(tmp_path):
    assert made(tmp_path, [RUN], stand_in(tmp_path)) == 5
    dataset = xarray.open_zarr(tmp_path / "train.zarr", chunks=None)
    assert dict(dataset.sizes) == {"time": 20, "level": 13, "longitude": 12, "latitude": 7}
    assert dataset.geopotential.dims == ("time", "level", "longitude", "latitude")
    assert dataset["2m_temperature"].dims == ("time", "longitude", "latitude")
    assert dataset.time.values[[0, -1]].astype("datetime64[h]").astype(str).tolist() == [
        "2001-01-01T00",
        "2001-01-05T18",
    ]
    assert dataset.level.values.tolist() == list(LEVELS_HPA)
    assert {dataset[channel.variable].attrs["units"] for channel in CHANNELS} == {channel.units for channel in CHANNELS}
    assert dataset.attrs["source"] == "simulated with jcm (SPEEDY physics, T31, 8 layers): not the Earth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["python", "train.zarr"]


def test_every_field_is_the_simulators_regridded_from_the_south(tmp_path):
    made(tmp_path, [RUN], stand_in(tmp_path))
    archive = Archive(str(tmp_path / "train.zarr"), GRID)
    latitude = 90 - 180 * (np.arange(12) + 0.5) / 12
    source = LatLonGrid(tuple((np.arange(24) * 15.0).tolist()), tuple(latitude[::-1].tolist()))
    rows = ConservativeRegridder(source, GRID)(np.tile(latitude[::-1] / 100, (24, 1)))
    state = archive.state(datetime(2001, 1, 3, 12))
    names = ["2t", "10u", "10v", "msl", "z", "q", "t", "u", "v", "w"]
    for index, channel in enumerate(CHANNELS):
        level = 0 if channel.level_hpa is None else LEVELS_HPA.index(channel.level_hpa)
        expected = 1000.0 * names.index(channel.param) + 60 + level + rows
        np.testing.assert_allclose(state[..., index], expected, rtol=1e-6, err_msg=channel.name)
    static = archive.static_fields()
    np.testing.assert_allclose(static[..., 0], rows * 100 * STANDARD_GRAVITY, rtol=1e-5)
    assert static[:, -1, 1].tolist() == [1.0] * 12
    assert static[:, 0, 1].tolist() == [0.0] * 12


def test_a_simulation_that_died_goes_on(tmp_path):
    with pytest.raises(InputError) as caught:
        made(tmp_path, [RUN], stand_in(tmp_path, dies=1))
    assert re.fullmatch(
        r"the simulation train failed \(exit 1\): the weather was too wild; the same command goes on from its last "
        r"block; its log is .*train\.blocks/log",
        str(caught.value),
    )
    assert not (tmp_path / "train.zarr").exists()
    assert made(tmp_path, [RUN], stand_in(tmp_path)) == 5
    whole = tmp_path / "whole"
    whole.mkdir()
    made(whole, [RUN], stand_in(whole))
    xarray.testing.assert_identical(
        xarray.open_zarr(tmp_path / "train.zarr", chunks=None).load(),
        xarray.open_zarr(whole / "train.zarr", chunks=None).load(),
    )


def test_a_simulator_hears_that_who_started_it_was_killed(tmp_path):
    """It would go on, and the same command start another in its folder."""
    python, gone, began = (tmp_path / name for name in ("python", "gone", "began"))
    python.write_text(
        f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n"
        f"Path({str(began)!r}).touch()\nsys.stdin.read()\nPath({str(gone)!r}).touch()\n"
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    program = (
        "import sys\nfrom datetime import date\nfrom pathlib import Path\n"
        "from ai_models_mosaic.geometry.grid import LatLonGrid\n"
        "from ai_models_mosaic.world.simulation import Run, Simulator, make_world\n"
        "folder = Path(sys.argv[1])\n"
        "run = Run('train', date(2001, 1, 1), 5, 3)\n"
        "make_world(folder, [run], Simulator(folder / 'python'), LatLonGrid.regular(30.0), 1, print)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    wait_for(began)
    assert not gone.exists()
    process.kill()
    process.wait()
    wait_for(gone)


@pytest.mark.parametrize(("parent_stays", "status"), [(True, 0), (False, 1)])
def test_the_simulator_ends_in_good_order_or_with_its_parent(parent_stays, status):
    """Its own function, without the imports of its environment."""
    source = simulation.SIMULATOR.read_text(encoding="utf-8")
    (function,) = [
        ast.get_source_segment(source, node)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "end_with_parent"
    ]
    waits = 0.2 if parent_stays else 60
    program = f"import os, threading, time\n{function}\nend_with_parent()\ntime.sleep({waits})\n"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        if not parent_stays:
            process.stdin.close()
        assert process.wait(timeout=50) == status


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def test_runs_that_are_there_are_not_simulated_again(tmp_path):
    made(tmp_path, [RUN], stand_in(tmp_path))
    assert (
        made(
            tmp_path,
            [RUN, Run("test", date(2002, 1, 1), 2, 4)],
            Simulator(stand_in(tmp_path).python, block_days=2),
            jobs=2,
        )
        == 7
    )
    assert (tmp_path / "test.zarr").exists()


def test_a_finer_grid_than_the_simulators_is_refused(tmp_path):
    message = (
        "the simulator's grid has 24 × 12 points (15°): expected no finer a grid than that, got 60 × 31 points (6°)"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        made(tmp_path, [RUN], stand_in(tmp_path), LatLonGrid.regular(6.0))


def test_a_store_begun_with_other_times_is_not_gone_on_with(tmp_path):
    WorldStore(tmp_path / "a.zarr", GRID, RUN.times(), {}, {})
    with pytest.raises(InputError, match="was begun with other times or another grid"):
        WorldStore(tmp_path / "a.zarr", GRID, Run("a", date(2001, 1, 2), 5, 3).times(), {}, {})


def test_blocks_come_in_their_order(tmp_path):
    store = WorldStore(tmp_path / "a.zarr", GRID, RUN.times(), {}, {})
    with pytest.raises(
        InputError, match=re.escape("a.zarr: expected times from 2001-01-01T00:00:00 on, got 2001-01-02T00:00:00")
    ):
        store.write({}, RUN.times()[4:8])


def test_the_program_takes_the_options_that_it_is_given():
    """The simulator cannot be run here, but its options can be read."""
    tree = ast.parse(simulation.SIMULATOR.read_text(encoding="utf-8"))
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    accepted = {call.args[0].value for call in calls}
    given = {part for part in Simulator(Path("python")).command(RUN, Path("out")) if part.startswith("--")}
    assert given == accepted


def test_the_simulator_imports_nothing_of_the_package():
    """Its environment has another numpy, and not this package."""
    tree = ast.parse(simulation.SIMULATOR.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [module for module in modules if module.startswith("ai_models")]


def test_the_soil_is_invented_by_latitude():
    assert invented_soil(np.array([-80.0, -40.0, 0.0, 20.0, 60.0])).tolist() == [3, 2, 7, 1, 3]


@pytest.mark.parametrize("text", ["train", "train:2001-01-01:540", "train:2001-13-01:540:1", "train:2001-01-01:x:1"])
def test_a_run_that_cannot_be_read_is_refused(text):
    with pytest.raises(
        OptionError,
        match=re.escape(f"--run: expected NAME:START:DAYS:SEED, such as test:2008-01-01:360:4, got '{text}'"),
    ):
        run_of(text)


def test_a_run_is_what_its_text_says():
    assert run_of("a:2001-01-01:5:3") == Run("a", date(2001, 1, 1), 5, 3)
    with pytest.raises(OptionError, match="expected at least one day of a, got 0"):
        run_of("a:2001-01-01:0:3")


def test_the_command_asks_for_its_environment(tmp_path, capsys):
    assert (
        main(
            [
                "world",
                "simulate",
                "--environment",
                str(tmp_path),
                "--output",
                str(tmp_path),
                "--run",
                "a:2001-01-01:5:3",
            ]
        )
        != 0
    )
    assert f"make it with ai-models-mosaic world environment {tmp_path}" in capsys.readouterr().err


def test_the_time_of_a_sample_may_say_its_zone(tmp_path, capsys):
    store = write_store(tmp_path / "mini.zarr", days=1, grid=MINI.architecture.grid)
    words = ["world", "sample", "--store", str(store), "--output", str(tmp_path / "sample.grib"), "--time"]
    assert main([*words, "2001-01-01T07:00+01:00"]) == 0
    with pytest.raises(SystemExit):
        main([*words, "tomorrow"])
    assert "argument --time: expected a time such as 2008-02-01T06, got tomorrow" in capsys.readouterr().err


def test_a_sample_is_the_stores_states_as_analyses(tmp_path):
    store = write_store(tmp_path / "mini.zarr", days=2, grid=MINI.architecture.grid)
    archive = Archive(str(store), MINI.architecture.grid)
    times = [datetime(2001, 1, 1), datetime(2001, 1, 1) + timedelta(hours=24)]
    write_sample(archive, times, tmp_path / "sample.grib")
    found = list(messages(tmp_path / "sample.grib"))
    assert len(found) == 2 * len(CHANNELS)
    index = 82 + [channel.name for channel in CHANNELS].index("temperature_850")
    message = eccodes.codes_new_from_message(found[index])
    assert [
        eccodes.codes_get(message, key) for key in ("shortName", "level", "dataDate", "type", "expver", "class")
    ] == ["t", 850, 20010102, "an", "simu", "rd"]
    values = eccodes.codes_get_values(message).reshape(31, 60)[::-1].T
    field = archive.state(times[1])[..., index - 82]
    np.testing.assert_allclose(values, field, atol=np.ptp(field) / 65535)
