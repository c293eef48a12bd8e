"""Products are what NumPy makes of the members, under the keys of WMO and MARS."""

import re
from datetime import datetime
from fractions import Fraction

import numpy as np
import pytest
from test_grib_output import Decoded

from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.outputs.grib.keys import product_keys
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels
from ai_models_mosaic.outputs.grib.packing import Bits, Packing
from ai_models_mosaic.outputs.products import Product, compute, parse_products
from ai_models_mosaic.outputs.selection import Selection
from ai_models_mosaic.params import named

GRID = LatLonGrid.regular(30.0)
START = datetime(2020, 2, 29, 18)


def one(text):
    (product,) = parse_products(text)
    return product


def refused(text):
    with pytest.raises(OptionError) as caught:
        parse_products(text)
    return str(caught.value)


def field(label):
    (found,) = named(label, "--x")
    return found


# What is asked for.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean", Product("mean")),
        ("min", Product("minimum")),
        ("maximum", Product("maximum")),
        ("spread@2t/z500", Product("spread", fields=("2t", "z500"))),
        ("quantile:10", Product("quantile", percent="10")),
        ("quantile:2.50", Product("quantile", percent="2.5")),
        ("quantile:0.5%", Product("quantile", percent="0.5")),
        ("quantile:0", Product("quantile", percent="0")),
        ("percentile:90@ws", Product("percentile", percent="90", fields=("ws",))),
        ("probability:2t>300", Product("probability", comparison=">", threshold="300", fields=("2t",))),
        ("prob:t850<=-1.50", Product("probability", comparison="<=", threshold="-1.5", fields=("t850",))),
        ("probability: 10ws >= 15 ", Product("probability", comparison=">=", threshold="15", fields=("10ws",))),
        ("probability:msl<1e5", Product("probability", comparison="<", threshold="100000", fields=("msl",))),
    ],
)
def test_a_product_is_asked_for_in_a_word(text, expected):
    assert one(text) == expected


def test_products_keep_the_order_in_which_they_are_asked_for():
    assert [product.name for product in parse_products("max, mean,quantile:99.9,probability:2t>280.5,prob:2t<0")] == [
        "maximum",
        "mean",
        "quantile_99.9",
        "probability_above_280.5",
        "probability_below_0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("median", "--products: expected mean, spread, min, max, quantile:PERCENT, .* got 'median'"),
        ("", "--products: expected mean, .* got ''"),
        ("mean,mean", "--products: expected each product once, got mean twice in 'mean,mean'"),
        ("quantile:101", "--products: expected a percentage from 0 to 100 in 'quantile:101', got '101'"),
        ("quantile:-1", "--products: expected a percentage from 0 to 100 in 'quantile:-1', got '-1'"),
        (
            "quantile:0.9",
            "--products: 'quantile:0.9' would be 0.9 %: write 'quantile:90.0' if the share is meant, or 'quantile:0.9%'",
        ),
        ("quantile:33.333", "--products: expected at most two decimals of a percent in 'quantile:33.333'"),
        (
            "percentile:2.5",
            "--products: a percentile is a whole number in GRIB, got 'percentile:2.5'; quantile:2.5 can be written",
        ),
        ("probability:2t", "--products: expected mean, .* got 'probability:2t'"),
        ("probability:2t>warm", "--products: expected a number behind the comparison in .*, got 'warm'"),
        ("probability:tp>1", "--products: expected some of 2t, 10u, .*, 10si, ws, .* got 'tp'; .*"),
        ("mean@tp", "--products: expected some of 2t, .* got 'tp'; .*"),
        ("mean@", "--products: expected some of 2t, .* got ''; .*"),
    ],
)
def test_a_product_that_there_is_not_is_refused(text, message):
    assert re.fullmatch(message.replace("(", r"\("), refused(text))


def test_a_product_is_of_the_fields_that_are_written_or_of_those_that_it_names():
    selection = Selection(params=("2t", "t"), levels=(500, 850))
    made = [
        [found.label for found in one(text).fields_of(selection)]
        for text in ("mean", "mean@z300", "mean@ws", "probability:t>280", "probability:10ws>3", "mean@t/ws300/2t")
    ]
    assert made == [
        ["2t", "t500", "t850"],
        ["z300"],
        ["ws500", "ws850"],
        ["t500", "t850"],
        ["10si"],
        ["t500", "t850", "ws300", "2t"],
    ]


