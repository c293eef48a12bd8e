"""What was run, in words: from the cards that lie beside an ensemble's files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..files import parse_json
from ..forecast.provenance import SUFFIX
from ..inputs.zarr_store.opening import is_zarr
from ..verification.messages import find_files
from ..wording.numbers import counted

UNTRAINED = "The weights are untrained: this is noise of the right shape, not a forecast."


def cards_of(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The cards beside the files of an ensemble, each once; what cannot be read is none."""
    found: list[dict[str, Any]] = []
    for path in paths:
        files = [Path(path)] if is_zarr(path) or Path(path).is_file() else find_files(path)
        for file in files:
            card = _card(file.with_name(file.name + SUFFIX))
            if card and card not in found:
                found.append(card)
    return found


def _card(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def provenance(cards: Sequence[dict[str, Any]], paths: Sequence[str]) -> list[tuple[str, str]]:
    """What is known, as pairs of a heading and a sentence.

    Parameters
    ----------
    cards : sequence of dict
        As `cards_of` returns them.
    paths : sequence of str
        Of the ensemble.
    """
    files = ("Files", ", ".join(Path(path).name for path in paths))
    if not cards:
        return [
            files,
            ("Record", f"There is none beside the files (NAME{SUFFIX}), so who made them is not known here."),
        ]
    rows = [files]
    for card in cards:
        rows += [pair for pair in _sentences(card) if pair[1] and pair not in rows]
    return rows


def _sentences(card: dict[str, Any]) -> list[tuple[str, str]]:
    given, weights = card.get("input") or {}, card.get("weights") or {}
    return [
        ("Warning", UNTRAINED if weights.get("untrained") else ""),
        ("Model", _model(card)),
        ("Start", _start(given)),
        ("Members", _members(card)),
        ("Machine", _joined("{}", card.get("engine"), ", in {}", card.get("precision"))),
        ("Weights", _weights(weights)),
        ("Written", _joined("{}", card.get("written"))),
    ]


def _model(card: dict[str, Any]) -> str:
    return _joined(
        "Mosaic, variant {}", card.get("variant"), ", run by ai-models-mosaic {}", card.get("ai-models-mosaic")
    )


def _start(given: dict[str, Any]) -> str:
    states = [_time(text) for text in given.get("states") or []]
    starts = sorted({_time(text) for text in given.get("starts") or []})
    return _joined(
        "{}",
        _time(given.get("initial_time")),
        ", from states of {}",
        "" if starts else " and ".join(states),
        ", members started at {}",
        " and ".join(starts),
        ", out of {}",
        _source(given.get("source")),
    )


def _source(text: Any) -> str:
    """A file's name without its folders, which are nobody's business elsewhere."""
    return text if not isinstance(text, str) or "://" in text else Path(text).name


def _members(card: dict[str, Any]) -> str:
    numbers, steps = card.get("members") or [], card.get("steps")
    return _joined(
        "{}",
        counted(len(numbers), "member") if numbers else "",
        ", seed {}",
        card.get("seed"),
        ", {} of the model",
        counted(steps, "step") if isinstance(steps, int) else "",
    )


def _weights(weights: dict[str, Any]) -> str:
    file = weights.get("file")
    digest = weights.get("sha256")
    return _joined(
        "{}", Path(file).name if file else "", ", SHA-256 {}", digest[:16] + "…" if digest else "", ", licence {}",
        weights.get("licence"),
    )  # fmt: skip


def _joined(*pairs: Any) -> str:
    """The texts whose values are there, each with its value."""
    texts = [text.format(value) for text, value in zip(pairs[::2], pairs[1::2], strict=True) if value not in (None, "")]
    return "".join(texts).removeprefix(", ")


def _time(text: Any) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError):
        return ""
