import logging
from datetime import datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest
from grib_writer import GribWriter
from steps import forecast_step

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.geometry.grid import LatLonGrid, to_grib_order
from ai_models_mosaic.outputs.grib.output import UNTRAINED_EXPVER, GribEncoder, GribOutput, Labels, check_output

COARSE, RELEASED = LatLonGrid.regular(6.0), LatLonGrid.regular(1.5)
START = datetime(2020, 2, 29, 18)
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
Z500, T850 = 4 + 7, 4 + 2 * 13 + 10
# Short name, kind and value of the level of every channel, from the specification of the state.
FIELDS = [
    ("2t", "heightAboveGround", 2),
    ("10u", "heightAboveGround", 10),
    ("10v", "heightAboveGround", 10),
    ("msl", "meanSea", 0),
    *((param, "isobaricInhPa", level) for param in "zqtuvw" for level in LEVELS),
]


class Decoded:
    """A message read by ecCodes, from nothing but its bytes."""

    def __init__(self, content):
        self._handle = eccodes.codes_new_from_message(content)

    def __del__(self):
        eccodes.codes_release(self._handle)

    def __getitem__(self, keys):
        """The value of a key, or the values of several that are separated by spaces."""
        values = tuple(eccodes.codes_get(self._handle, key) for key in keys.split(" "))
        return values if len(values) > 1 else values[0]

    @property
    def values(self):
        return eccodes.codes_get_values(self._handle)

    def coordinates(self):
        """Longitude and latitude of every value, degrees."""
        return eccodes.codes_get_array(self._handle, "longitudes"), eccodes.codes_get_array(self._handle, "latitudes")


def labels(size=5, start=START, **metadata):
    return Labels(start, size, metadata)


def encoded(encoder, channel=Z500, member=2, lead_time_hours=24, values=None):
    values = field(COARSE) if values is None else values
    return encoder.encode(channel, member, lead_time_hours, values).to_bytes()


def field(grid, mean=280.0, amplitude=30.0, seed=0):
    return mean + amplitude * np.random.default_rng(seed).standard_normal(grid.size)


def state(seed=0, members=1, grid=COARSE):
    values = np.random.default_rng(seed).standard_normal((members, *grid.shape, len(CHANNELS)))
    return (values + np.arange(len(CHANNELS))).astype(np.float32)


def messages_in(path):
    """The messages of a file, split by their own lengths."""
    content = path.read_bytes()
    found = []
    while content:
        assert content[:4] == b"GRIB"
        length = int.from_bytes(content[8:16], "big")
        found.append(content[:length])
        assert found[-1][-4:] == b"7777"
        content = content[length:]
    return found


def refused(**metadata):
    with pytest.raises(OutputError) as caught:
        GribEncoder(COARSE, labels(**metadata))
    return str(caught.value)


@pytest.fixture(scope="module")
def encoders():
    """Encoders by grid and size of the ensemble, used by many tests one after the other."""
    kinds = [(COARSE, 5), (COARSE, 255), (COARSE, None), (RELEASED, 5)]
    made = {(grid, size): GribEncoder(grid, labels(size)) for grid, size in kinds}
    yield made
    for encoder in made.values():
        encoder.close()


@pytest.fixture
def encoder(encoders):
    return encoders[COARSE, 5]


# Labels and geometry.


@pytest.mark.parametrize(("grid", "columns", "rows", "spacing"), [(COARSE, 60, 31, 6.0), (RELEASED, 240, 121, 1.5)])
def test_every_field_of_the_state_is_written_with_its_labels_grid_and_values(encoders, grid, columns, rows, spacing):
    corners = [
        f"{angle}Of{which}GridPointInDegrees" for which in ("First", "Last") for angle in ("latitude", "longitude")
    ]
    for channel, (name, kind, level) in enumerate(FIELDS):
        values = field(grid, mean=100 * channel, seed=channel)
        message = Decoded(encoded(encoders[grid, 5], channel, values=values))
        assert message["shortName typeOfLevel level units"] == (name, kind, level, CHANNELS[channel].units)
        assert message["edition tablesVersion class stream type expver"] == (2, 33, "ml", "enfo", "pf", "mosa")
        assert message["productDefinitionTemplateNumber number numberOfForecastsInEnsemble"] == (1, 2, 5)
        assert message["dataDate dataTime step"] == (20200229, 1800, 24)
        assert message["validityDate validityTime"] == (20200301, 1800)
        assert message["gridType Ni Nj numberOfValues"] == ("regular_ll", columns, rows, columns * rows)
        assert message[" ".join(corners)] == (90, 0, -90, 360 - spacing)
        assert message["iDirectionIncrementInDegrees jDirectionIncrementInDegrees"] == (spacing, spacing)
        assert message["iScansNegatively jScansPositively jPointsAreConsecutive"] == (0, 0, 0)
        assert message["packingType bitsPerValue"] == ("grid_simple", 16)
        assert np.abs(message.values - values).max() <= np.ptp(values) / 65535


