"""Inputs that real users met, made from the bundled sample: what is no state is not taken for one, and two are not mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pytest
from running import SAMPLE, Runner, keys, messages, values

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.inputs.fields import Wanted, list_available
from ai_models_mosaic.inputs.grib_messages import find_messages
from ai_models_mosaic.inputs.states import initial_states_of
from ai_models_mosaic.state import InitialState

GRID = LatLonGrid.regular(6)
NEWEST = datetime(2008, 4, 26, 6)
WARM = [channel.param in ("t", "2t") for channel in CHANNELS]
PLAIN = {"setLocalDefinition": 0}
"""Without labels of ECMWF."""


@pytest.fixture(scope="module")
def sample() -> list[bytes]:
    return messages(SAMPLE)


@pytest.fixture(scope="module")
def truth(sample: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The sample's newest state, ``(lon, lat, channel)``."""
    return read(tmp_path_factory.mktemp("sample"), sample)[1].values[-1]


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., dict[int, InitialState]]:
    """Where members start from, of a file with these messages."""
    return lambda found, *members: read(tmp_path, found, members or (1,))


def read(folder: Path, found: Iterable[bytes], members: Sequence[int] = (1,)) -> dict[int, InitialState]:
    path = folder / "input.grib"
    path.write_bytes(b"".join(found))
    return initial_states_of(list_available(find_messages(path)), GRID, (-24, 0), Wanted(time=NEWEST), members)


def warmed(state: InitialState, truth: np.ndarray) -> float:
    """By how much t and 2t are above the sample's everywhere, K; all else must be the sample's."""
    difference = state.values[-1] - truth
    scale = np.ptp(truth, axis=(0, 1))
    assert (np.abs(difference[..., ~np.array(WARM)]) <= 2e-5 * scale[~np.array(WARM)]).all()
    added = difference[..., WARM]
    assert np.ptp(added) < 0.01
    return round(float(added.mean()), 2)


def changed(
    found: Iterable[bytes], *, warm: float = 0.0, where: Callable[[str, int], bool] = lambda name, day: True, **new: Any
) -> list[bytes]:
    """Messages with other keys, set in order, and t and 2t raised, of those that `where` takes by name and day."""
    made = []
    for message in found:
        handle = eccodes.codes_new_from_message(message)
        name, day = eccodes.codes_get_string(handle, "shortName"), eccodes.codes_get_long(handle, "validityDate")
        if where(name, day):
            fields = eccodes.codes_get_values(handle)
            for key, value in new.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set_values(handle, fields + warm * (name in ("t", "2t")))
            made.append(eccodes.codes_get_message(handle))
        eccodes.codes_release(handle)
    return made


def is_t(name: str, day: int) -> bool:
    return name == "t"


def is_not_t(name: str, day: int) -> bool:
    return name != "t"


def member(sample: list[bytes], number: int, **more: Any) -> list[bytes]:
    """A perturbed member that is as many K too warm as its number."""
    labels = {"productDefinitionTemplateNumber": 1, "typeOfEnsembleForecast": 3, "perturbationNumber": number}
    return changed(sample, **{"warm": number, **PLAIN, **labels, **more})


CONTROL = {**PLAIN, "productDefinitionTemplateNumber": 1, "typeOfEnsembleForecast": 1, "perturbationNumber": 0}


# What is no state is as if it were not there.


@pytest.mark.parametrize(
    "labels",
    [
        {**PLAIN, "productDefinitionTemplateNumber": 2, "derivedForecast": 0},
        {**PLAIN, "productDefinitionTemplateNumber": 6, "percentileValue": 90},
        {"productDefinitionTemplateNumber": 8, "typeOfStatisticalProcessing": 1},
        {**PLAIN, "productDefinitionTemplateNumber": 11, "typeOfStatisticalProcessing": 0},
        {"marsType": "em"},
        {"stream": "moda"},
        {"typeOfGeneratingProcess": 9},
    ],
    ids=str,
)
def test_what_was_made_of_several_states_is_as_if_it_were_not_there(sample, truth, started, labels, caplog):
    assert warmed(started(changed(sample, warm=5, **labels) + sample)[1], truth) == 0
    assert caplog.messages == []


@pytest.mark.parametrize(
    "labels", [{"timeRangeIndicator": 123}, {"timeRangeIndicator": 3}, {"marsType": "es"}], ids=str
)
def test_neither_is_it_in_grib1(sample, truth, started, labels):
    first = changed(sample, edition=1)
    assert warmed(started(changed(first, warm=5, **labels) + first)[1], truth) == 0


def test_a_spread_of_some_fields_does_not_stand_beside_the_others(sample, truth, started):
    spread = changed(sample, where=is_t, warm=9, **PLAIN, productDefinitionTemplateNumber=2, derivedForecast=4)
    assert warmed(started(spread + sample)[1], truth) == 0


