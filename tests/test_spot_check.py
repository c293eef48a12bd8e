"""`replay --check`: a sample of a forecast made again, against its files."""

import re
import shutil

import numpy as np
import pytest
from running import MINI, changed, elsewhere, keys, messages, values

from ai_models_mosaic.cli import main
from ai_models_mosaic.forecast.spot_check import draw

WORDS = ("--lead-time", 48, "--num-ensemble-members", 2, "--num-threads", 1, "--clip-humidity", "--path", "out.grib")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = elsewhere(folder, *MINI, *WORDS, "--output-params", "2t,z500,q", "--products", "mean@2t")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def checked(folder, capsys, *words):
    status = main(["replay", str(folder / "out.grib.provenance.json"), *(str(word) for word in words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def rewrite(folder, change):
    """Exchange some messages for others."""
    path = folder / "out.grib"
    path.write_bytes(b"".join(map(change, messages(path))))


def test_the_files_of_a_forecast_are_what_it_makes(folder, capsys):
    status, said, _ = checked(folder, capsys, "--check", 20)

    assert status == 0
    assert said == (
        "4 member-steps of members 1, 2 made again\n"
        "60 of 60 fields identical to the byte\n"
        "  2t   off by 0 K, 0 packing steps\n"
        "  z    off by 0 m**2 s**-2, 0 packing steps\n"
        "  q    off by 0 kg kg**-1, 0 packing steps\n"
    )
    assert checked(folder, capsys, "--check", 1, "--params", "2t,z500")[1].splitlines()[1:] == [
        "2 of 2 fields identical to the byte",
        "  2t   off by 0 K, 0 packing steps",
        "  z    off by 0 m**2 s**-2, 0 packing steps",
    ]


def test_one_value_that_is_another_is_noticed_and_has_a_status(folder, capsys):
    def warmer(message):
        if keys(message, "shortName", "number", "step") != ("2t", 2, 24):
            return message
        return changed(message, values(message) + np.eye(1, values(message).size, 77)[0])

    rewrite(folder, warmer)
    status, said, error = checked(folder, capsys, "--check", 4, "--params", "2t")

    assert status == 12
    assert "3 of 4 fields identical to the byte" in said
    off, steps = re.search(r"2t   off by (\S+) K, (\S+) packing steps", said).groups()
    assert float(off) == pytest.approx(1, abs=2e-3)
    assert float(steps) > 100
    assert "1 of 4 fields are off by more than packing and rounding, the first 2t at level 2 of member 2" in error


def test_a_file_that_was_cut_is_noticed(folder, capsys, caplog):
    path, words = (
        folder / "out.grib",
        ("--member", "1", "--steps", "48", "--params", "2t", "--output", folder / "again.grib"),
    )
    whole = list(messages(path))
    path.write_bytes(b"".join(whole[:-3]))
    assert checked(folder, capsys, "--check", 4)[0] == 0
    told = f"{path} holds {len(whole) - 3} of the {len(whole)} messages that its card says; others are not compared"
    assert told in caplog.messages
    path.write_bytes(b"".join(whole)[:-100])
    status, said, error = checked(folder, capsys, "--check", 4)
    assert (status, said) == (12, "")
    assert f"out.grib: expected {len(whole)} whole GRIB messages, as its card says; it was cut, or changed" in error
    assert checked(folder, capsys, *words)[0] == 0
    assert any("out.grib cannot be read to its end" in message for message in caplog.messages)


def test_packing_anew_is_no_fault(folder, capsys):
    def finer(message):
        return changed(message, packingType="grid_ccsds") if keys(message, "shortName") == ("z",) else message

    rewrite(folder, finer)
    status, said, _ = checked(folder, capsys, "--check", 1, "--params", "z")

    assert status == 0
    assert "0 of 1 field identical to the byte" in said
    assert float(re.search(r"z    off by \S+ m\*\*2 s\*\*-2, (\S+) packing steps", said)[1]) <= 1


@pytest.mark.parametrize(("other", "status"), [("torch", 0), ("ai-models-mosaic", 0), ("platform", 0), (None, 12)])
def test_only_with_other_versions_or_on_another_device_a_share_is_let_pass(folder, capsys, other, status):
    def nearly(message):
        before = values(message)
        return changed(message, before + 5e-4 * before.std()) if keys(message, "shortName") == ("2t",) else message

    rewrite(folder, nearly)
    card = folder / "out.grib.provenance.json"
    if other is not None:
        card.write_text(re.sub(rf'("{other}":\s*)"[^"]+"', r'\1"another"', card.read_text()))

    assert checked(folder, capsys, "--check", 1, "--params", "2t")[0] == status
    strict = checked(folder, capsys, "--check", 1, "--params", "2t", "--check-tolerance", 1e-4)
    assert strict[0] == 12
    assert (f"{other} was another, is " in strict[1]) == (other is not None)


def test_a_sample_is_of_few_members_and_of_steps_that_were_made():
    there = {(member, hours) for member in range(1, 51) for hours in range(0, 241, 6)}
    sample = draw(there, 20, 0)

    assert sample == draw(there, 20, 0) != draw(there, 20, 1)
    assert len(sample) <= 5
    assert sum(map(len, sample.values())) == 20
    assert all(hours == sorted(set(hours)) and hours[0] > 0 for hours in sample.values())
    # With a few steps each, more members; with too few altogether, all.
    assert sum(map(len, draw({(m, h) for m in range(1, 51) for h in (0, 24)}, 20, 0).values())) == 20
    assert draw({(1, 0), (1, 24), (2, 24)}, 20, 0) == {1: [24], 2: [24]}
    assert draw({(1, 0)}, 20, 0) == {1: [0]}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "expected --member and --steps and --output as well, or --check N"),
        (("--member", 1), 2, "expected --steps and --output as well, or --check N"),
        (("--check", 3, "--member", 1), 2, "--member: expected it without --check, which draws members and steps"),
        (("--check-seed", 1), 2, "--check-seed: expected --check N with it"),
        (("--check", 0), 2, "--check: expected a number from 1, got 0"),
        (("--check", 1, "--check-seed", -1), 2, "--check-seed: expected a number from 0, got -1"),
        (("--check", 1, "--check-tolerance", 2), 2, "--check-tolerance: expected a share from 0 to 1, got 2"),
        (("--check", 1, "--params", "msl"), 3, "expected the GRIB of the forecast's members beside its card, got none"),
    ],
)
def test_what_cannot_be_checked_is_refused(whole, capsys, words, status, message):
    found, _, error = checked(whole, capsys, *words)
    assert (found, message in error) == (status, True), error


def test_humidity_that_was_clipped_is_replayed_so(folder, capsys):
    words = ("--member", 1, "--steps", 24, "--params", "q", "--output", folder / "again.grib")
    status, said, _ = checked(folder, capsys, *words)
    assert (status, said.split(": ")[1]) == (0, "13 fields made again, 13 of 13 identical to the original's\n")
