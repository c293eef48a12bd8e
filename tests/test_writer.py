"""Members and products on their way into GRIB files, in worker threads."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from steps import forecast_step
from test_grib_output import Decoded, messages_in

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import OptionError, OutputError
from ai_models_mosaic.geometry.grid import LatLonGrid, to_grib_order
from ai_models_mosaic.outputs.grib.keys import Labels
from ai_models_mosaic.outputs.grib.packing import Packing, parse_bits
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.outputs.selection import Selection
from ai_models_mosaic.outputs.writer import Outputs, StepCollector

GRID = LatLonGrid.regular(30.0)
START = datetime(2020, 2, 29, 18)
MEMBERS = (3, 1, 2)
INDEX = {channel.label: index for index, channel in enumerate(CHANNELS)}
SMALL = Selection(params=("2t", "10u", "10v", "z500", "t850"))
PRODUCTS = parse_products("mean,spread@2t/z500,quantile:25@2t,probability:10ws>8,probability:t850<281")


def labels(packing=Packing(), **metadata):  # noqa: B008
    return Labels(START, 3, metadata, packing=packing)


def plan(folder, *, steps=2, members=MEMBERS, path="x.grib", grid=GRID, **options):
    where = None if path is None else f"{folder}/{path}"
    return OutputPlan(where, OutputOptions(**{"selection": SMALL, **options}), grid, 24, steps, members)


def state(member, step, grid=GRID):
    """A member's fields, all different."""
    values = np.random.default_rng([member, step]).normal(0, 6, (*grid.shape, 82)) + np.arange(82)
    values[..., INDEX["2t"]] += 280
    values[..., INDEX["t850"]] += 240
    return values.astype(np.float32)


def steps_of(made):
    """What the forecast hands out: step by step, in batches of two members."""
    for step in range(made.steps + 1):
        for members in (made.members[:2], made.members[2:]):
            if members:
                yield forecast_step(step, 24 * step, members, np.stack([state(member, step) for member in members]))


def write(made, label=None, **keywords):
    with Outputs(made, label or labels(), **keywords) as outputs:
        for step in steps_of(made):
            outputs.write(step)
    return outputs


def decoded(path):
    return [Decoded(content) for content in messages_in(path)]


def at(field, *, grid=GRID, members=MEMBERS, step=1):
    """A field of all members, ``(member, point)`` in the order of GRIB, float64."""
    return to_grib_order(np.stack([state(member, step, grid)[..., INDEX[field]] for member in members])).astype(float)


# Members.


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_files_are_the_same_to_the_byte_whatever_the_number_of_workers(tmp_path, workers):
    for folder, count in [("serial", 0), ("threads", workers)]:
        (tmp_path / folder).mkdir()
        write(plan(tmp_path / folder, workers=count, products=PRODUCTS, selection=Selection(), steps=1))
    for name in ("x.grib", "x-products.grib"):
        content = (tmp_path / "threads" / name).read_bytes()
        assert len(content) > 10_000
        assert content == (tmp_path / "serial" / name).read_bytes()


def test_only_what_is_chosen_is_written_in_the_order_of_steps_members_and_fields(tmp_path):
    outputs = write(plan(tmp_path, selection=replace(SMALL, steps=(48, 0))))
    found = [message["step number shortName level"] for message in decoded(tmp_path / "x.grib")]
    assert found == [
        (hours, member, *field)
        for hours in (0, 48)
        for member in MEMBERS
        for field in [("2t", 2), ("10u", 10), ("10v", 10), ("z", 500), ("t", 850)]
    ]
    assert outputs.paths == [tmp_path / "x.grib"]