@pytest.mark.parametrize(
    ("size", "member", "template", "written_size"),
    [
        (5, 5, 1, 5),
        (255, 1, 117, 255),
        (255, 255, 117, 255),
        (None, 1, 1, 255),
        (None, 254, 1, 255),
        (None, 255, 117, 65535),
        (None, 4000, 117, 65535),
    ],
)
def test_members_beyond_254_have_the_template_with_two_octets(encoders, size, member, template, written_size):
    message = Decoded(encoded(encoders[COARSE, size], member=member))
    assert message["productDefinitionTemplateNumber"] == template
    assert message["number numberOfForecastsInEnsemble"] == (member, written_size)
    assert message["shortName level step"] == ("z", 500, 24)


@pytest.mark.parametrize(
    ("start", "hours", "valid"),
    [
        (datetime(2019, 12, 31, 6), 18, (20200101, 0)),
        (datetime(2020, 2, 28, 12), 24, (20200229, 1200)),
        (datetime(1969, 7, 20, 18), 360, (19690804, 1800)),
    ],
)
def test_a_message_is_valid_at_its_start_and_lead_time(start, hours, valid):
    with GribEncoder(COARSE, labels(start=start)) as encoder:
        message = Decoded(encoded(encoder, lead_time_hours=hours))
    assert message["dataDate dataTime step"] == (int(f"{start:%Y%m%d}"), int(f"{start:%H%M}"), hours)
    assert message["validityDate validityTime"] == valid


