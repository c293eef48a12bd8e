"""Parts of messages: values, lists and errors in few words."""

from __future__ import annotations

from collections.abc import Sequence

MOST_SHOWN = 60
"""Characters of a wrong value that a message shows."""

MENTIONED = 8
"""Items that one message lists before it counts the rest."""


def mention(what: str, items: Sequence[str]) -> str:
    """Some items after what they are; nothing if there are none."""
    if not items:
        return ""
    rest = f" and {len(items) - MENTIONED} more" if len(items) > MENTIONED else ""
    return f"{what}: {', '.join(items[:MENTIONED])}{rest}"


def shortened(value: object) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