def test_a_region_holds_the_points_of_its_area_at_their_coordinates(tmp_path):
    write(plan(tmp_path, selection=Selection(params=("2t",), area=(60, -40, -30, 65)), steps=0))
    message = decoded(tmp_path / "x.grib")[0]
    assert message["Ni Nj numberOfValues"] == (4, 4, 16)
    corners = "latitudeOfFirstGridPointInDegrees longitudeOfFirstGridPointInDegrees latitudeOfLastGridPointInDegrees"
    assert message[f"{corners} longitudeOfLastGridPointInDegrees"] == (60, 330, -30, 60)
    east, north = message.coordinates()
    where = {(x, y): index for index, (x, y) in enumerate(zip(east % 360, north, strict=True))}
    assert set(where) == {(x, y) for x in (330, 0, 30, 60) for y in (60, 30, 0, -30)}
    values = state(MEMBERS[0], 0)[..., INDEX["2t"]]
    for (x, y), index in where.items():
        assert abs(message.values[index] - values[int(x) // 30, int(y + 90) // 30]) < 1e-3


def test_precision_is_by_parameter_and_its_error_at_most_what_is_documented(tmp_path):
    for method in ("simple", "ccsds"):
        packing = Packing(method, parse_bits("12,z=20"))
        write(plan(tmp_path, packing=packing, steps=0), labels(packing))
        for message in decoded(tmp_path / "x.grib"):
            expected = 20 if message["shortName"] == "z" else 12
            assert message["packingType bitsPerValue"] == (f"grid_{method}", expected)
            name = message["shortName"] + (str(message["level"]) if message["level"] > 10 else "")
            exact = at(name, members=(message["number"],), step=0)[0]
            assert np.abs(message.values - exact).max() <= np.ptp(exact) / (2**expected - 1) + 1e-5


def test_ccsds_decodes_to_the_values_of_simple_packing_also_of_constant_fields(tmp_path):
    fields = np.stack([np.full(GRID.shape, 273.125), np.arange(GRID.size).reshape(GRID.shape)], axis=-1)
    values = np.concatenate([fields, state(1, 1)[..., 2:]], axis=-1).astype(np.float32)
    found = {}
    for method in ("simple", "ccsds"):
        packing = Packing(method)
        made = plan(tmp_path, selection=Selection(params=("2t", "10u", "10v")), packing=packing, members=(1,))
        with Outputs(made, labels(packing)) as outputs:
            for step in (0, 1, 2):
                outputs.write(forecast_step(step, 24 * step, (1,), values[None, ::-1] if step == 1 else values[None]))
        found[method] = [message.values for message in decoded(tmp_path / "x.grib")]
    np.testing.assert_array_equal(found["ccsds"], found["simple"])
    np.testing.assert_array_equal(found["ccsds"][0], 273.125)


# Products.


def test_products_are_those_of_the_members_of_their_step(tmp_path):
    write(plan(tmp_path, products=PRODUCTS, steps=1))
    found = {
        message["endStep type shortName level"]: message.values for message in decoded(tmp_path / "x-products.grib")
    }
    assert len(found) == 2 * (5 + 2 + 1 + 1 + 1)
    for step in (0, 1):
        wind = np.hypot(at("10u", step=step), at("10v", step=step))
        expected = {
            ("em", "2t", 2): at("2t", step=step).mean(axis=0),
            ("em", "t", 850): at("t850", step=step).mean(axis=0),
            ("es", "2t", 2): at("2t", step=step).std(axis=0),
            ("es", "z", 500): at("z500", step=step).std(axis=0),
            ("pb", "2t", 2): np.quantile(at("2t", step=step), 0.25, axis=0),
            ("ep", "10si", 10): 100 * (wind > 8).mean(axis=0),
            ("ep", "t", 850): 100 * (at("t850", step=step) < 281).mean(axis=0),
        }
        for keys, values in expected.items():
            assert np.ptp(values) > 0
            error = np.abs(found[(24 * step, *keys)] - values).max()
            assert error <= np.ptp(values) / 65_535 + 1e-5, (step, keys)


def test_products_of_a_step_are_in_their_file_before_the_next_step_is_made(tmp_path):
    made = plan(tmp_path, products=PRODUCTS)
    with Outputs(made, labels()) as outputs:
        for step in steps_of(made):
            outputs.write(step)
            outputs.mark()()
            partial = tmp_path / "x-products.grib.partial"
            complete = step.step + (len(step.members) == 1)
            assert (len(messages_in(partial)) if partial.exists() else 0) == 10 * complete


def test_without_members_only_products_are_written_to_the_path_itself(tmp_path):
    write(plan(tmp_path, products=PRODUCTS, members=(1, 2)), labels())
    with_members = (tmp_path / "x-products.grib").read_bytes()
    for file in tmp_path.iterdir():
        file.unlink()
    made = OutputPlan(
        f"{tmp_path}/x.grib",
        OutputOptions(selection=SMALL, products=PRODUCTS, members=False),
        GRID,
        24,
        2,
        (1, 2),
    )
    write(made)
    assert [file.name for file in tmp_path.iterdir()] == ["x.grib"]
    assert (tmp_path / "x.grib").read_bytes() == with_members


def test_products_do_not_depend_on_the_order_of_the_members(tmp_path):
    contents = []
    for members in ((1, 2, 3), (2, 3, 1)):
        write(plan(tmp_path, products=PRODUCTS, members=members))
        contents.append((tmp_path / "x-products.grib").read_bytes())
    assert contents[0] == contents[1]


def test_products_can_be_made_from_members_that_were_gathered_elsewhere(tmp_path):
    made = plan(tmp_path, products=PRODUCTS, steps=0)
    write(made)
    expected = (tmp_path / "x-products.grib").read_bytes()
    gathered = np.stack([np.moveaxis(state(member, 0), -1, 0)[list(made.channels)] for member in MEMBERS])
    with Outputs(made, labels()) as outputs:
        outputs.write_products(0, gathered)
    assert (tmp_path / "x-products.grib").read_bytes() == expected


def test_a_step_is_complete_when_its_last_member_has_come(tmp_path):
    made = plan(tmp_path, products=PRODUCTS)
    collector = StepCollector(made)
    for step in (1, 2):
        for member in (1, 3):
            assert collector.add(forecast_step(step, 24 * step, (member,), state(member, step)[None])) is None
        values = collector.add(forecast_step(step, 24 * step, (2,), state(2, step)[None]))
        assert values.shape == (3, len(made.channels), *GRID.shape)
        for index, member in enumerate(MEMBERS):
            expected = np.moveaxis(state(member, step), -1, 0)[list(made.channels)]
            np.testing.assert_array_equal(values[index], expected)


@pytest.mark.parametrize(
    ("path", "products_path", "expected"),
    [
        ("out.grib", None, "out-products.grib"),
        ("out", None, "out-products"),
        ("a.b/out", None, "a.b/out-products"),
        ("{step}.grib", None, "{step}-products.grib"),
        ("{number}.grib", "{type}-{step:03d}.grib", "{type}-{step:03d}.grib"),
        ("/dev/null", None, "/dev/null"),
    ],
)
def test_products_have_files_of_their_own(path, products_path, expected):
    options = OutputOptions(products=PRODUCTS, products_path=products_path)
    assert OutputPlan(path, options, GRID, 24, 1, (1,)).products_path == expected


def test_placeholders_name_the_files_of_products(tmp_path):
    write(plan(tmp_path, products=PRODUCTS, steps=1, products_path=f"{tmp_path}/{{type}}-{{step:03d}}.grib"))
    names = {file.name for file in tmp_path.iterdir()} - {"x.grib"}
    assert names == {f"{kind}-{step}.grib" for kind in ("em", "es", "pb", "ep") for step in ("000", "024")}


# What cannot be done is said before.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"products": parse_products("probability:2t>3,probability:2t>=3")},
            "probability above 3 of 2t is asked for twice",
        ),
        ({"products": parse_products("mean,mean@2t")}, "mean of 2t is asked for twice"),
        ({"selection": Selection(steps=(36,))}, "--output-steps: the forecast has lead times 0 to 48 h, every 24 h"),
        ({"selection": Selection(area=(1, 1, 1, 1))}, "--output-area: no point of the grid of 12 × 7 points (30°)"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(tmp_path, options, message):
    with pytest.raises(OptionError) as caught:
        plan(tmp_path, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"members": False}, "--no-members: expected --products with it, or nothing would be written"),
        ({"grib": False}, "--no-grib: expected --zarr or --netcdf with it, or nothing would be written"),
        ({"products_path": "x"}, "--products-path: expected --products with it, and GRIB to be written"),
        ({"workers": -1}, "--output-workers: expected 0 or more, got -1"),
    ],
)
def test_options_that_would_write_nothing_are_refused(keywords, message):
    with pytest.raises(OptionError) as caught:
        OutputOptions(**keywords)
    assert str(caught.value) == message