@pytest.mark.parametrize("grid", [COARSE, RELEASED], ids=["6", "1.5"])
def test_a_field_decodes_at_the_coordinates_that_it_has_in_the_state(encoders, grid, tmp_path):
    longitude, latitude = np.meshgrid(grid.longitude_deg, grid.latitude_deg, indexing="ij")
    pattern = 3 * latitude + longitude / 100  # neither symmetric nor periodic
    values = np.repeat(pattern[None, :, :, None], len(CHANNELS), axis=3).astype(np.float32)
    path = tmp_path / "x.grib"
    with GribWriter(str(path), encoders[grid, 5]) as output:
        output.write(forecast_step(1, 24, (1,), values))
    for content in messages_in(path)[:: len(CHANNELS) // 3]:
        message = Decoded(content)
        east, north = message.coordinates()
        assert np.abs(message.values - (3 * north + east / 100)).max() < 2 * np.ptp(pattern) / 65535
        assert (east[0], north[0]) == (0, 90)
        assert north[1] == 90, "a row is complete before the next begins"
        assert message.values[0] == pytest.approx(270, abs=0.01)
        assert message.values[-1] == pytest.approx(-270 + grid.longitude_deg[-1] / 100, abs=0.01)


# Values.


@pytest.mark.parametrize(
    ("mean", "amplitude"),
    [(0, 1), (2.5e-6, 1e-6), (-5e5, 3e4), (101_325, 900), (9999, 5), (0, 1e-9), (1e8, 1e5)],
)
def test_packing_changes_no_value_by_more_than_documented(encoder, mean, amplitude):
    values = field(COARSE, mean, amplitude)
    values[7] = mean  # 9999 is what ecCodes calls missing
    decoded = Decoded(encoded(encoder, values=values)).values
    assert np.abs(decoded - values).max() <= np.ptp(values) / 65535


def test_a_constant_field_keeps_its_value_and_takes_no_precision_from_the_next(encoder):
    varying = field(COARSE)
    fresh = encoded(encoder, T850, values=varying)
    constant = Decoded(encoded(encoder, T850, values=np.full(COARSE.size, 273.125)))
    assert constant["bitsPerValue"] == 0
    np.testing.assert_array_equal(constant.values, 273.125)
    after = encoded(encoder, T850, values=varying)
    assert Decoded(after)["bitsPerValue"] == 16
    assert after == fresh


def test_messages_are_the_same_byte_for_byte_whatever_was_encoded_before(encoders):
    fields = {0: field(COARSE, 280), 1: np.zeros(COARSE.size), 2: field(COARSE, 1e-6, 1e-7, seed=1)}
    cases = [
        (channel, member, hours, index)
        for channel in (0, Z500, 81)
        for member in (1, 5, 254, 255, 300)
        for hours in (0, 24, 360)
        for index in fields
    ]
    made = [
        {case: encoded(encoders[COARSE, None], *case[:3], fields[case[3]]) for case in cases[::order]}
        for order in (1, -1)
    ]
    assert made[0] == made[1]
    assert len(set(made[0].values())) == len(cases)


def test_two_encoders_do_not_influence_each_other(encoder):
    before = encoded(encoder)
    with GribEncoder(RELEASED, labels(size=None, start=datetime(2001, 1, 1), expver="abcd")) as other:
        theirs = Decoded(encoded(other, values=field(RELEASED)))
    assert theirs["expver dataDate Ni"] == ("abcd", 20010101, 240)
    assert encoded(encoder) == before


# The user's keys.


@pytest.mark.parametrize(
    ("metadata", "changed"),
    [
        ({"expver": "0001", "edition": "2"}, {"expver": "0001", "class": "ml", "edition": 2}),
        ({"class": "rd", "stream": "oper", "type": "fc"}, {"expver": "mosa", "class": "rd", "stream": "oper"}),
        ({"packingType": "grid_ccsds"}, {"packingType": "grid_ccsds", "bitsPerValue": 16}),
    ],
)
def test_the_users_keys_win_over_ours(metadata, changed):
    given = dict(metadata)
    with GribEncoder(COARSE, Labels(START, 5, given)) as encoder:
        message = Decoded(encoded(encoder))
    assert {key: message[key] for key in changed} == changed
    assert message["shortName level number step"] == ("z", 500, 2, 24)
    assert given == metadata


def test_untrained_weights_are_labelled_unless_the_user_labels_them_otherwise():
    for metadata, expver in [({}, "untr"), ({"expver": "0001"}, "0001")]:
        with GribEncoder(COARSE, Labels(START, 5, metadata, UNTRAINED_EXPVER)) as encoder:
            assert Decoded(encoded(encoder))["expver"] == expver


def test_more_bits_that_the_user_asks_for_are_kept_also_after_a_constant_field():
    with GribEncoder(COARSE, labels(bitsPerValue="24")) as encoder:
        for values in (field(COARSE), np.zeros(COARSE.size), field(COARSE)):
            message = Decoded(encoded(encoder, values=values))
        assert message["bitsPerValue"] == 24
        assert np.abs(message.values - values).max() <= np.ptp(values) / (2**24 - 1) + 2e-5


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("edition", "1", "the output is GRIB2: GRIB1 can lose the member number"),
        ("number", "3", "members are chosen with --member-number"),
        ("perturbationNumber", "3", "members are chosen with --member-number"),
        ("numberOfForecastsInEnsemble", "9", "it is set with --num-ensemble-members"),
        ("totalNumber", "9", "it is set with --num-ensemble-members"),
        ("date", "20200101", "the initial time is that of the input"),
        ("dataTime", "0", "the initial time is that of the input"),
        ("step", "6", "steps follow from the variant"),
        ("stepRange", "0-6", "steps follow from the variant"),
        ("shortName", "t", "it differs by field"),
        ("level", "500", "it differs by field"),
        ("levtype", "sfc", "it differs by field"),
        ("bitmapPresent", "1", "values are the forecast's, and none is missing"),
        ("values", "3", "values are the forecast's, and none is missing"),
    ],
)
def test_a_key_that_would_mislabel_the_fields_is_refused(key, value, reason):
    assert refused(**{key: value}) == f"--metadata {key}={value} cannot be honoured: {reason}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("typeOfLevel", "surface"),
        ("parameterNumber", "0"),
        ("hour", "3"),
        ("stepType", "avg"),
        ("Ni", "7"),
        ("jScansPositively", "1"),
        ("latitudeOfFirstGridPointInDegrees", "80"),
        ("productDefinitionTemplateNumber", "0"),
        ("mars.number", "3"),
    ],
)
def test_a_key_that_would_mislabel_the_fields_by_another_name_is_refused(key, value):
    assert refused(**{key: value}).startswith(f"--metadata {key}={value}")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("nonsense", "1", "Key/value not found"),
        ("class", "zz", "Encoding invalid"),
        ("stream", "bogus", "Encoding invalid"),
        ("expver", "1", "Invalid key value"),
        ("expver", "toolong", "Invalid key value"),
        ("generatingProcessIdentifier", "x", "Wrong type while packing"),
    ],
)
def test_a_key_or_value_that_eccodes_does_not_know_is_refused(key, value, said):
    assert refused(**{key: value}) == (
        f"--metadata {key}={value}: ecCodes refuses it ({said}). Expected a GRIB2 key and a value it knows"
    )


