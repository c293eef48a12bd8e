"""Products, packing, Zarr and NetCDF of runs that were interrupted, and of several processes' worth of batches."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from toy_run import GRID, START, DyingEngine, ToyEngine, fork, job

from ai_models_mosaic.errors import ForecastError, OutputError
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank, connected, find_launch
from ai_models_mosaic.forecast.resume import ResumeRecord, open_resume_state, state_folder
from ai_models_mosaic.forecast.run import EnsembleRun, NoWriter
from ai_models_mosaic.outputs.calibration import parse_calibration
from ai_models_mosaic.outputs.grib.keys import Labels
from ai_models_mosaic.outputs.grib.packing import Bits, Packing
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.outputs.selection import Selection
from ai_models_mosaic.outputs.writer import Outputs

PACKING = Packing("ccsds", Bits(12, (("msl", 20),)))
SELECTION = Selection(params=("2t", "10u", "10v", "msl"), area=(60, -60, -60, 90))
PRODUCTS = parse_products("mean,spread,quantile:25@2t,probability:10ws>0.5")
PRODUCT_FILES = ["out-mean.grib", "out-probability_above_0.5.grib", "out-quantile_25.grib", "out-spread.grib"]


def outputs_of(folder, made, **more):
    """Members, products, and what else is asked for, in a folder."""
    options = OutputOptions(selection=SELECTION, products=PRODUCTS, packing=PACKING, **more)
    path = f"{folder}/out.grib"
    return OutputPlan(path, options, GRID, made.step_hours, made.steps, made.ensemble.members)


def run(folder, made=None, *, resume=False, engine=None, ranks=None, **more):
    """As `session` does it."""
    made, ranks, engine = made or job(3, 3), ranks or SingleRank(), engine or ToyEngine()
    if ranks.rank > 0:
        EnsembleRun(made, engine, ranks, NoWriter(), None, Watch())()
        return
    plan = outputs_of(folder, made, **more)
    labels = Labels(START, len(made.ensemble.members), {}, packing=PACKING)
    fresh, place = ResumeRecord({"seed": 5}, {"engine": "toy"}), state_folder(plan.anchor, START)
    with open_resume_state(
        place, fresh, made.history, len(made.batches), resume=resume, interval_s=0.0
    ) as resume_state:
        positions = resume_state.record.positions
        with Outputs(plan, labels, resuming=positions is not None) as outputs:
            if positions is not None:
                outputs.resume(positions, finished=resume_state.record.finished)
            EnsembleRun(made, engine, ranks, outputs, resume_state, Watch())()
        resume_state.remove()


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.suffix != ".nc"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder, zarr=f"{folder}/out.zarr")
    found = contents(folder)
    assert {"out.grib", *PRODUCT_FILES, "out.zarr/.zmetadata"} <= found.keys()
    return found


@pytest.mark.parametrize(("calls", "workers"), [(1, 2), (2, 0), (5, 2), (6, 0), (9, 2)])
def test_a_run_killed_within_any_step_goes_on_to_the_same_members_products_and_store(tmp_path, whole, calls, workers):
    more = {"zarr": f"{tmp_path}/out.zarr", "workers": workers}
    assert fork(lambda: run(tmp_path, engine=DyingEngine(calls, "die"), **more)) == -signal.SIGKILL
    assert not (tmp_path / "out-mean.grib").exists()
    run(tmp_path, resume=True, **more)
    assert contents(tmp_path) == whole


def test_what_was_made_within_a_step_is_not_made_again(tmp_path, whole):
    with pytest.raises(ForecastError):
        run(tmp_path, engine=DyingEngine(6, "fail"), zarr=f"{tmp_path}/out.zarr")
    engine = DyingEngine(100, "")
    run(tmp_path, resume=True, engine=engine, zarr=f"{tmp_path}/out.zarr")
    assert 100 - engine.calls <= 9 - 5 + 1
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("done", ["nothing", "members", "store"])
def test_a_death_while_files_are_given_their_names_leaves_all_that_is_needed(tmp_path, whole, done, monkeypatch):
    more = {"zarr": f"{tmp_path}/out.zarr", "workers": 0}
    owner, name = {
        "nothing": ("ai_models_mosaic.outputs.grib.files", "MessageFiles.finish"),
        "members": ("ai_models_mosaic.outputs.store.zarr", "ZarrOutput.finish"),
        "store": ("ai_models_mosaic.outputs.writer", "Outputs.__exit__"),
    }[done]

    def dies():
        monkeypatch.setattr(f"{owner}.{name}", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        run(tmp_path, **more)

    assert fork(dies) == -signal.SIGKILL
    run(tmp_path, resume=True, **more)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("when", ["within", "converting", "converted"])
def test_netcdf_of_a_run_that_was_killed_holds_the_same(tmp_path, when, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run(tmp_path / "a", netcdf=f"{tmp_path}/a/out.nc")

    def dies():
        if when != "within":
            name = "convert" if when == "converting" else "Outputs.__exit__"
            monkeypatch.setattr(
                f"ai_models_mosaic.outputs.writer.{name}", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            )
        engine = DyingEngine(5, "die") if when == "within" else None
        run(tmp_path / "b", engine=engine, netcdf=f"{tmp_path}/b/out.nc")

    assert fork(dies) == -signal.SIGKILL
    run(tmp_path / "b", resume=True, netcdf=f"{tmp_path}/b/out.nc")
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [*PRODUCT_FILES, "out.grib", "out.nc"]
    with xarray.open_dataset(tmp_path / "a/out.nc") as first, xarray.open_dataset(tmp_path / "b/out.nc") as second:
        assert not np.isnan(first["t2m_mean"]).any()
        xarray.testing.assert_identical(first, second)


def test_a_store_that_is_gone_is_not_gone_on_with(tmp_path):
    more = {"zarr": f"{tmp_path}/out.zarr"}
    with pytest.raises(ForecastError):
        run(tmp_path, engine=DyingEngine(5, "fail"), **more)
    shutil.rmtree(tmp_path / "out.zarr.partial")
    with pytest.raises(OutputError) as caught:
        run(tmp_path, resume=True, **more)
    assert str(caught.value) == (
        f"cannot write {tmp_path}/out.zarr: expected the store of an unfinished run in {tmp_path}/out.zarr.partial, "
        "got nothing"
    )


def test_two_ranks_with_products_equal_one_process(tmp_path, whole):
    run_two_ranks(tmp_path)
    assert contents(tmp_path) == whole


def run_two_ranks(folder, *words):
    """In processes of their own."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    children = []
    for rank in range(2):
        command = [sys.executable, __file__, str(folder), *map(str, words)]
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        children.append(subprocess.Popen(command, env=environment))
    assert [child.wait() for child in children] == [0, 0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "--path {}/out.grib: expected a file for every initial time, got {}/out.grib for 2020-02-29 18:00:00 and"),
        ({"members": False}, "--path {}/out.grib: expected a file for every initial time"),
        ({"grib": False, "zarr": "x.zarr"}, "--zarr x.zarr: expected a file for every initial time, got x.zarr for"),
        ({"grib": False, "netcdf": "x-{date}.nc"}, "--netcdf x-{{date}}.nc: expected a file for every initial time"),
    ],
)
def test_initial_times_that_would_share_a_file_or_store_are_refused(tmp_path, more, message):
    plan = outputs_of(tmp_path, job(), **{"products_path": None, **more})
    if not plan.options.grib:
        plan = OutputPlan(None, plan.options, GRID, 24, 2, (1,))
    with pytest.raises(OutputError) as caught:
        plan.check_apart(Labels(START, 3, {}), [START, START.replace(hour=0)])
    assert str(caught.value).startswith(message.format(tmp_path, tmp_path))
    plan.check_apart(Labels(START, 3, {}), [START])


