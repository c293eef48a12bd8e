"""What an operator types: products, a selection, other formats, through the runner."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray
from running import MINI, ROOT, Runner, keys, messages, of_member, values

ENSEMBLE = (*MINI, "--lead-time", 24, "--num-ensemble-members", 3)
FEW = ("--output-params", "2t,10u,10v,z", "--output-levels", 500)


def cfgrib(path, **wanted):
    arguments = {"filter_by_keys": wanted, "indexpath": ""}
    return xarray.open_dataset(path, engine="cfgrib", backend_kwargs=arguments, decode_timedelta=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Members, products, Zarr and NetCDF of one run."""
    from running import elsewhere

    made = tmp_path_factory.mktemp("products")
    products = (
        "mean,spread,min@2t,quantile:90@2t,quantile:10@2t,probability:10ws>5,probability:10ws>10,probability:10ws>15"
    )
    done = elsewhere(
        made, *ENSEMBLE, *FEW, "--bits-per-value", 24, "--products", products, "--path", "x.grib", "--netcdf", "x.nc"
    )
    assert done.returncode == 0, done.stderr
    return made


def members_of(folder, name):
    """A field of all members at 24 h, float64."""
    found = [values(m) for m in messages(folder / "x.grib") if keys(m, "shortName", "step") == (name, 24)]
    return np.stack(found).astype(np.float64)


def product(folder, file, name):
    (found,) = [values(m) for m in messages(folder / file) if keys(m, "shortName", "endStep") == (name, 24)]
    return found


def test_every_product_has_a_file_of_its_own(folder):
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".grib") == [
        "x-mean.grib",
        "x-minimum.grib",
        "x-probability_above_10.grib",
        "x-probability_above_15.grib",
        "x-probability_above_5.grib",
        "x-quantile_10.grib",
        "x-quantile_90.grib",
        "x-spread.grib",
        "x.grib",
    ]


def test_products_are_what_numpy_makes_of_the_members_in_the_file_beside_them(folder):
    temperature = members_of(folder, "2t")
    # 24 bits: what is packed is a few 1e-5 K from what products are made of.
    for name, expected in [
        ("mean", temperature.mean(axis=0)),
        ("spread", temperature.std(axis=0)),
        ("minimum", temperature.min(axis=0)),
        ("quantile_90", np.quantile(temperature, 0.9, axis=0)),
    ]:
        np.testing.assert_allclose(product(folder, f"x-{name}.grib", "2t"), expected, rtol=0, atol=1e-4)
    wind = np.hypot(members_of(folder, "10u"), members_of(folder, "10v"))
    found = {
        keys(m, "lowerLimit"): values(m)
        for limit in (5, 10, 15)
        for m in messages(folder / f"x-probability_above_{limit}.grib")
        if keys(m, "type", "endStep") == ("ep", 24)
    }
    assert set(found) == {(5.0,), (10.0,), (15.0,)}
    for (limit,), values_found in found.items():
        clear = (np.abs(wind - limit) > 1e-3).all(axis=0)
        np.testing.assert_allclose(values_found[clear], 100 * (wind > limit).mean(axis=0)[clear], atol=1e-4)


def test_cfgrib_reads_a_file_per_product_whole(folder):
    mean = cfgrib(folder / "x-mean.grib", typeOfLevel="isobaricInhPa")
    assert set(mean.data_vars) == {"z"}
    assert dict(mean.sizes) == {"step": 2, "latitude": 31, "longitude": 60}
    found = mean.z.sel(step=np.timedelta64(24, "h")).values.ravel()
    np.testing.assert_allclose(found, members_of(folder, "z").mean(axis=0), rtol=1e-5)
    temperature = members_of(folder, "2t")
    for percent in (10, 90):
        quantile = cfgrib(folder / f"x-quantile_{percent}.grib").t2m.sel(step=np.timedelta64(24, "h")).values.ravel()
        np.testing.assert_allclose(quantile, np.quantile(temperature, percent / 100, axis=0), rtol=0, atol=1e-4)