def test_a_number_with_a_name_may_be_given_as_either():
    for value in ("7", "kwbc"):
        with GribEncoder(COARSE, labels(centre=value)) as encoder:
            assert encoder.first_message(1).get("centre") == "kwbc"


# Where messages go.


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("plain.grib", "plain.grib"),
        ("{number:03d}.grib", "002.grib"),
        ("out/{number}/{step}.grib", "out/2/24.grib"),
        ("{shortName}{level}-{date}-{time}-{number:02d}-{number}.grib", "z500-20200229-1800-02-2.grib"),
        ("{step:04d}", "0024"),
        ("{class}/{stream}.{type}", "ml/enfo.pf"),
    ],
)
def test_keys_in_braces_name_the_file_of_a_message(encoder, path, expected):
    message = encoder.encode(Z500, 2, 24, field(COARSE))
    assert GribOutput(path, encoder).path_of(message) == Path(expected)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{member}.grib", "{member} is none of them"),
        ("{number.real}", "{number.real} is none of them"),
        ("{number.__class__}", "{number.__class__} is none of them"),
        ("{step[0]}", "{step[0]} is none of them"),
        ("{}", "{} is none of them"),
        ("{0}", "{0} is none of them"),
        ("{number!r}", "{number!r} has a form that is not filled in"),
        ("{number:{step}}", "{number:{step}} has a form that is not filled in"),
        ("{number:999999999d}", "{number:999999999d} has a form that is not filled in"),
        ("{shortName:03d}", "Unknown format code 'd' for object of type 'str'"),
        ("{number}-{", "Single '{' encountered in format string"),
    ],
)
def test_a_placeholder_that_is_no_key_is_refused(encoder, path, message):
    with pytest.raises(OutputError) as caught:
        GribOutput(path, encoder).path_of(encoder.encode(Z500, 2, 24, field(COARSE)))
    assert str(caught.value).startswith(f"--path {path}: expected in braces some of number, perturbationNumber, step, ")
    assert str(caught.value).endswith(f", perhaps with a format such as :03d, and nothing else ({message})")


def test_a_key_of_the_users_own_may_stand_in_braces():
    with GribEncoder(COARSE, Labels(START, 2, {"localDefinitionNumber": "1"}), [Z500]) as encoder:
        message = encoder.encode(Z500, 2, 24, field(COARSE))
        assert GribOutput("{localDefinitionNumber}.grib", encoder).path_of(message) == Path("1.grib")


def test_a_step_is_written_member_by_member_in_their_order_with_channels_in_theirs(encoder, tmp_path):
    path = tmp_path / "x.grib"
    steps = [forecast_step(step, 24 * step, (4, 1), state(step, members=2)) for step in (0, 1)]
    with GribWriter(str(path), encoder) as output:
        for step in steps:
            output.write(step)
            assert not path.exists()
    found = [Decoded(content) for content in messages_in(path)]
    assert [message["step number shortName level"] for message in found] == [
        (hours, member, name, level) for hours in (0, 24) for member in (4, 1) for name, _, level in FIELDS
    ]
    remaining = iter(found)
    for step in steps:
        for fields in step.values:
            for channel in range(len(CHANNELS)):
                values = to_grib_order(fields[..., channel]).ravel()
                assert np.abs(next(remaining).values - values).max() <= np.ptp(values) / 65535


