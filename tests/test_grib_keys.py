"""What each kind of message carries: one table, read back with ecCodes from encoded messages."""

import ast
from datetime import datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest
from test_grib_output import Decoded

from ai_models_mosaic.geometry.grid import LatLonGrid, Region
from ai_models_mosaic.outputs.grib import keys
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.params import CHANNEL_FIELDS, FIELDS, named

GRID = LatLonGrid.regular(6.0)
START = datetime(2020, 2, 29, 18)
NONE, MISSING = "not in the message", "missing"

SHARED = {
    "edition": 2,
    "tablesVersion": 33,
    "class": "ml",
    "stream": "enfo",
    "expver": "mosa",
    "generatingProcessIdentifier": 1,
    "dataDate": 20200229,
    "dataTime": 1800,
    "endStep": 24,
    "stepType": "instant",
    "gridType": "regular_ll",
    "Ni": 60,
    "Nj": 31,
    "latitudeOfFirstGridPointInDegrees": 90.0,
    "longitudeOfFirstGridPointInDegrees": 0.0,
    "latitudeOfLastGridPointInDegrees": -90.0,
    "longitudeOfLastGridPointInDegrees": 354.0,
    "iDirectionIncrementInDegrees": 6.0,
    "jDirectionIncrementInDegrees": 6.0,
    "packingType": "grid_simple",
    "bitsPerValue": 16,
}
"""Of every message of this file."""

LEVELS = {
    "2t": {"shortName": "2t", "paramId": 167, "typeOfLevel": "heightAboveGround", "level": 2, "levtype": "sfc"},
    "msl": {"shortName": "msl", "paramId": 151, "typeOfLevel": "meanSea", "level": 0, "levtype": "sfc"},
    "z500": {"shortName": "z", "paramId": 129, "typeOfLevel": "isobaricInhPa", "level": 500, "levtype": "pl"},
    "ws850": {"shortName": "ws", "paramId": 10, "typeOfLevel": "isobaricInhPa", "level": 850, "levtype": "pl"},
}
"""By field."""

COLUMNS = (
    *("productDefinitionTemplateNumber", "type", "typeOfGeneratingProcess", "number", "numberOfForecastsInEnsemble"),
    *("derivedForecast", "percentileValue", "quantileValue", "totalNumberOfQuantiles", "probabilityType"),
    *("scaledValueOfLowerLimit", "scaledValueOfUpperLimit"),
)

N = NONE
TABLE = {
    # kind: template, type, process, number, size, derived, percentile, quantile, of, probability, above, below
    "member 3 of 24": (1, "pf", 4, 3, 24, N, N, N, N, N, N, N),
    "member 254 of 254": (1, "pf", 4, 254, 254, N, N, N, N, N, N, N),
    "member 3 of 400": (117, "pf", 4, 3, 400, N, N, N, N, N, N, N),
    "member 300 of 400": (117, "pf", 4, 300, 400, N, N, N, N, N, N, N),
    "member 3 of unknown": (1, "pf", 4, 3, 255, N, N, N, N, N, N, N),
    "member 300 of unknown": (117, "pf", 4, 300, 65535, N, N, N, N, N, N, N),
    "mean of 24": (2, "em", 4, N, 24, 0, N, N, N, N, N, N),
    "mean of 400": (2, "em", 4, N, 255, 0, N, N, N, N, N, N),
    "spread of 24": (2, "es", 4, N, 24, 4, N, N, N, N, N, N),
    "min of 24": (2, "fcmin", 4, N, 24, 8, N, N, N, N, N, N),
    "max of 24": (2, "fcmax", 4, N, 24, 9, N, N, N, N, N, N),
    "percentile:90 of 24": (6, "ed", 4, N, N, N, 90, N, N, N, N, N),
    "quantile:90 of 24": (86, "pb", 4, N, N, N, N, 90, 100, N, N, N),
    "quantile:2.5 of 24": (86, "pb", 4, N, N, N, N, 25, 1000, N, N, N),
    "probability:FIELD>280.5 of 24": (5, "ep", 5, N, N, N, N, N, N, 3, 2805, MISSING),
    "probability:FIELD>=280 of 24": (5, "ep", 5, N, N, N, N, N, N, 3, 280, MISSING),
    "probability:FIELD<280 of 24": (5, "ep", 5, N, N, N, N, N, N, 4, MISSING, 280),
}
"""By kind, the values of `COLUMNS`."""


def encoded(kind, label):
    """A message of a kind such as ``member 3 of 24`` or ``mean of 24``, of a field."""
    what, size = kind.split(" of ")
    size = None if size == "unknown" else int(size)
    (field,) = named(label, "test")
    values = np.linspace(200, 300, GRID.size)
    if what.startswith("member"):
        (channel,) = field.channels
        with GribEncoder(GRID, Labels(START, size, {}), (channel,)) as encoder:
            return encoder.encode(channel, int(what.split(" ")[1]), 24, values).to_bytes()
    (product,) = parse_products(what.replace("FIELD", label))
    with GribEncoder(GRID, Labels(START, size, {}), (), [(product, field)], size) as encoder:
        return encoder.encode_product(product, field, 24, values).to_bytes()


def carried(content, names):
    """The values of keys in a message, read from nothing but its bytes."""
    handle = eccodes.codes_new_from_message(content)
    try:
        return {name: value_of(handle, name) for name in names}
    finally:
        eccodes.codes_release(handle)


