"""Moments as they are typed."""

from __future__ import annotations

from datetime import datetime, timezone


def moment_of(text: str) -> datetime:
    """A moment in ISO format, UTC without zone; one that says a zone is turned to UTC.

    Parameters
    ----------
    text : str
        Such as ``2020-01-31T00`` or ``2020-01-31T01:00+01:00``.

    Raises
    ------
    ValueError
        If it is none.
    """
    # Before Python 3.11 the letter is not known.
    moment = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
    return moment if moment.tzinfo is None else moment.astimezone(timezone.utc).replace(tzinfo=None)