def test_a_control_is_a_state_beside_the_mean(sample, truth, started):
    mean = changed(sample, warm=5, **PLAIN, productDefinitionTemplateNumber=2, derivedForecast=0)
    assert warmed(started(mean + changed(sample, **CONTROL))[1], truth) == 0


def test_a_file_of_nothing_but_a_mean_is_refused_with_what_it_is(sample, run: Runner):
    mean = changed(sample, **PLAIN, productDefinitionTemplateNumber=2, derivedForecast=0)
    run.path("mean.grib").write_bytes(b"".join(mean))
    refused = run.refused("mosaic", "--variant", "mini", "--file", "mean.grib", "--lead-time", 0)
    assert refused.status == 3
    assert refused.message.endswith(
        "the ensemble mean (template 2) is not a state: the input holds no field to start from. It holds 164 fields of "
        "the ensemble mean (template 2); expected instantaneous fields of an analysis, a control, a member or a "
        "deterministic forecast.\n"
    )


def test_fields_that_only_a_product_has_are_missing_and_the_product_is_named(sample, started):
    mean = changed(sample, where=is_t, **PLAIN, productDefinitionTemplateNumber=2, derivedForecast=0)
    with pytest.raises(InputError) as error:
        started(changed(sample, where=is_not_t) + mean)
    assert str(error.value).startswith("the input lacks 26 of the 164 fields")
    assert str(error.value).endswith(
        "\nLeft out, since they are no states: 26 fields of the ensemble mean (template 2)."
    )


# Of several states, one.


@pytest.mark.parametrize(
    "labels",
    [
        {"dataTime": 530, "stepUnits": "m", "step": 30},
        {"dataTime": 559, "stepUnits": "s", "step": 60},
        {"dataTime": 0, "step": 6},
    ],
    ids=["30 minutes", "60 seconds", "6 hours"],
)
def test_the_shortest_lead_time_counts_to_the_second(sample, truth, started, labels, caplog):
    assert warmed(started(changed(sample, warm=5, **PLAIN, **labels) + sample)[1], truth) == 0
    (warning,) = caplog.messages
    assert warning.startswith(
        "The input has 2 complete states of 2008-04-26 06:00 UTC: taking that of centre ecmf, class rd, stream oper, "
        "expver simu, type an at +0 h, whose lead time is the shortest; left out: centre ecmf at +"
    )


def test_a_forecast_of_half_a_minute_is_not_valid_at_the_full_hour(sample, truth, started):
    assert warmed(started(changed(sample, warm=5, stepUnits="s", step=30) + sample)[1], truth) == 0


def test_of_both_signs_of_a_perturbation_one_is_taken_with_a_warning(sample, truth, started, caplog):
    signs = [member(sample, 1, warm=warm, typeOfEnsembleForecast=sign) for sign, warm in ((2, -1), (3, 1))]
    mixed = [one for pair in zip(*signs, strict=True) for one in pair]
    assert warmed(started(mixed)[1], truth) == -1
    assert caplog.messages == [
        "The input has 2 complete states of 2008-04-26 06:00 UTC: taking that of centre ecmf, perturbed negatively at "
        "+0 h, the first of those that are as near to an analysis; left out: centre ecmf, perturbed positively at +0 h"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"centre": 7}, {"centre": 54}),
        ({"class": "od"}, {"class": "ea"}),
        ({"stream": "oper"}, {"stream": "scda"}),
        ({"expver": "0001"}, {"expver": "0005"}),
        ({**PLAIN, "generatingProcessIdentifier": 81}, {**PLAIN, "generatingProcessIdentifier": 96}),
    ],
    ids=str,
)
def test_a_state_is_all_of_the_source_that_has_all(sample, truth, started, first, second):
    part, whole = changed(sample, where=is_not_t, **first), changed(sample, warm=1, **second)
    for found in (part + whole, whole + part):
        assert warmed(started(found)[1], truth) == 1


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({**PLAIN, "centre": 7}, {**PLAIN, "centre": 54}, ("centre kwbc: 69", "centre cwao: 13")),
        ({"expver": "0001"}, {"expver": "0005"}, ("expver 0001, type an: 69", "expver 0005, type an: 13")),
        ({"type": "an"}, {"type": "fc", "dataTime": 0, "step": 6}, ("type an: 69", "type fc: 13")),
    ],
    ids=["centre", "expver", "type"],
)
def test_a_state_that_only_two_sources_could_make_is_refused_with_both(sample, started, first, second, named):
    found = changed(sample, where=is_not_t, **first) + changed(sample, where=is_t, **second)
    with pytest.raises(InputError) as error:
        started(found)
    assert str(error.value).startswith(
        "the input has all fields that a forecast from 2008-04-26 06:00 UTC needs, but not of one source, and sources "
        "are never mixed:\n  2008-04-25 06:00 UTC, centre "
    )
    assert all(f"{part} of 82 fields, without " in str(error.value) for part in named)