def value_of(handle, key):
    if not eccodes.codes_is_defined(handle, key):
        return NONE
    # The missing value of a size of one octet is itself the number that readers show.
    if key.startswith("scaledValue") and eccodes.codes_is_missing(handle, key):
        return MISSING
    return eccodes.codes_get(handle, key)


# Members are written as the channels that they are.
@pytest.mark.parametrize(
    ("kind", "label"), [(kind, label) for kind in TABLE for label in LEVELS if (kind[:6], label) != ("member", "ws850")]
)
def test_each_kind_of_message_carries_what_the_table_says(kind, label):
    expected = {**SHARED, **LEVELS[label], **dict(zip(COLUMNS, TABLE[kind], strict=True))}
    assert carried(encoded(kind, label), expected) == expected


def test_what_differs_by_region_run_and_packing_differs_in_the_keys_that_say_so():
    region = Region.within(GRID, north=60, west=-12, south=30, east=24)
    labels = Labels(datetime(1969, 7, 20, 6), 24, {}, keys.UNTRAINED_EXPVER)
    made = keys.shared_keys(region, labels, keys.member_keys(24, large=False))
    usual = keys.shared_keys(Region.whole(GRID), Labels(START, 24, {}), keys.member_keys(24, large=False))
    assert list(made) == list(usual)
    assert {key: made[key] for key in made if made[key] != usual[key]} == {
        "Ni": 7,
        "Nj": 6,
        "latitudeOfFirstGridPointInDegrees": 60,
        "longitudeOfFirstGridPointInDegrees": 348,
        "latitudeOfLastGridPointInDegrees": 30,
        "longitudeOfLastGridPointInDegrees": 24,
        "expver": "untr",
        "dataDate": 19690720,
        "dataTime": 600,
    }


@pytest.mark.parametrize(
    ("untrained", "bundled", "metadata", "status"),
    [
        (False, False, {}, 0),
        (True, False, {}, 2),
        (False, True, {}, 2),
        (True, True, {}, 2),
        (True, True, {"productionStatusOfProcessedData": "1"}, 1),
    ],
)
def test_what_is_no_weather_forecast_is_a_research_product(untrained, bundled, metadata, status):
    """Code table 1.3: 0 operational, 1 operational test, 2 research."""
    said = keys.labels_of_weights(untrained=untrained, bundled=bundled)
    assert said["expver"] == ("untr" if untrained else "mosa")
    (product,), (field,) = parse_products("mean"), named("2t", "test")
    with GribEncoder(GRID, Labels(START, 3, metadata, **said), (0,), [(product, field)], 3) as encoder:
        member = encoder.encode(0, 1, 24, np.zeros(GRID.size)).to_bytes()
        mean = encoder.encode_product(product, field, 24, np.zeros(GRID.size)).to_bytes()
    for content in (member, mean):
        assert carried(content, ["productionStatusOfProcessedData"]) == {"productionStatusOfProcessedData": status}


def test_every_field_is_named_by_its_keys():
    for field in FIELDS:
        expected = {"shortName": field.param} | ({} if field.level_hpa is None else {"level": field.level_hpa})
        assert keys.field_keys(field) == expected
        assert keys.level_kind(field) == ("sfc" if field.level_hpa is None else "pl")


def test_the_template_decides_which_keys_there_are_and_so_is_set_before_those_of_the_kind():
    for kind in (keys.member_keys(5, large=True), keys.product_keys(parse_products("quantile:10")[0], 5)):
        order = list(keys.shared_keys(Region.whole(GRID), Labels(START, 5, {}), kind))
        template = order.index("productDefinitionTemplateNumber")
        others = [key for key in kind if key != "productDefinitionTemplateNumber"]
        assert all(order.index(key) > template for key in others)


def test_no_key_of_a_message_that_we_decide_is_left_to_the_users_keys():
    """What says which field, member, time or grid a message is of is refused by name, or guarded."""
    decided = {*keys.step_keys(24, 1), *keys.field_keys(CHANNEL_FIELDS[-1]), "dataDate", "dataTime", "Ni", "Nj"}
    decided |= {*keys.member_keys(5, large=False), *keys.product_keys(parse_products("mean")[0], 5)}
    free = {"type", "typeOfGeneratingProcess"}
    assert decided - {*keys.RESERVED, *keys.GUARDED} == free


def test_the_keys_are_plain_and_come_without_eccodes():
    tree = ast.parse(Path(keys.__file__).read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert "eccodes" not in imported
    assert len(imported) > 5


def test_a_key_that_is_refused_leaves_no_message_behind(monkeypatch):
    """As many handles are given back as were made, where a key of the user's is refused half-way."""
    made, released = [], []

    def noted(function, into):
        def call(*arguments):
            result = function(*arguments)
            into.append(result if into is made else arguments[0])
            return result

        return call

    for name in ("codes_clone", "codes_grib_new_from_samples"):
        monkeypatch.setattr(eccodes, name, noted(getattr(eccodes, name), made))
    monkeypatch.setattr(eccodes, "codes_release", noted(eccodes.codes_release, released))
    with pytest.raises(Exception, match="--metadata class=zz: ecCodes refuses it"):
        GribEncoder(GRID, Labels(START, 5, {"class": "zz"}))
    with GribEncoder(GRID, Labels(START, 5, {}), (0, 12)) as encoder:
        assert Decoded(encoder.encode(12, 1, 24, np.zeros(GRID.size)).to_bytes())["number"] == 1
    ours = [handle for handle in made if handle in released]
    assert len(made) >= 6
    assert ours == made
