"""Cards that are damaged or forged: errors of the card, whatever they hold."""

import copy
import json
import random
import re

import pytest
from running import MINI, Runner

from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.forecast import replay as replaying
from ai_models_mosaic.forecast.recorded import read_card
from ai_models_mosaic.forecast.recorded_form import FORM


@pytest.fixture
def card(run: Runner):
    run(*MINI, "--lead-time", 24, "--path", "out.grib")
    return run.path("out.grib.provenance.json")


def replayed(path, capsys):
    """Exit status and message of a replay."""
    capsys.readouterr()
    words = ("--member", "1", "--steps", "24", "--params", "2t", "--output", str(path.parent / "again.grib"))
    status = main(["replay", str(path), *words])
    return status, capsys.readouterr().err


def changed(found, place, value):
    """A card with another value at a place such as ``input.source``; nothing there for `ABSENT`."""
    made = copy.deepcopy(found)
    *names, last = place.split(".")
    inner = made
    for name in names:
        inner = inner[name]
    if value is ABSENT:
        inner.pop(last, None)
    else:
        inner[last] = value
    return made


ABSENT = object()
VALUES = (ABSENT, None, True, -1, 0, 3, 2**70, 1.5, float("nan"), "", "x", "\0", [], [1], {}, {"x": []}, [[[]]])

FORGED = (
    ("members_per_batch", 0, "a whole number from 1, got 0"),
    ("members", [1, 1], "distinct numbers of members from 1, got [1, 1]"),
    ("members", [True], "distinct numbers of members from 1, got [True]"),
    ("precision", "float8", "one of float32, float16, bfloat16, got 'float8'"),
    (
        "engine",
        f"CPU ({10**12} threads), float32",
        f"a text, with at most 1024 threads, got 'CPU ({10**12} threads), float32'",
    ),
    ("engine", "CPU (0 threads), float32", "a text, with at most 1024 threads, got 'CPU (0 threads), float32'"),
    (
        "input.initial_time",
        "2008-04-26T06:00:00+00:00",
        "a time such as 2020-01-31T06:00:00, got '2008-04-26T06:00:00+00:00'",
    ),
    ("weights.sha256", 3, "a text, got 3"),
    ("input", ABSENT, None),
    ("options", [], None),
)


@pytest.mark.parametrize(("place", "value", "expected"), FORGED)
def test_a_forged_card_is_refused_naming_what_is_wrong(card, capsys, place, value, expected):
    card.write_text(json.dumps(changed(json.loads(card.read_text()), place, value)))
    status, message = replayed(card, capsys)
    assert status == 3
    assert f"{card}: expected the card of a forecast, NAME.grib.provenance.json, got something else (" in message
    assert expected is None or f"expected {place} to be {expected}" in message
    assert message.count("\n") == 1


def test_a_batch_that_no_memory_holds_is_refused(card, capsys):
    found = {**json.loads(card.read_text()), "members": list(range(1, 20_001)), "members_per_batch": 20_000}
    card.write_text(json.dumps({**found, "ensemble_size": 20_000}))
    status, message = replayed(card, capsys)
    assert status == 3
    # Of mini, a thousand gigabytes.
    assert re.search(r"ran 20000 members at a time, which takes \d{3,4}\.\d GB; this machine has \d+\.\d GB", message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"variant": "mini"}'])
def test_a_file_that_is_no_card_is_refused(tmp_path, content):
    path = tmp_path / "out.grib.provenance.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: expected the card of a forecast"):
        read_card(path)


def test_what_is_no_text_is_not_shown(tmp_path):
    path = tmp_path / "out.grib"
    path.write_bytes(b"GRIB\xff" * 10_000)
    with pytest.raises(InputError, match=r"got something else \(no text\)$"):
        read_card(path)


def test_whatever_stands_in_a_card_it_is_read_or_refused(card):
    """Bounded and seeded: every place with every kind of value, each read only."""
    good = json.loads(card.read_text())
    for place in FORM:
        for value in VALUES:
            card.write_text(json.dumps(changed(good, place, value)))
            try:
                read = read_card(card)
            except InputError:
                continue
            _ = (read.variant, read.ensemble, read.packing, read.region, read.threads, read.attention_backend("cpu"))


def test_a_forged_card_ends_a_replay_with_a_status(card, capsys, monkeypatch):
    """Some of them to the end, where they pass for cards."""
    good, chance = json.loads(card.read_text()), random.Random(13)  # noqa: S311
    monkeypatch.setattr(replaying, "read_messages", lambda _: iter(()))
    for place in chance.sample([*FORM, "metadata.x", "packages.torch", "options.output.packing.bits"], 12):
        for value in chance.sample(VALUES, 3):
            card.write_text(json.dumps(changed(good, place, value)))
            status, message = replayed(card, capsys)
            assert status in (0, 2, 3, 4, 6, 10), message