def test_neither_is_a_state_made_of_two_members(sample, started):
    with pytest.raises(
        InputError, match=r"perturbed positively, member 2: 13 of 82 fields, without 2t, 10u, 10v, msl; "
    ):
        started(member(changed(sample, where=is_not_t), 1) + member(changed(sample, where=is_t), 2))


def test_the_states_of_a_history_are_of_one_source_too(sample, truth, started):
    """One centre has the newest state only; another both."""
    newest = changed(sample, where=lambda name, day: day == 20080426, **PLAIN, centre=7)
    assert warmed(started(newest + changed(sample, warm=2, **PLAIN, centre=54))[1], truth) == 2


@pytest.mark.parametrize(
    ("older", "newer", "warnings"),
    [
        ({"class": "od", "stream": "scda"}, {"class": "od", "stream": "oper"}, 0),
        ({"class": "od", "type": "an"}, {"class": "od", "type": "4v"}, 0),
        ({"class": "ea", "expver": "0001"}, {"class": "ea", "expver": "0005"}, 1),
    ],
    ids=["short cut-off", "type", "ERA5T"],
)
def test_a_stream_a_type_or_a_version_may_change_between_two_times(
    sample, truth, started, older, newer, warnings, caplog
):
    found = changed(sample, where=lambda name, day: day == 20080425, **older)
    found += changed(sample, where=lambda name, day: day == 20080426, **newer)
    assert warmed(started(found)[1], truth) == 0
    assert len(caplog.messages) == warnings


def test_a_history_of_two_classes_is_refused(sample, started):
    found = changed(sample, where=lambda name, day: day == 20080425, **{"class": "ea"})
    found += changed(sample, where=lambda name, day: day == 20080426, **{"class": "od"})
    with pytest.raises(InputError, match=r"class ea, stream oper, expver simu, type an: 82 of 82 fields\n"):
        started(found)


def test_fields_of_step_0_stand_in_for_those_of_the_analysis_it_starts_from_with_a_warning(
    sample, truth, started, caplog
):
    found = changed(sample, where=is_not_t) + changed(sample, where=is_t, type="fc")
    assert warmed(started(found)[1], truth) == 0
    assert caplog.messages[-1] == (
        "The state of 2008-04-26 06:00 UTC is put together from centre ecmf, class rd, stream oper, expver simu, type an "
        "at +0 h; centre ecmf, class rd, stream oper, expver simu, type fc at +0 h"
    )


# Members.


def test_members_start_from_their_own_beside_a_control_that_is_numbered_like_the_first(sample, truth, started):
    control = changed(sample, warm=9, **CONTROL | {"perturbationNumber": 1, "typeOfProcessedData": 3})
    starts = started(control + member(sample, 1) + member(sample, 2), 1, 2, 3)
    assert [warmed(starts[number], truth) for number in (1, 2, 3)] == [1, 2, 1]


def test_an_analysis_is_preferred_to_members_that_are_forecasts(sample, truth, started, caplog):
    forecasts = member(sample, 1, dataTime=0, step=6) + member(sample, 2, dataTime=0, step=6)
    starts = started(forecasts + sample, 1, 2)
    assert [warmed(starts[number], truth) for number in (1, 2)] == [0, 0]
    assert caplog.messages == [
        "Starting from the one state of the input at +0 h, not from its members 1, 2, whose lead time is longer"
    ]


def test_members_are_all_of_one_source(sample, truth, started, caplog):
    found = member(sample, 1) + member(sample, 1, warm=3, centre=7) + member(sample, 2, centre=7)
    starts = started(found, 1, 2)
    assert [warmed(starts[number], truth) for number in (1, 2)] == [1, 1]
    assert "Members 2 of the input are of another source than 1, and are left out" in caplog.messages


# What is not needed does no harm.


def test_a_message_that_is_not_needed_is_not_interpreted(sample, truth, started):
    first = changed(sample, edition=1)
    static = changed(sample[:1], shortName="lsm", year=0, month=0, day=0)
    satellite = changed(sample[:1], productDefinitionTemplateNumber=32)
    climatology = changed(first[:1], timeRangeIndicator=51)
    assert warmed(started([*satellite, *static, *climatology, *sample])[1], truth) == 0
    assert warmed(started([*first, *climatology])[1], truth) == 0