def test_what_could_not_be_written_is_refused_before_the_run(tmp_path):
    (tmp_path / "folder").mkdir()
    numbered = plan(tmp_path, path="{number}.grib", products=PRODUCTS)
    cases = [
        (
            numbered,
            f"--path {tmp_path}/{{number}}.grib names files by member, which products do not have: "
            "say where they go with --products-path",
        ),
        (
            plan(tmp_path, products=PRODUCTS, products_path=f"{tmp_path}/no/p.grib"),
            f"cannot write {tmp_path}/no/p.grib: there is no folder {tmp_path}/no; create it first",
        ),
        (
            plan(tmp_path, products=PRODUCTS, products_path=f"{tmp_path}/{{percentileValue}}.grib"),
            "GRIB messages have no key 'percentileValue' (Key/value not found)",
        ),
        (
            plan(tmp_path, zarr=f"{tmp_path}/folder"),
            f"--zarr {tmp_path}/folder: there is something of this name that is no Zarr store; it is left alone",
        ),
        (
            plan(tmp_path, zarr=f"{tmp_path}/{{number}}.zarr"),
            f"--zarr {tmp_path}/{{number}}.zarr: expected in braces some of date, time, perhaps with a format such as "
            ":03d, and nothing else ({number} is none of them)",
        ),
        (
            plan(tmp_path, netcdf=f"{tmp_path}/{{date.nope}}.nc"),
            f"--netcdf {tmp_path}/{{date.nope}}.nc: expected in braces some of date, time, perhaps with a format such "
            "as :03d, and nothing else ({date.nope} is none of them)",
        ),
        (
            plan(tmp_path, netcdf=f"{tmp_path}/no/x.nc"),
            f"cannot write {tmp_path}/no/x.nc: there is no folder {tmp_path}/no; create it first",
        ),
    ]
    for made, message in cases:
        with pytest.raises(OutputError) as caught:
            made.check(labels())
        assert str(caught.value) == message
    plan(tmp_path, products=PRODUCTS, zarr=f"{tmp_path}/{{date}}.zarr", netcdf=f"{tmp_path}/x.nc").check(labels())
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