def test_every_file_that_a_path_names_holds_its_own_messages(encoder, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.outputs.grib.files")
    with GribWriter(f"{tmp_path}/{{number:03d}}-{{step}}.grib", encoder) as output:
        for step in (1, 2):
            output.write(forecast_step(step, 24 * step, (3, 1, 2), state(step, members=3)))
    expected = [f"{number:03d}-{hours}.grib" for hours in (24, 48) for number in (3, 1, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    for name in expected:
        found = [Decoded(content) for content in messages_in(tmp_path / name)]
        assert len(found) == len(CHANNELS)
        assert {f"{message['number']:03d}-{message['step']}.grib" for message in found} == {name}
    shown = ", ".join(f"{tmp_path}/{name}" for name in expected[:4])
    assert caplog.messages == [f"Wrote 6 files: {shown}, …"]


def fail(path, encoder, *steps):
    with GribWriter(str(path), encoder) as output:
        for step in steps:
            output.write(step)
        raise KeyError("bug")


def test_a_run_that_fails_leaves_a_partial_file_of_whole_messages_and_the_old_one_as_it_was(encoder, tmp_path, caplog):
    path = tmp_path / "x.grib"
    path.write_bytes(b"complete, from before")
    with pytest.raises(KeyError, match="bug"):
        fail(path, encoder, forecast_step(1, 24, (1,), state()))
    assert path.read_bytes() == b"complete, from before"
    assert len(messages_in(tmp_path / "x.grib.partial")) == len(CHANNELS)
    assert caplog.messages == [f"The run did not finish; what it wrote is in {path}.partial"]


def test_a_run_that_fails_before_it_writes_leaves_nothing_and_says_nothing(encoder, tmp_path, caplog):
    with pytest.raises(KeyError, match="bug"):
        fail(tmp_path / "x.grib", encoder)
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []


def test_whoever_listens_gets_the_mars_keys_of_every_message_and_its_file(encoder, tmp_path):
    heard = []
    path = f"{tmp_path}/{{number}}.grib"
    with GribWriter(path, encoder, lambda keys, path: heard.append((keys, path.name))) as output:
        output.write(forecast_step(1, 24, (4, 2), state(members=2)))
    assert [name for _, name in heard] == ["4.grib"] * 82 + ["2.grib"] * 82
    common = {"class": "ml", "type": "pf", "stream": "enfo", "expver": "mosa", "domain": "g"}
    common |= {"date": "20200229", "time": "1800", "step": "24"}
    assert heard[0][0] == common | {"number": "4", "levtype": "sfc", "param": "167"}
    assert heard[82 + Z500][0] == common | {"number": "2", "levtype": "pl", "levelist": "500", "param": "129"}
    assert len({tuple(sorted(keys.items())) for keys, _ in heard}) == 164


def check(path, made):
    with GribEncoder(COARSE, made) as encoder:
        check_output(path, encoder)


def test_what_could_not_be_written_is_refused_beforehand_and_nothing_is_left_behind(tmp_path):
    for path, message in [
        (f"{tmp_path}/{{percentileValue}}", "GRIB messages have no key 'percentileValue' (Key/value not found)"),
        (
            f"{tmp_path}/no/{{number}}.grib",
            f"cannot write {tmp_path}/no/1.grib: there is no folder {tmp_path}/no; create it first",
        ),
    ]:
        with pytest.raises(OutputError) as caught:
            check(path, labels())
        assert str(caught.value) == message
    with pytest.raises(OutputError, match="--metadata class=zz: ecCodes refuses it"):
        check(f"{tmp_path}/x.grib", labels(**{"class": "zz"}))
    check(f"{tmp_path}/{{number}}-{{step:03d}}-{{shortName}}.grib", labels())
    assert list(tmp_path.iterdir()) == []
