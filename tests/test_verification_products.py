"""Products of an ensemble are neither members nor forecasts, whoever wrote them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray
from grib_files import message
from miniature_cases import LEADS, NAMES, World, days, forecast, forecast_dataset, stored, truth_dataset
from running import MINI, Runner, changed, keys, messages, values

from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.verification.accumulate import verify
from ai_models_mosaic.verification.grib_files import GribForecasts, GribTruth
from ai_models_mosaic.verification.plan import Plan, find_channels
from ai_models_mosaic.verification.zarr_stores import ZarrForecasts, ZarrTruth

CHANNELS = find_channels(NAMES)
(T850,) = find_channels(["t850"])
(DATE,) = days(1)

INTERVAL = {"typeOfStatisticalProcessing": 1, "lengthOfTimeRange": 24, "indicatorOfUnitForTimeRange": 1}
PRODUCTS = {
    "the ensemble mean": {"productDefinitionTemplateNumber": 2, "derivedForecast": 0},
    "the ensemble spread": {"productDefinitionTemplateNumber": 2, "derivedForecast": 4},
    "the ensemble minimum": {"productDefinitionTemplateNumber": 2, "derivedForecast": 8},
    "a probability": {"productDefinitionTemplateNumber": 5},
    "a percentile": {"productDefinitionTemplateNumber": 6, "percentileValue": 50},
    "a quantile": {"productDefinitionTemplateNumber": 86, "totalNumberOfQuantiles": 2, "quantileValue": 1},
    "an accumulation": {"productDefinitionTemplateNumber": 11, **INTERVAL},
}


def made(number: int | None = None, lead: int = 24, value: float = 250.0, edition: int = 2) -> bytes:
    return message("t", 850, values=value, base=DATE, step_hours=lead, number=number, edition=edition)


def written(path: Path, *parts: bytes) -> str:
    path.write_bytes(b"".join(parts))
    return str(path)


def read(found: GribForecasts) -> tuple[tuple[int, ...], list[float], tuple[str, ...]]:
    """Members, the first value of each, and what was left out."""
    (case,) = found.cases()
    return case.members, case.read(T850)[:, 0, 0, 0].tolist(), case.skipped


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_beside_members_is_left_out_and_counted(tmp_path: Path, name: str):
    product = changed(made(value=1.0), **PRODUCTS[name])
    path = written(tmp_path / "all.grib", product, made(1, value=250.0), made(2, value=260.0), product)
    members, found, skipped = read(GribForecasts(path, [T850]))
    assert members == (1, 2)
    assert found == pytest.approx([250.0, 260.0])
    assert skipped == (f"fields of {name}, left out",) * 2


def test_the_mean_and_spread_of_grib_1_are_left_out_too(tmp_path: Path):
    local = {"setLocalDefinition": 1, "localDefinitionNumber": 1}
    products = [changed(made(value=1.0, edition=1), **local, type=kind, stream="enfo") for kind in ("em", "es")]
    path = written(tmp_path / "one.grib", *products, made(1, edition=1), made(2, edition=1))
    members, _, skipped = read(GribForecasts(path, [T850]))
    assert members == (1, 2)
    assert skipped == ("fields of the ensemble mean, left out", "fields of the ensemble spread, left out")


def test_files_of_nothing_but_products_are_refused_with_what_they_hold(tmp_path: Path):
    mean, spread = (changed(made(), **PRODUCTS[f"the ensemble {name}"]) for name in ("mean", "spread"))
    path = written(tmp_path / "products.grib", mean, spread, spread)
    with pytest.raises(InputError) as caught:
        GribForecasts(path, [T850])
    assert str(caught.value) == (
        f"{path}: expected forecasts of t850, got products, which are no forecasts: "
        "the ensemble spread (2 messages), the ensemble mean (1 message)"
    )


def test_products_of_a_date_without_members_are_counted_too(tmp_path: Path):
    other = changed(made(), dataDate=20191231, **PRODUCTS["the ensemble mean"])
    _, _, skipped = read(GribForecasts(written(tmp_path / "all.grib", other, made(1)), [T850]))
    assert skipped == ("fields of the ensemble mean, left out",)


@pytest.mark.parametrize("edition", [1, 2])
def test_a_deterministic_forecast_beside_members_is_none_of_them(tmp_path: Path, edition: int):
    alone = made(edition=edition)
    if edition == 1:
        alone = changed(alone, setLocalDefinition=1, localDefinitionNumber=1, type="fc", number=0)
    path = written(tmp_path / "all.grib", alone, made(1, edition=edition), made(2, edition=edition))
    members, _, skipped = read(GribForecasts(path, [T850]))
    assert members == (1, 2)
    assert skipped == ("fields of the deterministic forecast, left out",)
    members, found, skipped = read(GribForecasts(written(tmp_path / "one.grib", alone), [T850]))
    assert (members, skipped) == ((0,), ())
    assert found == pytest.approx([250.0])


def test_a_field_that_is_there_twice_counts_once_and_is_told(tmp_path: Path):
    path = written(tmp_path / "all.grib", made(1, value=250.0), made(1, value=260.0))
    _, found, skipped = read(GribForecasts(path, [T850]))
    assert found == pytest.approx([250.0])
    assert skipped == ("fields that are there twice, of which the first counts",)


def test_a_product_is_no_truth(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mean = changed(message("t", 850, values=1.0, base=DATE), **PRODUCTS["the ensemble mean"])
    path = written(tmp_path / "truth.grib", mean, message("t", 850, values=250.0, base=DATE))
    assert GribTruth([path], [T850]).read(T850, [DATE])[0, 0, 0] == pytest.approx(250.0)
    assert caplog.messages == [f"{path}: left out 1 field of the ensemble mean: no analyses"]
    with pytest.raises(InputError, match=r"expected analyses \(step 0\) of t850, got none"):
        GribTruth([written(tmp_path / "mean.grib", mean)], [T850])


def test_a_message_that_is_not_needed_is_not_read_further(tmp_path: Path):
    other = changed(message("q", 850, values=0.0, base=DATE), month=13)
    assert read(GribForecasts(written(tmp_path / "all.grib", other, made(1)), [T850]))[0] == (1,)
    broken = changed(made(1), month=13)
    with pytest.raises(InputError, match="cannot be read as GRIB: "):
        GribForecasts(written(tmp_path / "broken.grib", broken), [T850])


def test_netcdf_among_grib_is_refused(tmp_path: Path):
    written(tmp_path / "a.grib", made(1))
    xarray.Dataset({"t": 1.0}).to_netcdf(tmp_path / "b.grib")
    with pytest.raises(InputError) as caught:
        GribForecasts(str(tmp_path), [T850])
    assert str(caught.value) == f"{tmp_path}/b.grib is a NetCDF file among GRIB files: expected files of one kind"


def test_variables_of_products_in_a_store_are_left_out_and_counted(tmp_path: Path):
    dataset = forecast_dataset(days(2), members=2)
    for name in ("geopotential_mean", "2m_temperature_std", "temperature_850_quantile_90"):
        dataset[name] = dataset["2m_temperature"].mean("number")
    cases = list(ZarrForecasts(stored(dataset, tmp_path / "all.zarr"), CHANNELS).cases())
    assert [case.members for case in cases] == [(1, 2), (1, 2)]
    assert [case.skipped for case in cases] == [("variables of products, left out",) * 3, ()]


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"cell_methods": "realization: standard_deviation"}, "cell_methods realization: standard_deviation"),
        ({"cell_methods": "time: point number: mean"}, "cell_methods number: mean"),
        ({"GRIB_dataType": "es"}, "GRIB_dataType es"),
    ],
)
def test_a_product_under_the_name_of_a_field_is_refused(tmp_path: Path, attributes: dict[str, str], told: str):
    forecasts, truth = forecast_dataset(days(1), members=2).isel(number=0, drop=True), truth_dataset(days(1))
    for dataset in (forecasts, truth):
        dataset["2m_temperature"].attrs.update(attributes)
    expected = (
        f"expected fields of members or of single forecasts, got products of an ensemble: 2m_temperature ({told})"
    )
    with pytest.raises(InputError) as caught:
        ZarrForecasts(stored(forecasts, tmp_path / "f.zarr"), CHANNELS)
    assert str(caught.value) == f"{tmp_path}/f.zarr: {expected}"
    with pytest.raises(InputError, match="got products of an ensemble"):
        ZarrTruth([stored(truth, tmp_path / "t.zarr")], CHANNELS)


def test_labels_of_products_among_the_members_of_a_store_are_none(tmp_path: Path):
    dataset = forecast_dataset([DATE], members=4).assign_coords(number=["p01", "ensemble_mean", "p02", "std"])
    path = stored(dataset, tmp_path / "all.zarr")
    (case,) = ZarrForecasts(path, CHANNELS).cases()
    assert case.members == (1, 2)
    assert case.skipped == ("members called ensemble_mean, left out", "members called std, left out")
    np.testing.assert_array_equal(case.read(T850), forecast(T850, DATE, 4)[[0, 2]])
    only = stored(dataset.isel(number=[1, 3]), tmp_path / "only.zarr")
    with pytest.raises(InputError, match=r"expected members, got products of an ensemble: ensemble_mean, std"):
        ZarrForecasts(only, CHANNELS)


def test_what_is_left_out_is_in_the_account(tmp_path: Path):
    dataset = forecast_dataset(days(2), members=2)
    dataset["geopotential_mean"] = dataset["2m_temperature"].mean("number")
    forecasts = ZarrForecasts(stored(dataset, tmp_path / "all.zarr"), CHANNELS)
    found = verify(forecasts.cases(), World(days(8)), Plan(CHANNELS, spectra=()))
    assert found.skipped == {"variables of products, left out": 1}
    assert (found.members, found.lead_hours) == (2, LEADS)


def truth_of(forecasts: Sequence[bytes]) -> list[bytes]:
    """Analyses that equal the first member at every step, and the initial state."""
    first = [made for made in forecasts if keys(made, "number") == (1,)]
    return [
        changed(made, values(made), productDefinitionTemplateNumber=0, dataDate=day, dataTime=time, step=0, type="an")
        for made in first
        for day, time in [keys(made, "validityDate", "validityTime")]
    ]


def test_a_folder_with_the_products_of_a_run_scores_as_its_members_do(run: Runner, capsys: pytest.CaptureFixture[str]):
    run.path("all").mkdir()
    words = ("--lead-time", 24, "--num-ensemble-members", 2, "--output-params", "2t", "--output-workers", 0)
    run(*MINI, *words, "--path", "all/m.grib", "--products", "mean,spread,quantile:50,percentile:50,probability:2t>280")
    members = messages(run.path("all/m.grib"))
    written(run.path("members.grib"), *members)
    written(run.path("truth.grib"), *truth_of(members))
    scores = []
    for name in ("all", "members.grib"):
        options = ("--channels", "2t", "--no-pictures", "--bootstrap", "2", "--output", f"report-{name}")
        assert main(["verify", "--forecast", f"f={name}", "--truth", "truth.grib", *options]) == 0
        scores.append(run.path(f"report-{name}/scores.csv").read_bytes())
    assert scores[0] == scores[1]
    said = capsys.readouterr().out
    assert "f: 1 initial date, 2 members\n" in said
    assert main(["verify", "--forecast", "all/m-mean.grib", "--truth", "truth.grib", *options]) == 3
    assert "which are no forecasts: " in capsys.readouterr().err
