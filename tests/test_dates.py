import re
from datetime import date, datetime

import pytest

from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.inputs.times import parse_dates, read_dates


def at(day, hour, month=1):
    return Wanted(time=datetime(2020, month, day, hour))


@pytest.mark.parametrize(
    ("text", "hour", "found"),
    [
        ("20200101", 12, [at(1, 12)]),
        ("2020-01-05,20200101", 0, [at(5, 0), at(1, 0)]),
        ("20200101T06, 20200101T18", 12, [at(1, 6), at(1, 18)]),
        ("20200101T06:00", None, [at(1, 6)]),
        ("20200101", None, [Wanted(day=date(2020, 1, 1))]),
        ("20200130/to/20200202", 12, [at(30, 12), at(31, 12), at(1, 12, 2), at(2, 12, 2)]),
        ("20200101/to/20200115/by/7", 0, [at(1, 0), at(8, 0), at(15, 0)]),
        ("20200101/to/20200103", None, [Wanted(day=date(2020, 1, day)) for day in (1, 2, 3)]),
        ("20200101T06/to/20200102T00/by/6h", 12, [at(1, 6), at(1, 12), at(1, 18), at(2, 0)]),
        ("20200101/to/20200101/by/12h", 0, [at(1, 0), at(1, 12)]),
        ("20200101/to/20200102,20200301", 6, [at(1, 6), at(2, 6), at(1, 6, 3)]),
    ],
)
def test_dates_and_ranges_are_read_in_the_order_given(text, hour, found):
    assert parse_dates(text, hour) == tuple(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tomorrow", "--dates: expected YYYYMMDD, YYYY-MM-DD, or 0, -1, … days from today, got 'tomorrow'"),
        ("20200101T25", "--dates: expected an hour from 00 to 23 after T, got '20200101T25'"),
        (
            "20200101/20200102",
            "--dates: expected DATE or DATE/to/DATE/by/DAYS, separated by commas, got '20200101/20200102'",
        ),
        ("20200101/to/20200109/by/0", "--dates: expected a number of days, or of hours such as 6h, after by, got '0'"),
        (
            "20200109/to/20200101",
            "--dates: expected a range that ascends, of at most 10000 dates, got 20200109/to/20200101",
        ),
        ("20200101,20200101", "--dates: expected each date once, got 2020-01-01 12:00 UTC twice"),
    ],
)
def test_what_is_no_list_of_dates_is_refused(text, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_dates(text, 12)


def test_the_runners_staging_dates_are_read_once_each(tmp_path):
    path = tmp_path / "dates.txt"
    path.write_text("2020-01-01T06:00:00\n\n2020-01-05\n2020-01-01T06:00\n")
    assert read_dates(path) == (at(1, 6), at(5, 0))


@pytest.mark.parametrize(
    ("text", "got"), [("2020-01-01T06:30\n", "'2020-01-01T06:30'"), ("soon\n", "'soon'"), ("\n", "none")]
)
def test_staging_dates_that_are_none_are_refused(tmp_path, text, got):
    path = tmp_path / "dates.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"expected a time such as 2020-01-01T06:00 per line, got {got}")):
        read_dates(path)


def test_a_file_of_staging_dates_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--staging-dates .*absent.txt: No such file or directory"):
        read_dates(tmp_path / "absent.txt")
