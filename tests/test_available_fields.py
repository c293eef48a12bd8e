"""What is found in GRIB files of both editions, and which history is taken from it."""

from collections import ChainMap
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from grib_files import (
    NOW,
    YESTERDAY,
    complete_history,
    fields_of,
    message,
    two_fields_in_one_message,
)

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.inputs.fields import Wanted, list_available
from ai_models_mosaic.inputs.histories import choose_history
from ai_models_mosaic.inputs.shortcomings import missing_fields

ALL_LEVELS = "50/100/150/200/250/300/400/500/600/700/850/925/1000 hPa"
EVERYTHING = f"2t, 10u, 10v, msl; z, q, t, u, v, w at {ALL_LEVELS}"


@pytest.fixture
def stock(tmp_path):
    """What a file with these messages holds."""

    def of(messages):
        return list_available(fields_of(tmp_path / "input.grib", messages))

    return of


TIMES = [NOW + timedelta(hours=hours) for hours in (-48, -24, -18, 0)]


@pytest.fixture(scope="module")
def four_times(tmp_path_factory):
    """AvailableFields with all channels at 48, 24, 18 and 0 hours before NOW."""
    return list_available(fields_of(tmp_path_factory.mktemp("input") / "input.grib", complete_history(*TIMES).values()))


def without(available, *gone):
    """The same available less some fields, given as (time, label)."""
    states = {
        time: {
            strain: {channel: field for channel, field in fields.items() if (time, CHANNELS[channel].label) not in gone}
            for strain, fields in strains.items()
        }
        for time, strains in available.members[0].items()
    }
    return replace(available, members={0: states})


def states_of(available):
    """All usable fields of the lowest member, by time and channel."""
    members = available.members[min(available.members)] if available.members else {}
    return {time: dict(ChainMap(*strains.values())) for time, strains in members.items()}


def labels(available, time=NOW):
    return {CHANNELS[channel].label for channel in states_of(available).get(time, {})}


def message_of(available, label, time=NOW):
    index = next(index for index, channel in enumerate(CHANNELS) if channel.label == label)
    return states_of(available)[time][index].source.message()


# What is found


@pytest.mark.parametrize("edition", [1, 2])
def test_every_channel_is_found_by_parameter_and_level_among_more_and_in_any_order(stock, edition):
    history = complete_history(YESTERDAY, NOW, edition=edition)
    more = [
        message("tp", edition=edition, step_hours=6),
        message("sp", edition=edition),
        message("t", 775, edition=edition),
        message("r", 500, edition=edition),
        message("z", kind="surface", edition=edition),
    ]
    messages = [*history.values(), *more]
    available = stock([messages[index] for index in np.random.default_rng(1).permutation(len(messages))])
    assert set(states_of(available)) == {YESTERDAY, NOW}
    for (time, param, level), expected in history.items():
        assert message_of(available, param if level is None else f"{param}{level}", time) == expected
    assert all(len(held) == 82 for held in states_of(available).values())
    assert missing_fields(available, 0, (YESTERDAY, NOW)) == {}


def test_both_editions_may_be_mixed_in_one_file(stock):
    first, second = complete_history(edition=1), complete_history(edition=2)
    mixed = {key: (first if index % 2 else second)[key] for index, key in enumerate(first)}
    available = stock(mixed.values())
    assert missing_fields(available, 0, (NOW,)) == {}
    assert choose_history(available, (0,), Wanted()).times == (NOW,)


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize(
    ("param", "kind", "level"),
    [
        ("z", "surface", 0),
        ("t", "surface", 0),
        ("t", "hybrid", 100),
        ("q", "hybrid", 50),
        ("u", "theta", 300),
        ("v", "potentialVorticity", 1000),
        ("t", "depthBelowLand", 100),
        ("u", "heightAboveGround", 300),
        ("w", "heightAboveSea", 1000),
        ("z", "isobaricInhPa", 775),
        ("w", "isobaricInhPa", 5),
    ],
)
def test_a_field_off_the_13_pressure_levels_is_not_mistaken_for_one_on_them(stock, edition, param, kind, level):
    available = stock([message(param, level, kind=kind, edition=edition)])
    assert labels(available) == set()
    assert available.contents.keys() == {param}