def test_probabilities_are_percentages_and_everything_else_is_in_the_units_of_the_field():
    assert one("probability:2t>300").units(field("2t")) == "%"
    assert one("quantile:10").units(field("z500")) == "m**2 s**-2"


# What is computed.


def test_every_product_is_what_numpy_makes_of_the_members():
    members = np.random.default_rng(0).normal(280, 5, (7, 6, 5)).astype(np.float32)
    exact = members.astype(np.float64)
    expected = {
        "mean": exact.mean(axis=0),
        "spread": exact.std(axis=0),
        "min": exact.min(axis=0),
        "max": exact.max(axis=0),
        "quantile:10": np.quantile(exact, 0.1, axis=0),
        "quantile:97.5": np.quantile(exact, 0.975, axis=0),
        "percentile:50": np.median(exact, axis=0),
        "quantile:0": exact.min(axis=0),
        "quantile:100": exact.max(axis=0),
        "probability:2t>281.5": 100 * (exact > 281.5).sum(axis=0) / 7,
        "probability:2t<281.5": 100 * (exact < 281.5).sum(axis=0) / 7,
    }
    made = compute(parse_products(",".join(expected)), members)
    for (name, values), found in zip(expected.items(), made, strict=True):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, values, rtol=1e-13, err_msg=name)


def test_a_quantile_between_two_members_lies_between_them():
    members = np.array([10.0, 40.0, 20.0, 30.0])
    (found,) = compute([one("quantile:25")], members)
    # The quartile of four members is three quarters of the way from the first to the second.
    assert found == 10 + Fraction(3, 4) * 10


def test_a_member_on_the_threshold_counts_where_the_threshold_is_included():
    members = np.array([1.0, 2.0, 2.0, 3.0])
    texts = [f"probability:2t{comparison}2" for comparison in (">", ">=", "<", "<=")]
    assert [float(compute([one(text)], members)[0]) for text in texts] == [25, 75, 25, 75]


def test_the_products_of_one_member_are_itself_without_spread():
    values = np.float32([[270.125, 281.5]])
    made = compute(parse_products("mean,spread,min,max,quantile:10"), values)
    assert [found.tolist() for found in made] == [
        [270.125, 281.5],
        [0, 0],
        [270.125, 281.5],
        [270.125, 281.5],
        [270.125, 281.5],
    ]


def test_the_spread_of_a_large_number_is_not_lost_in_rounding():
    members = (np.float32(500_000) + np.arange(8, dtype=np.float32) / 32)[:, None]
    (found,) = compute([one("spread")], members)
    np.testing.assert_allclose(found, np.std(np.arange(8) / 32), rtol=1e-9)


# How it is labelled.


def message(text, label="2t", values=None, members=5, hours=24, **metadata):
    product, of = one(text), field(label)
    with GribEncoder(GRID, Labels(START, 5, metadata), (), [(product, of)], members) as encoder:
        given = np.linspace(0, 100, GRID.size) if values is None else values
        return Decoded(encoder.encode_product(product, of, hours, given).to_bytes())


@pytest.mark.parametrize(
    ("text", "template", "kind", "process", "keys"),
    [
        ("mean", 2, "em", 4, {"derivedForecast": 0, "numberOfForecastsInEnsemble": 5}),
        ("spread", 2, "es", 4, {"derivedForecast": 4, "numberOfForecastsInEnsemble": 5}),
        ("min", 2, "fcmin", 4, {"derivedForecast": 8, "numberOfForecastsInEnsemble": 5}),
        ("max", 2, "fcmax", 4, {"derivedForecast": 9, "numberOfForecastsInEnsemble": 5}),
        ("quantile:10", 86, "pb", 4, {"quantileValue": 10, "totalNumberOfQuantiles": 100, "quantile": "10:100"}),
        ("quantile:2.5", 86, "pb", 4, {"quantile": "25:1000"}),
        ("quantile:99.99", 86, "pb", 4, {"quantile": "9999:10000"}),
        ("quantile:0", 86, "pb", 4, {"quantile": "0:100"}),
        ("percentile:90", 6, "ed", 4, {"percentileValue": 90}),
        (
            "probability:2t>300.25",
            5,
            "ep",
            5,
            {
                "probabilityType": 3,
                "probabilityTypeName": "Probability of event above lower limit",
                "scaleFactorOfLowerLimit": 2,
                "scaledValueOfLowerLimit": 30025,
                "lowerLimit": 300.25,
                "forecastProbabilityNumber": 1,
                "totalNumberOfForecastProbabilities": 1,
            },
        ),
        (
            "probability:2t<=-3.5",
            5,
            "ep",
            5,
            {
                "probabilityType": 4,
                "probabilityTypeName": "Probability of event below upper limit",
                "scaleFactorOfUpperLimit": 1,
                "scaledValueOfUpperLimit": -35,
                "upperLimit": -3.5,
            },
        ),
    ],
)
def test_a_message_says_which_product_it_holds(text, template, kind, process, keys):
    found = message(text)
    assert found["productDefinitionTemplateNumber type typeOfGeneratingProcess"] == (template, kind, process)
    assert {key: found[key] for key in keys} == keys
    assert found["edition class stream expver"] == (2, "ml", "enfo", "mosa")
    assert found["shortName typeOfLevel level endStep dataDate dataTime"] == (
        "2t",
        "heightAboveGround",
        2,
        24,
        20200229,
        1800,
    )