# What goes wrong.


def test_a_folder_that_vanishes_ends_the_run_with_the_name_of_the_file(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    made = plan(folder, steps=50)

    def run():
        with Outputs(made, labels()) as outputs:
            for step in steps_of(made):
                outputs.write(step)
                outputs.mark()()
                if step.step == 1:
                    shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(OutputError) as caught:
        run()
    assert str(caught.value) == (
        f"cannot write {folder}/x.grib: its partial file was removed while it was being written"
    )


def test_a_worker_that_fails_ends_the_run_and_what_was_complete_stays_valid(tmp_path):
    made = plan(tmp_path, steps=3)

    def run():
        with Outputs(made, labels()) as outputs:
            for step in steps_of(made):
                # A state of the wrong shape can only be noticed where it is encoded.
                outputs.write(replace(step, values=step.values[..., :3]) if step.step == 2 else step)

    with pytest.raises(IndexError):
        run()
    assert [file.name for file in tmp_path.iterdir()] == ["x.grib.partial"]
    assert len(messages_in(tmp_path / "x.grib.partial")) == 2 * 3 * 5


FILLS_UP = """
import resource, signal, sys
from pathlib import Path
import test_writer
from ai_models_mosaic.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
made = test_writer.plan(Path("."), steps=40, products=test_writer.PRODUCTS)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    test_writer.write(made)
except OutputError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_ends_the_run_and_holds_whole_messages(tmp_path):
    (tmp_path / "x.grib").write_bytes(b"complete, from before")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", FILLS_UP], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert ran.stdout.startswith("cannot write x"), ran.stderr
    assert ran.stdout.endswith(" bytes were taken; is the disk full?\n")
    assert (tmp_path / "x.grib").read_bytes() == b"complete, from before"
    for name in ("x.grib.partial", "x-products.grib.partial"):
        assert len(messages_in(tmp_path / name)) > 0


def test_a_run_that_fails_leaves_older_files_as_they_were(tmp_path):
    for name in ("x.grib", "x-products.grib"):
        (tmp_path / name).write_bytes(b"complete")

    def run():
        with Outputs(plan(tmp_path, products=PRODUCTS), labels()) as outputs:
            outputs.write(forecast_step(0, 0, MEMBERS, np.stack([state(member, 0) for member in MEMBERS])))
            outputs.mark()()
            raise KeyError("bug")

    with pytest.raises(KeyError):
        run()
    assert {file.name: file.read_bytes()[:4] for file in tmp_path.iterdir()} == {
        "x.grib": b"comp",
        "x-products.grib": b"comp",
        "x.grib.partial": b"GRIB",
        "x-products.grib.partial": b"GRIB",
    }


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path):
    outputs = write(plan(tmp_path, path=None))
    assert (outputs.paths, list(tmp_path.iterdir())) == ([], [])