@pytest.mark.parametrize(
    ("before", "between"),
    [(bytes(200), b""), (b"A text header of a centre\n" * 40, b""), (b"This is GRIB\n" * 9999, bytes(99))],
    ids=["zeros", "text", "long text that names GRIB"],
)
def test_what_stands_before_and_between_messages_does_no_harm(sample, truth, started, before, between):
    assert warmed(started([before, between.join(sample)])[1], truth) == 0


@pytest.mark.parametrize("length", [0, 5, 3000, 10**6, 10**17, 2**63])
def test_a_message_of_a_wrong_length_does_no_harm_to_the_others(sample, truth, started, length, caplog):
    broken = sample[3][:8] + length.to_bytes(8, "big") + sample[3][16:]
    assert warmed(started([broken, *sample])[1], truth) == 0
    (warning,) = caplog.messages
    assert warning.startswith("Left out: the message at byte 0")


def test_a_large_message_of_grib1_has_its_length_in_another_unit(tmp_path):
    """Beyond 8 MiB, by ECMWF's convention."""
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
    for key, value in {"Ni": 3600, "Nj": 1801, "bitsPerValue": 16}.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, np.linspace(200, 300, 3600 * 1801))
    large = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    assert len(large) > 2**23
    path = tmp_path / "large.grib"
    path.write_bytes(large + large)
    assert [(one.offset, one.length) for one in find_messages(path)] == [(0, len(large)), (len(large), len(large))]


# What is needed and wrong is told by name.


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (
            {"latitudeOfFirstGridPointInDegrees": -90, "latitudeOfLastGridPointInDegrees": 90},
            "its rows run southwards by their flag (jScansPositively 0), and the other way by the latitudes of the first "
            "and the last; its grid section says regular_ll: Ni 60, Nj 31, numberOfDataPoints 1860, "
            "latitudeOfFirstGridPointInDegrees -90, latitudeOfLastGridPointInDegrees 90, ",
        ),
        ({"Ni": 61}, "61 × 31 points are not the 1860 that it says to have; its grid section says regular_ll: Ni 61, "),
        ({"Nj": 10**6}, "60 × 1000000 points are not the 1860 that it says to have; "),
        ({"numberOfDataPoints": 1859}, "60 × 31 points are not the 1859 that it says to have; "),
        ({"Ni": 10**5, "Nj": 10**4, "numberOfDataPoints": 10**9, "numberOfValues": 10**9}, "1000000000 points"),
        ({"numberOfValues": 5}, "it has 5 values for 1860 points; "),
        ({"Ni": 0}, "its coordinates cannot be made"),
    ],
    ids=["rows", "Ni", "Nj", "points", "a thousand million points", "values", "no columns"],
)
def test_a_grid_section_that_contradicts_itself_is_told_with_the_field(sample, started, labels, problem):
    handle = eccodes.codes_new_from_message(sample[0])
    for key, value in labels.items():
        eccodes.codes_set(handle, key, value)
    broken = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    with pytest.raises(InputError) as error:
        started([broken, *sample[1:]])
    assert str(error.value).startswith("2t valid 2008-04-25 06:00 UTC is not on a usable grid: ")
    assert problem in str(error.value)


@pytest.mark.parametrize("labels", [{"bitsPerValue": 63}, {"numberOfValues": 5}], ids=str)
def test_values_that_do_not_fit_their_grid_are_told_with_the_field(sample, started, labels):
    handle = eccodes.codes_new_from_message(sample[3])
    for key, value in labels.items():
        eccodes.codes_set(handle, key, value)
    broken = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    with pytest.raises(InputError, match=r"^1 input field cannot be used:\n  msl valid 2008-04-25 06:00 UTC: it"):
        started([*sample[:3], broken, *sample[4:]])


# From end to end.


def test_a_forecast_starts_from_the_analysis_of_a_file_with_all_of_that_in_it(sample, run: Runner):
    mean = changed(sample, warm=5, **PLAIN, productDefinitionTemplateNumber=2, derivedForecast=0)
    summed = changed(sample, warm=5, productDefinitionTemplateNumber=8, typeOfStatisticalProcessing=1)
    partial = changed(sample, where=is_not_t, **PLAIN, centre=7)
    run.path("input.grib").write_bytes(b"A text header\n" * 99 + b"".join(mean + summed + partial + sample) + b"GRIB")
    options = ("--lead-time", 0, "--num-ensemble-members", 1, "--path", "out.grib")
    run("mosaic", "--variant", "mini", "--file", "input.grib", *options)
    state = {keys(one, "shortName", "level"): values(one) for one in sample if keys(one, "dataDate") == (20080426,)}
    written = {keys(one, "shortName", "level"): values(one) for one in messages(run.path("out.grib"))}
    assert written.keys() == state.keys()
    for key, field in state.items():
        np.testing.assert_allclose(written[key], field, rtol=0, atol=2e-5 * np.ptp(field))