def test_a_temperature_2_m_above_ground_is_the_2t_channel_and_never_a_pressure_level(stock):
    """GRIB2 codes 2t as t at 2 m, which ecCodes names 2t; in GRIB1 that is another parameter."""
    assert labels(stock([message("t", 2, kind="heightAboveGround", edition=2)])) == {"2t"}
    assert labels(stock([message("t", 2, kind="heightAboveGround", edition=1)])) == set()


def test_a_surface_parameter_on_a_pressure_level_is_not_the_surface_field(stock):
    assert labels(stock([message("2t", 850, edition=1), message("msl", 1000, edition=1)])) == set()


@pytest.mark.parametrize(
    ("param", "edition", "kind", "level"),
    [
        ("2t", 1, "surface", 0),
        ("2t", 1, "heightAboveGround", 2),
        ("10u", 1, "heightAboveGround", 10),
        ("10v", 1, "surface", 0),
        ("msl", 1, "surface", 0),
        ("msl", 1, "meanSea", 0),
        ("msl", 2, "meanSea", 0),
    ],
)
def test_a_single_level_field_is_found_whatever_kind_of_surface_it_is_labelled_with(stock, param, edition, kind, level):
    assert labels(stock([message(param, level, kind=kind, edition=edition)])) == {param}


@pytest.mark.parametrize("edition", [1, 2])
def test_levels_may_be_given_in_pascals(stock, edition):
    assert labels(stock([message("t", 50_000, kind="isobaricInPa", edition=edition)])) == {"t500"}


def test_a_level_between_two_hectopascals_is_not_rounded_to_a_channel(stock):
    assert labels(stock([message("t", 50_050, kind="isobaricInPa", edition=1)])) == set()


# Times, and which of several fields


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize(
    ("base", "step_hours", "valid"),
    [
        (YESTERDAY, 24, NOW),
        (datetime(2020, 2, 28, 18), 12, datetime(2020, 2, 29, 6)),
        (datetime(2019, 12, 31, 0), 240, datetime(2020, 1, 10)),
        (datetime(2020, 1, 2, 0, 30), 0, datetime(2020, 1, 2, 0, 30)),
    ],
)
def test_the_valid_time_counts_and_not_the_base_time(stock, edition, base, step_hours, valid):
    available = stock([message("t", 500, base=base, step_hours=step_hours, edition=edition)])
    assert available.times == {valid}
    assert labels(available, valid) == {"t500"}
    (held,) = states_of(available)[valid].values()
    assert held.lead_time_s == step_hours * 3600
    assert held.label == f"t500 valid {valid:%Y-%m-%d %H:%M} UTC"


PREFERENCES = {
    "an analysis to a forecast": (
        *(message("t", 500), message("t", 500, base=YESTERDAY, step_hours=24)),
        {},
    ),
    "a shorter lead time": (
        message("t", 500, base=NOW - timedelta(hours=6), step_hours=6, number=9),
        message("t", 500, base=YESTERDAY, step_hours=24, number=9),
        {"number": 9, "step_hours": 6},
    ),
    "geopotential to its height": (message("z", 500), message("gh", 500), {}),
    "msl to prmsl": (message("msl"), message("prmsl"), {}),
}


@pytest.mark.parametrize(("better", "worse", "others"), PREFERENCES.values(), ids=PREFERENCES.keys())
def test_of_several_fields_for_one_channel_the_better_is_taken_in_either_order(stock, better, worse, others):
    for messages in ([better, worse], [worse, better]):
        assert taken(stock, messages, better, **others) == better


def taken(stock, messages, better, **others):
    """What is taken for the channel of a message, of a state that is complete without it."""
    (label,) = labels(stock([better]))
    rest = {
        key: data
        for key, data in complete_history(**others).items()
        if label != (key[1] if key[2] is None else f"{key[1]}{key[2]}")
    }
    state = choose_history(stock([*messages, *rest.values()]), (0,), Wanted()).fields[-1]
    return next(held.source.message() for index, held in state.items() if CHANNELS[index].label == label)


