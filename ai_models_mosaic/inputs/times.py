"""Several initial times for one run of the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from ..errors import InputError, OptionError
from ..options.moments import moment_of
from .fields import Wanted
from .requests import parse_date

MOST = 10_000
"""More initial times than anybody means."""


def parse_dates(text: str, hour: int | None) -> tuple[Wanted, ...]:
    """Initial times such as ``20200101,20200105T06`` or ``20200101/to/20200131/by/7``.

    Parameters
    ----------
    text : str
        Dates as of the runner's ``--date``, each perhaps followed by ``T`` and an hour, and ranges of
        them, by days or, as ``6h``, by hours (default: one day); separated by commas.
    hour : int or None
        Of dates that say none; None for any that the input has.

    Raises
    ------
    OptionError
        If it is no such list, or names a time twice.
    """
    found: list[Wanted] = []
    for part in text.split(","):
        words = part.strip().split("/")
        if len(words) == 1:
            found.append(_wanted(*_time(words[0]), hour))
        elif len(words) in (3, 5) and words[1] == "to" and (len(words) == 3 or words[3] == "by"):
            found.extend(_range(words, hour))
        else:
            raise OptionError(f"--dates: expected DATE or DATE/to/DATE/by/DAYS, separated by commas, got {part!r}")
    repeated = [wanted for wanted in found if found.count(wanted) > 1] if len(found) < MOST else []
    if repeated:
        raise OptionError(f"--dates: expected each date once, got {repeated[0]} twice")
    return tuple(found)


def read_dates(path: Path) -> tuple[Wanted, ...]:
    """Initial times of a file, one in ISO format per line, as of the runner's ``--staging-dates``.

    Raises
    ------
    InputError
        If it cannot be read, or a line is no time of a full hour.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"--staging-dates {path}: {error.strerror or error}") from error
    for line in lines:
        if not line.strip():
            continue
        try:
            time = moment_of(line.strip())
        except ValueError:
            time = datetime.max
        if time.minute or time.second or time.microsecond:
            raise InputError(f"--staging-dates {path}: expected a time such as 2020-01-01T06:00 per line, got {line!r}")
        found.append(Wanted(time=time))
    if not found:
        raise InputError(f"--staging-dates {path}: expected a time such as 2020-01-01T06:00 per line, got none")
    return tuple(dict.fromkeys(found))


def _range(words: list[str], hour: int | None) -> Iterator[Wanted]:
    (first, first_hour), (last, last_hour) = _time(words[0]), _time(words[2])
    match = re.fullmatch(r"(\d{1,4})(h?)", words[4] if len(words) == 5 else "1")
    if not match or int(match[1]) == 0:
        raise OptionError(f"--dates: expected a number of days, or of hours such as 6h, after by, got {words[4]!r}")
    stride = timedelta(hours=int(match[1])) if match[2] else timedelta(days=int(match[1]))
    hours = [value for value in (first_hour, last_hour, hour) if value is not None]
    if match[2] and not hours:
        hours = [0]
    start = first + timedelta(hours=hours[0] if hours else 0)
    end = last + timedelta(hours=last_hour if last_hour is not None else 23 if match[2] else hours[0] if hours else 0)
    if end < start or (end - start) / stride > MOST:
        raise OptionError(f"--dates: expected a range that ascends, of at most {MOST} dates, got {'/'.join(words)}")
    while start <= end:
        yield _wanted(start, start.hour, None) if hours else _wanted(start, None, None)
        start += stride


def _time(text: str) -> tuple[datetime, int | None]:
    """Midnight of a date, and the hour after its T."""
    day, _, hour = text.strip().partition("T")
    match = re.fullmatch(r"(\d{1,2})(?:(?::?00)*)", hour)
    if hour and (not match or int(match[1]) > 23):
        raise OptionError(f"--dates: expected an hour from 00 to 23 after T, got {text!r}")
    try:
        return parse_date(day), int(match[1]) if match else None
    except OptionError as error:
        raise OptionError(str(error).replace("--date:", "--dates:")) from None


def _wanted(day: datetime, hour: int | None, default: int | None) -> Wanted:
    at = default if hour is None else hour
    return Wanted(day=day.date()) if at is None else Wanted(time=day.replace(hour=at))
