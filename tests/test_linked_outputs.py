"""Outputs that are symbolic links: what they lead to is written, and they stay."""

from pathlib import Path

import pytest
from running import MINI, Runner
from test_writer import GRID, PRODUCTS, START, labels, plan, steps_of, write

from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.outputs.grib.files import MessageFiles, check_writable
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.writer import Outputs


@pytest.fixture
def places(tmp_path):
    """A folder of links, and one that they lead to."""
    for name in ("links", "targets"):
        (tmp_path / name).mkdir()
    return tmp_path / "links", tmp_path / "targets"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("state", ["there", "dangling", "of a link"])
def test_a_file_is_written_where_its_link_leads(places, caplog, state):
    links, targets = places
    link, target = links / "x.grib", targets / "y.grib"
    # Relative, as people make them.
    link.symlink_to("../targets/y.grib" if state != "of a link" else "other")
    if state == "of a link":
        (links / "other").symlink_to(target)
    elif state == "there":
        target.write_bytes(b"older")
    check_writable(link)
    files = MessageFiles()
    caplog.set_level("INFO")
    files.append(link, b"message")
    assert caplog.messages == [
        f"{link} is a symbolic link: writing {links / '../targets/y.grib' if state != 'of a link' else target}"
    ]
    assert names(targets) == (["y.grib", "y.grib.partial"] if state == "there" else ["y.grib.partial"])
    assert files.positions() == {str(link): 7}
    files.flush()
    assert files.finish() == [link]
    assert link.is_symlink()
    assert (target.read_bytes(), names(targets)) == (b"message", ["y.grib"])
    assert not [name for name in names(links) if name.endswith(".partial")]


def test_a_run_goes_on_where_its_link_leads(places):
    links, targets = places
    (links / "x.grib").symlink_to(targets / "y.grib")
    first = MessageFiles()
    first.append(links / "x.grib", b"whole")
    positions = first.positions()
    first.append(links / "x.grib", b"cut off")
    first.abandon()
    second = MessageFiles()
    assert second.resume(positions) == [targets / "y.grib.partial"]
    second.finish()
    assert (targets / "y.grib").read_bytes() == b"whole"


def test_links_that_cannot_be_written_through_are_refused_before_the_run(places):
    links, targets = places
    (links / "circle").symlink_to("circle")
    (links / "x.grib").symlink_to(targets / "gone" / "y.grib")
    (links / "folder").symlink_to(targets)
    for name, said in (
        ("circle", "Too many levels of symbolic links"),
        ("x.grib", f"there is no folder {targets}/gone; create it first"),
        ("folder", "it is a folder; expected the name of a file"),
    ):
        with pytest.raises(OutputError) as caught:
            check_writable(links / name)
        assert str(caught.value) == f"cannot write {links / name}: {said}"


@pytest.mark.parametrize("older", [True, False])
def test_stores_products_and_netcdf_are_written_where_their_links_lead(places, caplog, older):
    links, targets = places
    made = ("x.grib", "p.grib", "x.zarr", "x.nc")
    more = {
        "products": PRODUCTS,
        "products_path": f"{links}/p.grib",
        "zarr": f"{links}/x.zarr",
        "netcdf": f"{links}/x.nc",
    }
    if older:
        write(
            plan(
                targets,
                products=PRODUCTS,
                **{k: v.replace("links", "targets") for k, v in more.items() if k != "products"},
            )
        )
    for name in made:
        (links / name).symlink_to(f"../targets/{name}")
    plan(links, **more).check(labels())
    caplog.set_level("INFO")
    outputs = write(plan(links, **more))
    assert outputs.paths == [links / name for name in ("x.grib", "p.grib", "x.nc", "x.zarr")]
    assert names(targets) == names(links) == sorted(made)
    assert all((links / name).is_symlink() and not (targets / name).is_symlink() for name in made)
    for name in made:
        assert f"{links / name} is a symbolic link: writing {links}/../targets/{name}" in caplog.text
    alone = links.parent / "alone"
    alone.mkdir()
    write(plan(alone, **{k: v.replace("links", "alone") if isinstance(v, str) else v for k, v in more.items()}))
    for path in alone.rglob("*"):
        if path.is_file() and path.suffix != ".nc":
            assert (targets / path.relative_to(alone)).read_bytes() == path.read_bytes()


def test_a_store_that_cannot_be_made_where_its_link_leads_is_refused_before_the_run(places):
    links, targets = places
    (links / "x.zarr").symlink_to(targets / "gone" / "y.zarr")
    with pytest.raises(OutputError, match=r"y.zarr.partial: there is no folder .*/targets/gone; create it first$"):
        plan(links, path=None, grib=False, zarr=f"{links}/x.zarr").check(labels())


def test_two_runs_whose_links_lead_to_one_file_do_not_share_it(places):
    links, targets = places
    for name in ("a", "b"):
        for ending in ("grib", "zarr"):
            (links / f"{name}.{ending}").symlink_to(targets / f"x.{ending}")
    steps = list(steps_of(plan(links)))
    with Outputs(plan(links, path="a.grib", zarr=f"{links}/a.zarr", workers=0), labels()) as first:
        first.write(steps[0])
        for more in ({"path": "b.grib"}, {"path": None, "grib": False, "zarr": f"{links}/b.zarr"}):
            with (
                pytest.raises(OutputError, match="another run is writing it; wait for that to end, or choose another"),
                Outputs(plan(links, workers=0, **more), labels()) as second,
            ):
                second.write(steps[0])
        for step in steps[1:]:
            first.write(step)
    assert names(targets) == ["x.grib", "x.zarr"]


def test_initial_times_whose_links_lead_to_one_file_are_refused(places):
    links, targets = places
    for hour in ("0000", "1800"):
        (links / f"{hour}.zarr").symlink_to(targets / "x.zarr")
    made = OutputPlan(None, OutputOptions(grib=False, zarr=f"{links}/{{time}}.zarr"), GRID, 24, 1, (1,))
    with pytest.raises(
        OutputError, match=r"expected a file for every initial time, got .*/0000.zarr for 2020-02-29 18:00"
    ):
        made.check_apart(labels(), [START, START.replace(hour=0)])


def test_a_whole_run_writes_where_its_links_lead_and_knows_that_it_is_complete(
    run: Runner, caplog: pytest.LogCaptureFixture
):
    run.path("archive").mkdir()
    for name in ("f.grib", "f.jsonl"):
        run.path(name).symlink_to(Path("archive") / name)
    words = (*MINI, "--output-params", "2t", "--num-threads", 1, "--lead-time", 24, "--path", "f.grib")
    run(*words, "--progress-file", "f.jsonl", "--resume")
    assert names(run.path("archive")) == ["f.grib", "f.jsonl"]
    assert names(run.folder) == ["archive", "f.grib", "f.grib.provenance.json", "f.jsonl"]
    assert "f.grib is a symbolic link: writing archive/f.grib" in caplog.text
    assert run.path("f.grib").readlink() == Path("archive/f.grib")
    run(*words, "--resume")
    assert "f.grib is complete already: nothing to do" in caplog.text