def test_of_two_equally_good_fields_the_first_is_taken(stock):
    first, second = message("t", 500, values=250.0), message("t", 500, values=251.0)
    assert taken(stock, [first, second], first) == first


@pytest.mark.parametrize(
    ("alias", "level", "label", "factor"), [("gh", 500, "z500", 9.80665), ("prmsl", None, "msl", 1.0)]
)
def test_a_parameter_of_the_same_meaning_stands_in_with_its_factor(stock, alias, level, label, factor):
    available = stock([message(alias, level)])
    assert labels(available) == {label}
    (held,) = states_of(available)[NOW].values()
    assert held.factor == factor


@pytest.mark.parametrize("edition", [1, 2])
def test_members_are_noted_by_number_and_an_unnumbered_field_as_0(stock, edition):
    numbers = [None, 12, 3, 12]
    available = stock([message("t", 500, number=number, edition=edition) for number in numbers])
    assert set(available.members) == {0, 3, 12}


def test_two_inputs_in_one_process_do_not_mix(stock):
    stock(complete_history().values())
    second = stock([message("tp")])
    assert second.members == {}
    assert str(second) == "tp; valid 2020-01-02 12:00 UTC"


def test_what_is_held_is_listed_with_parameters_on_the_same_levels_together(stock):
    messages = [
        message("u", 850),
        message("u", 500),
        message("2t"),
        message("v", 500),
        message("v", 850),
        message("t", 1000, base=YESTERDAY),
        message("gh", 100_000, kind="isobaricInPa", edition=2),
    ]
    assert str(stock(messages)) == (
        "u, v at 500/850 hPa; 2t; t, gh at 1000 hPa; valid 2020-01-01 12:00, 2020-01-02 12:00 UTC"
    )


# The initial time


def test_the_newest_complete_history_is_chosen_without_a_word(four_times, caplog):
    assert choose_history(four_times, (-24, 0), Wanted()).times[-1] == NOW
    assert caplog.messages == []


def test_the_newest_history_lacking_a_field_an_older_one_is_chosen_with_a_warning(four_times, caplog):
    assert choose_history(without(four_times, (NOW, "w50")), (-24, 0), Wanted()).times[-1] == YESTERDAY
    assert caplog.messages == ["The history of 2020-01-02 12:00 UTC is incomplete; using an older one"]


def test_a_history_lacking_a_field_of_its_older_state_is_not_chosen(four_times):
    available = without(four_times, (NOW - timedelta(hours=18), "2t"))
    assert choose_history(available, (-24, 0), Wanted()).times[-1] == NOW
    with pytest.raises(InputError, match=r"^the input lacks 1 of the 164 fields that a forecast from 2020-01-02 12:00"):
        choose_history(available, (-18, 0), Wanted())


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(time=YESTERDAY), YESTERDAY),
        (Wanted(time=NOW), NOW),
        (Wanted(day=date(2020, 1, 1)), datetime(2020, 1, 1, 18)),
        (Wanted(hour=18), datetime(2020, 1, 1, 18)),
        (Wanted(day=date(2020, 1, 1), hour=12), YESTERDAY),
        (Wanted(), NOW),
    ],
)
def test_the_time_that_was_asked_for_is_chosen_among_several(four_times, wanted, expected, caplog):
    assert choose_history(four_times, (0,), wanted).times[-1] == expected
    assert caplog.messages == []


def test_only_exactly_the_wanted_time_will_do(stock):
    available = stock(complete_history(NOW).values())
    with pytest.raises(InputError) as error:
        choose_history(available, (0,), Wanted(time=datetime(2020, 1, 2, 6)))
    assert str(error.value) == (
        f"the input has no field valid at 2020-01-02 06:00 UTC. It holds {EVERYTHING}; valid 2020-01-02 12:00 UTC."
    )