def test_cfgrib_loses_one_of_two_quantiles_in_a_file_which_so_is_refused(folder, tmp_path, run: Runner):
    both = b"".join((folder / f"x-quantile_{percent}.grib").read_bytes() for percent in (10, 90))
    (tmp_path / "both.grib").write_bytes(both)
    assert len(messages(tmp_path / "both.grib")) == 4
    assert cfgrib(tmp_path / "both.grib").t2m.shape == (2, 31, 60)
    more = (*ENSEMBLE, *FEW, "--products", "quantile:10@2t,quantile:90@2t")
    for words, option in [(("--no-members", "--path", "x.grib"), "--path"), (("--products-path", "x.grib"), None)]:
        refused = run.refused(*more, *words)
        option = option or "--products-path"
        assert refused.message == (
            f"ai-models mosaic 0.1.0: {option} x.grib: x.grib would hold quantile_10 and quantile_90 of 2t, of which "
            "cfgrib shows one and loses the other: name the files by product, such as x-{product}.grib\n"
        )


def test_the_example_of_the_documentation_returns_what_it_names(folder, tmp_path):
    text = (ROOT / "docs" / "products.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    for path in folder.glob("x-*.grib"):
        shutil.copy(path, tmp_path / path.name.replace("x-", "out-"))
    shown = "print(sorted(mean.data_vars), len(strong_wind.data_vars), dict(strong_wind.sizes))"
    command = [sys.executable, "-c", f"{snippet}\n{shown}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "['z'] 1 {'step': 2, 'latitude': 31, 'longitude': 60}\n"


def test_earthkit_reads_the_mars_keys_of_products(folder):
    import earthkit.data

    fields = earthkit.data.from_source("file", [str(path) for path in sorted(folder.glob("x-*.grib"))])
    assert sorted(set(fields.metadata("type"))) == ["em", "ep", "es", "fcmin", "pb"]
    assert sorted({field.metadata(namespace="mars")["quantile"] for field in fields.sel(type="pb")}) == [
        "10:100",
        "90:100",
    ]


def test_netcdf_of_the_run_holds_members_and_products(folder):
    with xarray.open_dataset(folder / "x.nc") as dataset:
        assert dataset.number.values.tolist() == [1, 2, 3]
        assert dataset.attrs["experiment_version"] in ("mosa", "untr")
        found = dataset["t2m"].isel(time=1)
        np.testing.assert_allclose(found.values.reshape(3, -1), members_of(folder, "2t"), rtol=0, atol=1e-4)
        mean = dataset["t2m_mean"].isel(time=1)
        np.testing.assert_allclose(mean, found.astype(float).mean("number"), rtol=1e-6)
    for name in ("x.grib", "x-quantile_90.grib", "x.nc"):
        beside = json.loads((folder / f"{name}.provenance.json").read_text())
        assert beside["options"]["output"]["products"][0]["kind"] == "mean"


def test_a_selection_changes_no_value_of_what_is_written(folder, run: Runner):
    run(
        *ENSEMBLE,
        "--bits-per-value",
        24,
        "--member-number",
        2,
        "--output-steps",
        24,
        "--output-workers",
        0,
        "--path",
        "all.grib",
    )
    everything = {keys(m, "shortName", "level"): m for m in messages(run.path("all.grib"))}
    assert len(everything) == 82
    few = [m for m in of_member(folder / "x.grib", 2) if keys(m, "step") == (24,)]
    assert len(few) == 4
    for message in few:
        assert message == everything[keys(message, "shortName", "level")]


def test_only_products_of_a_region_are_written_and_nothing_else(run: Runner):
    few = (*FEW, "--output-area", "72/-12/36/42", "--output-steps", 24, "--packing", "ccsds")
    run(
        *ENSEMBLE, *few, "--products", "mean,max", "--no-members", "--path", "{type}.grib", "--archive-requests",
        "archive.json", "--json",
    )  # fmt: skip
    for kind in ("em", "fcmax"):
        found = messages(run.path(f"{kind}.grib"))
        assert [keys(m, "type", "shortName", "endStep", "Ni", "Nj", "packingType") for m in found] == [
            (kind, name, 24, 10, 7, "grid_ccsds") for name in ("2t", "10u", "10v", "z")
        ]
    requests = json.loads(run.path("archive.json").read_text())
    assert {(request["type"], request["source"], request["expect"]) for request in requests} == {
        ("em", '"em.grib"', 4),
        ("fcmax", '"fcmax.grib"', 4),
    }
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "archive.json", "em.grib", "em.grib.provenance.json", "fcmax.grib", "fcmax.grib.provenance.json"
    ]  # fmt: skip


def test_a_file_of_several_types_is_not_archived(run: Runner):
    refused = run.refused(
        *ENSEMBLE,
        "--products",
        "mean,max",
        "--archive-requests",
        "archive.req",
        "--path",
        "x.grib",
        "--products-path",
        "x-products.grib",
    )
    assert refused.message == (
        "ai-models mosaic 0.1.0: --archive-requests: x-products.grib would hold the types em, fcmax, and a request is "
        "of one: name the files by type, as in --products-path '{type}.grib'\n"
    )


def test_zarr_instead_of_grib(run: Runner):
    run(*ENSEMBLE, *FEW, "--no-grib", "--zarr", "x.zarr")
    assert {path.name for path in run.folder.iterdir()} == {"x.zarr", "x.zarr.provenance.json"}
    with xarray.open_zarr(run.path("x.zarr"), chunks=None) as dataset:
        assert set(dataset.data_vars) == {
            "2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind", "geopotential"
        }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--no-members",), 2, "--no-members: expected --products with it, or nothing would be written"),
        (("--products", "median"), 2, "--products: expected mean, spread, min, max, "),
        (
            ("--output-steps", "12"),
            2,
            "--output-steps: the forecast has lead times 0 to 24 h, every 24 h; it has no 12",
        ),
        (
            ("--output-params", "tp"),
            2,
            "--output-params: expected some of 2t, 10u, 10v, msl, z, q, t, u, v, w, or one ",
        ),
        (
            ("--output-area", "3/3/3/3"),
            2,
            "--output-area: no point of the grid of 60 × 31 points (6°) lies within 3/3/3/3",
        ),
        (
            ("--products", "mean", "--netcdf", "m-{number}.nc", "--member-number", "1,2", "--num-ensemble-members", 4),
            2,
            "by member, such as m-{number}.nc: runs of others would write their products to the same file. Got 2 "
            "members of 4; leave --products out, or {number}",
        ),
        (
            ("--products", "mean", "--path", "{number}.grib", "--products-path", "p.grib", "--member-number", "3"),
            2,
            "such as {number}.grib: runs of others would write their products to the same file. Got 1 member of 3; "
            "leave --products out",
        ),
        (
            ("--products", "mean", "--path", "{number}.grib"),
            6,
            "--path {number}.grib names files by member, which products do not have",
        ),
        (
            ("--path", "absent/{step}/x.grib"),
            6,
            "cannot write absent/x.grib: there is no folder absent; create it first",
        ),
        # In some versions ecCodes takes the key, and fails where there are values.
        (("--metadata", "packingType=grid_png"), 6, "grid_png"),
        (
            ("--zarr", "absent/x.zarr"),
            6,
            "cannot write absent/x.zarr.partial: there is no folder absent; create it first",
        ),
    ],
)
def test_what_cannot_be_written_is_said_before_the_run(run: Runner, words, status, message):
    refused = run.refused(*ENSEMBLE, *words)
    assert (refused.status, list(run.folder.iterdir())) == (status, [])
    assert message in refused.message