def test_products_are_told_apart_by_initial_time_too(tmp_path):
    times = [START, START.replace(hour=0)]
    made = job()
    options = OutputOptions(products=PRODUCTS, products_path="{type}.grib")
    with pytest.raises(OutputError, match=r"^--products-path \{type\}.grib: expected a file for every initial time"):
        OutputPlan("{dataTime}.grib", options, GRID, 24, 2, made.ensemble.members).check_apart(
            Labels(START, 3, {}), times
        )
    options = OutputOptions(products=PRODUCTS, zarr="{date}{time}.zarr")
    OutputPlan("{dataTime}.grib", options, GRID, 24, 2, (1, 2)).check_apart(Labels(START, 3, {}), times)


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        ("a.grib", {}, "a.grib"),
        ("a.grib", {"members": False, "products": PRODUCTS}, "a.grib"),
        (None, {"zarr": "a.zarr/"}, "a.zarr"),
        (None, {"netcdf": "a.nc"}, "a.nc"),
        ("/dev/null", {}, None),
        ("a.grib", {"products": PRODUCTS, "products_path": "/dev/null"}, None),
        (None, {}, None),
    ],
)
def test_state_is_kept_beside_output_that_can_be_gone_on_with(path, more, expected):
    assert OutputPlan(path, OutputOptions(**more), GRID, 24, 1, (1,)).anchor == expected


if __name__ == "__main__":
    with connected(find_launch()) as joined:
        fitted = {"calibration": parse_calibration(sys.argv[2])} if sys.argv[2:] else {}
        run(sys.argv[1], ranks=joined, zarr=f"{sys.argv[1]}/out.zarr", **fitted)