def test_an_older_history_is_no_substitute_for_the_wanted_time(four_times):
    with pytest.raises(InputError) as error:
        choose_history(without(four_times, (NOW, "msl")), (0,), Wanted(time=NOW))
    assert str(error.value) == (
        "the input lacks 1 of the 82 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        "  msl; valid 2020-01-02 12:00 UTC\n"
        f"It holds {EVERYTHING}; "
        "valid 2019-12-31 12:00, 2020-01-01 12:00, 2020-01-01 18:00, 2020-01-02 12:00 UTC."
    )


def test_one_message_lists_all_that_is_missing_and_what_is_there(stock):
    messages = complete_history(YESTERDAY, NOW)
    for param, level in [("2t", None), ("t", 500), ("z", 500), ("z", 850), ("t", 850), ("q", 50)]:
        del messages[NOW, param, level]
    for level in (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000):
        del messages[YESTERDAY, "w", level]
    more = [message("r", 500), message("sp", base=YESTERDAY)]
    with pytest.raises(InputError) as error:
        choose_history(stock([*messages.values(), *more]), (-24, 0), Wanted())
    assert str(error.value) == (
        "the input lacks 19 of the 164 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        "  w at 50/100/150/200/250/300/400/500/600/700/850/925/1000 hPa; valid 2020-01-01 12:00 UTC\n"
        "  2t; z, t at 500/850 hPa; q at 50 hPa; valid 2020-01-02 12:00 UTC\n"
        "It holds 2t, 10u, 10v, msl, sp; z, q, t, u, v, w at "
        "50/100/150/200/250/300/400/500/600/700/850/925/1000 hPa; r at 500 hPa; "
        "valid 2020-01-01 12:00, 2020-01-02 12:00 UTC."
    )


def test_a_missing_state_is_listed_with_its_time(stock):
    with pytest.raises(InputError) as error:
        choose_history(stock(complete_history(NOW).values()), (-24, 0), Wanted())
    assert str(error.value) == (
        "the input lacks 82 of the 164 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        f"  {EVERYTHING}; valid 2020-01-01 12:00 UTC\n"
        f"It holds {EVERYTHING}; valid 2020-01-02 12:00 UTC."
    )


def test_what_is_missing_is_listed_for_the_time_that_lacks_least(four_times):
    gone = [(time, label) for time in TIMES for label in ("t500", "t850")]
    gone.remove((YESTERDAY, "t500"))
    with pytest.raises(
        InputError, match=r"^the input lacks 1 of the 82 fields that a forecast from 2020-01-01 12:00 UTC"
    ):
        choose_history(without(four_times, *gone), (0,), Wanted())


def test_of_times_that_lack_as_much_the_newest_is_listed(four_times):
    gone = [(time, f"t{level}") for time, level in zip(TIMES, (500, 600, 700, 850), strict=True)]
    with pytest.raises(
        InputError, match=r"forecast from 2020-01-02 12:00 UTC needs:\n  t at 850 hPa; valid 2020-01-02"
    ):
        choose_history(without(four_times, *gone), (0,), Wanted())


def test_a_file_without_any_field_of_use_lists_everything_as_missing(stock):
    with pytest.raises(InputError) as error:
        choose_history(stock([message("tp")]), (0,), Wanted())
    assert str(error.value) == (
        "the input lacks 82 of the 82 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        f"  {EVERYTHING}; valid 2020-01-02 12:00 UTC\n"
        "It holds tp; valid 2020-01-02 12:00 UTC."
    )


def test_no_fields_at_all_are_called_so():
    with pytest.raises(InputError) as error:
        choose_history(list_available([]), (0,), Wanted())
    assert str(error.value) == "the input has no field valid at any time. It holds no fields at all."