def test_the_limit_that_is_not_used_is_missing():
    import eccodes

    for text, used, unused in [("probability:2t>1", "Lower", "Upper"), ("probability:2t<1", "Upper", "Lower")]:
        # The message owns its handle.
        found = message(text)
        handle = found._handle
        for which, expected in [(used, 0), (unused, 1)]:
            assert eccodes.codes_is_missing(handle, f"scaledValueOf{which}Limit") == expected
            assert eccodes.codes_is_missing(handle, f"scaleFactorOf{which}Limit") == expected


@pytest.mark.parametrize("text", ["mean", "min", "quantile:10", "percentile:10", "probability:2t>1"])
def test_a_product_has_no_member_and_all_keys_of_mars(text):
    import eccodes

    from ai_models_mosaic.outputs.grib.templates import EncodedMessage

    found = message(text)
    assert EncodedMessage(found._handle).get("step") == 24
    assert not eccodes.codes_is_defined(found._handle, "number")
    assert not eccodes.codes_is_defined(found._handle, "typeOfEnsembleForecast")
    keys = EncodedMessage(found._handle).mars()
    common = {"class": "ml", "stream": "enfo", "expver": "mosa", "step": "24", "levtype": "sfc", "param": "167"}
    assert keys.items() >= common.items()
    assert "number" not in keys


@pytest.mark.parametrize(
    ("label", "param", "kind", "level"),
    [("10si", 207, "heightAboveGround", 10), ("ws850", 10, "isobaricInhPa", 850), ("z50", 129, "isobaricInhPa", 50)],
)
def test_wind_speeds_and_levels_keep_their_names(label, param, kind, level):
    found = message("probability:10ws>3" if label == "10si" else f"probability:{label}>3", label)
    assert found["paramId typeOfLevel level"] == (param, kind, level)


def test_the_size_of_an_ensemble_beyond_254_is_missing_in_its_mean():
    assert message("mean", members=254)["numberOfForecastsInEnsemble"] == 254
    assert message("mean", members=300)["numberOfForecastsInEnsemble"] == 255


def test_the_users_keys_win_but_the_type_stays_that_of_the_product():
    found = message("spread", expver="0001", type="cf")
    assert found["expver type derivedForecast"] == ("0001", "es", 4)


def test_probabilities_survive_packing_to_a_thousandth():
    counts = np.resize(np.arange(52) * 100 / 51, GRID.size)
    found = message("probability:2t>1", values=counts)
    assert np.abs(found.values - counts).max() < 1e-3


def test_packing_is_by_parameter_also_of_products():
    product, of = one("mean"), field("q500")
    packing = Packing("ccsds", Bits(16, (("q", 10),)))
    with GribEncoder(GRID, Labels(START, 5, {}, packing=packing), (), [(product, of)], 5) as encoder:
        found = Decoded(encoder.encode_product(product, of, 24, np.linspace(0, 1e-2, GRID.size)).to_bytes())
    assert found["packingType bitsPerValue"] == ("grid_ccsds", 10)


def test_a_threshold_with_more_digits_than_grib_holds_is_refused():
    with pytest.raises(OptionError) as caught:
        product_keys(one("probability:msl>101325.12345"), 5)
    assert str(caught.value) == "--products: the threshold 101325.12345 has more digits than GRIB can hold"
