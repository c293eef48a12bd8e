"""Whose store it is: one run's own while it is written, and nobody's folder is removed for it."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from test_writer import INDEX, PRODUCTS, labels, plan, state, steps_of, write
from toy_run import fork

from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.outputs.store.folder import StoreFolder
from ai_models_mosaic.outputs.store.zarr import RUN
from ai_models_mosaic.outputs.writer import Outputs


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begin(made, run: str, count: int = 3) -> None:
    """What a run leaves that was killed after so many batches."""

    def killed() -> None:
        with Outputs(made, labels(), run=run) as outputs:
            for step in list(steps_of(made))[:count]:
                outputs.write(step)
            outputs.mark()()
            raise KeyError("killed")

    with pytest.raises(KeyError):
        killed()


def go_on(made, run: str, count: int = 3, **more) -> None:
    with Outputs(made, labels(), run=run, resuming=True) as outputs:
        outputs.resume({}, **more)
        for step in list(steps_of(made))[count:]:
            outputs.write(step)


def zarr_alone(folder: Path, **more):
    return plan(folder, path=None, grib=False, zarr=f"{folder}/x.zarr", **more)


def members_of(store: Path) -> list[int]:
    return np.frombuffer((store / "number" / "0").read_bytes(), dtype=np.uint8).tolist()


# Another run's.


def test_a_store_carries_the_digest_of_its_run_and_the_netcdf_from_it_does_not(tmp_path):
    import netCDF4

    write(zarr_alone(tmp_path, netcdf=f"{tmp_path}/x.nc"), run="aa")
    assert json.loads((tmp_path / "x.zarr" / ".zattrs").read_text())[RUN] == "aa"
    with netCDF4.Dataset(tmp_path / "x.nc") as file:
        assert RUN not in file.ncattrs()


def test_a_run_does_not_go_on_in_the_store_of_another_of_the_same_time_and_shape(tmp_path):
    made = zarr_alone(tmp_path)
    begin(made, "aa")
    begin(made, "bb", count=2)
    before = contents(tmp_path)
    with pytest.raises(OutputError) as caught:
        go_on(made, "aa")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/x.zarr: expected the store of an unfinished run in {tmp_path}/x.zarr.partial, got that "
        "of another. Run without --resume, and name stores by their initial time, such as {date}-{time}.zarr"
    )
    assert contents(tmp_path) == before
    go_on(made, "bb", count=2)
    assert json.loads((tmp_path / "x.zarr" / ".zattrs").read_text())[RUN] == "bb"


SAID_ANEW = {
    ".zgroup": lambda held: b"[" * 100_000,
    "geopotential_500/.zarray": lambda held: held.replace(b"NaN", b"0.0"),
    "geopotential_500/.zattrs": lambda held: b"\xa0" + held,
    "2m_temperature/.zattrs": lambda held: held.replace(b'"K"', b'"C"'),
}


@pytest.mark.parametrize("name", SAID_ANEW)
def test_what_a_store_says_of_its_arrays_is_said_anew_when_a_run_goes_on(tmp_path, name):
    made = zarr_alone(tmp_path)
    begin(made, "aa")
    go_on(made, "aa")
    whole = contents(tmp_path)
    shutil.rmtree(tmp_path / "x.zarr")
    begin(made, "aa")
    damage(tmp_path / "x.zarr.partial" / name, SAID_ANEW[name])
    go_on(made, "aa")
    assert contents(tmp_path) == whole


REFUSED = {
    "another digest": (".zattrs", lambda held: held.replace(b"ai_models_mosaic_run", b"ai_models_mosaic_rum")),
    "cut attributes": (".zattrs", lambda held: held[:50]),
    "no UTF-8": (".zattrs", lambda held: b"\xa0" + held),
    "nested attributes": (".zattrs", lambda held: b"[" * 100_000),
    "a coordinate cut": ("longitude/0", lambda held: held[:-1]),
    "a coordinate of another": ("longitude/0", lambda held: held[::-1]),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_store_whose_run_or_coordinates_are_damaged_is_that_of_another(tmp_path, change):
    made = zarr_alone(tmp_path)
    begin(made, "aa")
    name, how = REFUSED[change]
    damage(tmp_path / "x.zarr.partial" / name, how)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"expected the store of an unfinished run in .*x.zarr.partial, got that of"):
        go_on(made, "aa")
    assert contents(tmp_path) == before


def damage(path: Path, how) -> None:
    held = path.read_bytes()
    assert how(held) != held
    path.write_bytes(how(held))


def test_the_second_of_two_live_runs_on_one_store_is_refused_and_the_first_ends_right(tmp_path):
    made = zarr_alone(tmp_path)
    with Outputs(made, labels(), run="aa") as first:
        for step in steps_of(made):
            first.write(step)
            for resuming in (False, True):
                with (
                    pytest.raises(
                        OutputError, match=r"^cannot write .*/x.zarr: another run is writing it; wait for that"
                    ),
                    Outputs(made, labels(), run="aa", resuming=resuming) as second,
                ):
                    second.resume({})
    alone = tmp_path / "alone"
    alone.mkdir()
    write(zarr_alone(alone), run="aa")
    assert contents(tmp_path / "x.zarr") == contents(alone / "x.zarr")
    # When it has ended, the next may begin.
    write(made, run="bb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "x.zarr"]


def test_a_complete_store_of_another_run_is_not_taken_for_what_was_named_before_a_death(tmp_path):
    made = zarr_alone(tmp_path)
    write(made, run="bb")
    with pytest.raises(OutputError, match=r"expected the store of an unfinished run in .*x.zarr.partial, got nothing"):
        go_on(made, "aa", count=6, finished=True)


def test_a_run_whose_store_has_its_name_leaves_the_one_that_another_has_begun(tmp_path):
    made = zarr_alone(tmp_path)
    write(made, run="aa")
    with Outputs(made, labels(), run="bb") as other:
        go_on(made, "aa", count=6, finished=True)
        for step in steps_of(made):
            other.write(step)
    assert json.loads((tmp_path / "x.zarr" / ".zattrs").read_text())[RUN] == "bb"


# Changed while it is written.


@pytest.mark.parametrize("change", ["removed", "exchanged"])
def test_a_store_that_was_removed_or_exchanged_ends_the_run(tmp_path, change):
    made = zarr_alone(tmp_path, workers=0)
    steps, partial = list(steps_of(made)), tmp_path / "x.zarr.partial"

    def run() -> None:
        with Outputs(made, labels(), run="aa") as outputs:
            outputs.write(steps[0])
            copy = tmp_path / "copy"
            shutil.copytree(partial, copy)
            shutil.rmtree(partial)
            if change == "exchanged":
                copy.rename(partial)
            outputs.write(steps[1])

    with pytest.raises(OutputError, match=r"x.zarr: its partial store was removed while it was being written$"):
        run()
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("chunk", ["2m_temperature/0.1.2.0.0", "geopotential_500_mean/0.2.0.0"])
def test_a_store_that_lacks_a_chunk_does_not_get_its_name(tmp_path, change, chunk):
    made = zarr_alone(tmp_path, workers=0, products=PRODUCTS)

    def run() -> None:
        with Outputs(made, labels()) as outputs:
            for step in steps_of(made):
                outputs.write(step)
            change(tmp_path / "x.zarr.partial" / chunk)

    count = 9 if chunk.startswith("2m") else 3
    said = (
        rf"expected {count} chunks of {chunk.split('/')[0]} in .*x.zarr.partial, got {count - 1}: others were removed"
    )
    with pytest.raises(OutputError, match=said):
        run()
    assert not (tmp_path / "x.zarr").exists()


# The user's folders.


@pytest.mark.parametrize("name", ["x.zarr.old", "x.nc.scratch", "x.nc.scratch.old", "x.nc.old"])
def test_no_folder_of_the_users_is_removed(tmp_path, name):
    shutil.copytree(Path(__file__).parent / "data", tmp_path / name)
    before = contents(tmp_path / name)
    for _ in range(2):
        write(zarr_alone(tmp_path, netcdf=f"{tmp_path}/x.nc"))
        write(plan(tmp_path, path=None, grib=False, netcdf=f"{tmp_path}/x.nc"))
    assert contents(tmp_path / name) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "x.nc", "x.zarr"])


def test_a_folder_with_the_name_of_a_partial_store_that_no_run_made_is_left_alone(tmp_path):
    (tmp_path / "x.zarr.partial").mkdir()
    (tmp_path / "x.zarr.partial" / "thesis.tex").write_text("years of work")
    for use in (write, lambda made: go_on(made, "aa")):
        with pytest.raises(
            OutputError, match=r"^cannot write .*: .*x.zarr.partial( is not what a run left;|, got nothing)"
        ):
            use(zarr_alone(tmp_path))
    assert (tmp_path / "x.zarr.partial" / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_took_the_name_during_the_run_is_left_alone(tmp_path):
    made = zarr_alone(tmp_path)

    def run() -> None:
        with Outputs(made, labels()) as outputs:
            for step in steps_of(made):
                outputs.write(step)
            (tmp_path / "x.zarr").mkdir()
            (tmp_path / "x.zarr" / "thesis.tex").write_text("years of work")

    with pytest.raises(OutputError, match=r"x.zarr: there is something of this name that is no Zarr store; it is left"):
        run()
    assert (tmp_path / "x.zarr" / "thesis.tex").read_text() == "years of work"


# A death at any moment of the change of names.


@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize("older", [True, False])
def test_a_death_while_a_store_takes_the_place_of_an_older_one_loses_neither(tmp_path, at, older):
    made = zarr_alone(tmp_path, members=(1, 2))
    if older:
        write(zarr_alone(tmp_path, members=(9,)), run="old")
    alone = tmp_path / "alone"
    alone.mkdir()
    write(zarr_alone(alone, members=(1, 2)), run="aa")

    def dies() -> None:
        calls = 0

        def deadly(ordinary):
            def called(*arguments, **more):
                nonlocal calls
                calls += 1
                if calls == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return ordinary(*arguments, **more)

            return called

        finish = StoreFolder.finish

        def armed(folder):
            for owner, name in ((Path, "rename"), (os, "unlink"), (os, "rmdir"), (os, "fsync")):
                setattr(owner, name, deadly(getattr(owner, name)))
            finish(folder)
            os.kill(os.getpid(), signal.SIGKILL)

        StoreFolder.finish = armed
        write(made, run="aa")

    assert fork(dies) == -signal.SIGKILL
    again = tmp_path / "again"
    shutil.copytree(tmp_path, again, ignore=shutil.ignore_patterns("alone", "again"))
    # Either it goes on, or another begins: then what was there before is there until that is complete.
    go_on(made, "aa", count=3, finished=True)
    assert contents(tmp_path / "x.zarr") == contents(alone / "x.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "alone", "x.zarr"]
    other = zarr_alone(again, members=(5,))
    with Outputs(other, labels(), run="bb") as outputs:
        if older or (again / "x.zarr").exists():
            assert members_of(again / "x.zarr")
        for step in steps_of(other):
            outputs.write(step)
    assert sorted(path.name for path in again.iterdir()) == ["x.zarr"]
    assert not (again / "x.zarr" / ".ai-models-mosaic").exists()


@pytest.mark.parametrize("at", range(1, 5))
def test_a_death_while_the_store_of_a_netcdf_file_is_removed_leaves_the_file(tmp_path, at):
    made = plan(tmp_path, path=None, grib=False, netcdf=f"{tmp_path}/x.nc", members=(1,), steps=1)

    def dies() -> None:
        calls = 0
        ordinary, discard = os.unlink, StoreFolder.discard

        def deadly(*arguments, **more):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return ordinary(*arguments, **more)

        def armed(folder):
            os.unlink = deadly
            discard(folder)

        StoreFolder.discard = armed
        write(made, run="aa")

    assert fork(dies) == -signal.SIGKILL
    with Outputs(made, labels(), run="aa", resuming=True) as outputs:
        outputs.resume({}, finished=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.nc"]
    import netCDF4

    with netCDF4.Dataset(tmp_path / "x.nc") as file:
        np.testing.assert_array_equal(file["2m_temperature"][0, 1, 0], state(1, 1)[..., INDEX["2t"]])
        assert not np.ma.is_masked(file["2m_temperature"][:])