@pytest.mark.parametrize(
    ("wanted", "text", "accepted", "refused"),
    [
        (Wanted(), "any time", [NOW, YESTERDAY, datetime(1990, 1, 1, 3, 30)], []),
        (Wanted(time=NOW), "2020-01-02 12:00 UTC", [NOW], [YESTERDAY, datetime(2020, 1, 2, 12, 30)]),
        (Wanted(day=date(2020, 1, 2)), "2020-01-02", [NOW, datetime(2020, 1, 2)], [YESTERDAY, datetime(2020, 1, 3)]),
        (Wanted(hour=0), "00 UTC", [datetime(2020, 1, 3)], [NOW, datetime(2020, 1, 3, 0, 30)]),
        (Wanted(hour=12), "12 UTC", [NOW, YESTERDAY], [datetime(2020, 1, 2, 12, 30), datetime(2020, 1, 2)]),
    ],
)
def test_a_wish_accepts_what_it_says(wanted, text, accepted, refused):
    assert str(wanted) == text
    assert all(wanted.accepts(time) for time in accepted)
    assert not any(wanted.accepts(time) for time in refused)


# Files that cannot be read whole


@pytest.mark.parametrize("edition", [1, 2])
def test_a_file_that_was_cut_short_is_told_with_the_place_and_the_field_where_that_is_needed(stock, edition, caplog):
    *whole, last = complete_history(edition=edition).values()
    start, end = sum(map(len, whole)), len(last) - 40
    problem = (
        f"the message at byte {start} (w at level 1000): it says to have {len(last)} bytes, but the file ends after "
        f"{end}: it was cut short"
    )
    available = stock([*whole, last[:end]])
    assert caplog.messages == [f"Left out: {problem}"]
    with pytest.raises(InputError) as error:
        choose_history(available, (0,), Wanted())
    assert str(error.value).startswith(
        "the input lacks 1 of the 82 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        "  w at 1000 hPa; valid 2020-01-02 12:00 UTC\nIt holds "
    )
    assert str(error.value).endswith(f"\nLeft out: {problem}.")


def test_a_message_with_a_hole_does_no_harm_to_the_others(stock, caplog):
    messages = [message("t", level) for level in (500, 600, 700)]
    start, length = len(messages[0]), len(messages[1])
    messages[1] = messages[1][:250] + messages[1][310:]
    assert labels(stock(messages)) == {"t500", "t700"}
    assert caplog.messages == [
        f"Left out: the message at byte {start} (t at level 600): it says to have {length} bytes, but does not end there"
    ]


def test_two_fields_in_one_message_are_detected_and_the_message_says_what_to_do(stock, tmp_path):
    messages = complete_history()
    both = two_fields_in_one_message(
        messages.pop((NOW, "u", 500)), messages.pop((NOW, "v", 500)), tmp_path / "both.grib"
    )
    available = stock([*messages.values(), both])
    assert available.fields_in_one_message == 2
    with pytest.raises(InputError) as error:
        choose_history(available, (0,), Wanted())
    assert str(error.value) == (
        "the input lacks 1 of the 82 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        "  v at 500 hPa; valid 2020-01-02 12:00 UTC\n"
        f"It holds 2t, 10u, 10v, msl; z, q, t, u, w at {ALL_LEVELS}; "
        "v at 50/100/150/200/250/300/400/600/700/850/925/1000 hPa; valid 2020-01-02 12:00 UTC.\n"
        "Some of its messages hold 2 fields, of which only the first is read: "
        "split them with grib_copy INPUT OUTPUT (without -M), or wgrib2 INPUT -submsg_uv OUTPUT."
    )


@pytest.mark.parametrize("edition", [1, 2])
def test_an_ordinary_file_is_not_accused_of_holding_several_fields_in_one_message(stock, edition):
    messages = [message("t", 500, edition=edition), message("u", 500, edition=edition, missing=[3])]
    available = stock(messages)
    assert available.fields_in_one_message == 1
    with pytest.raises(InputError) as error:
        choose_history(available, (0,), Wanted())
    assert "Some of its messages" not in str(error.value)


def test_text_between_messages_does_no_harm(stock):
    assert labels(stock([message("t", 500), b"0123456789", message("t", 850)])) == {"t500", "t850"}
