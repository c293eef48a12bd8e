"""--extend: members that are added to a finished ensemble, and an ensemble that is then as if it had been of one run."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import SAMPLE, keys, messages

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.cli import main
from ai_models_mosaic.engines.tensor_states import TensorStates
from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.geometry.grid import LatLonGrid, Region
from ai_models_mosaic.outputs.grib.earlier import EarlierMembers
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.writer import Outputs
from ai_models_mosaic.state import ForecastStep

WORDS = ("forecast", "--variant", "mini", "--file", SAMPLE, "--lead-time", 48, "--output-params", "2t,z500", "--quiet")
TWO, FOUR = ("--num-ensemble-members", 2), ("--num-ensemble-members", 4)
EXTEND = ("--extend", 4)


class Typed:
    """Runs the command in folders of one test, in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._capture = folder, patch, capture

    def __call__(self, where: str, *words: object) -> dict[str, bytes]:
        """Run it; returns what is in the folder then, but for cards."""
        status, said = self.ended(where, *words)
        assert status == 0, said
        return self.contents(where)

    def ended(self, where: str, *words: object) -> tuple[int, str]:
        """Run it; returns the exit status, and what was said."""
        (self.folder / where).mkdir(exist_ok=True)
        self._patch.chdir(self.folder / where)
        self._capture.readouterr()
        try:
            status = main([str(word) for word in (*WORDS, "--num-threads", 1, *words)])
        except SystemExit as error:
            status = int(str(error.code))
        return status or 0, self._capture.readouterr().err

    def contents(self, where: str) -> dict[str, bytes]:
        folder = self.folder / where
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.endswith((".provenance.json", ".jsonl"))
        }


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ensembles of two and of four, of one run each."""
    folder = tmp_path_factory.mktemp("finished")
    for name, words in (("two", TWO), ("four", FOUR)):
        (folder / name).mkdir()
        with contextlib.chdir(folder / name):
            main([str(word) for word in (*WORDS, "--num-threads", 1, *words, "--path", "out.grib")])
    return folder


def begun(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text().splitlines()[0])


@pytest.mark.parametrize("path", ["out.grib", "{shortName}-{step}-{number}.grib"])
def test_an_ensemble_that_was_extended_has_the_bytes_of_one_run_of_as_many(typed: Typed, path: str):
    whole = typed("whole", *FOUR, "--path", path)
    typed("grown", *TWO, "--path", path)
    assert typed("grown", *EXTEND, "--path", path, "--progress-file", "p.jsonl") == whole
    # Only those that were not there are made.
    assert begun(typed.folder / "grown" / "p.jsonl")["members"] == 2
    cards = [json.loads(card.read_text()) for card in (typed.folder / "grown").glob("*.provenance.json")]
    assert len(cards) == len(whole)
    assert {(card["ensemble_size"], len(card["members"]), card["extended_from"]) for card in cards} == {(4, 4, 2)}


def test_an_extended_ensemble_is_complete_for_a_run_of_its_size(typed: Typed, finished: Path):
    shutil.copytree(finished / "two", typed.folder / "a")
    typed("a", "--extend", 3, "--path", "out.grib")
    for words in (("--extend", 3), ("--num-ensemble-members", 3, "--resume")):
        typed("a", *words, "--path", "out.grib", "--progress-file", "p.jsonl")
        assert begun(typed.folder / "a" / "p.jsonl")["done"] == 9, words
        (typed.folder / "a" / "p.jsonl").unlink()
    # Members of before and of now are those that the card says.
    assert main(["replay", "out.grib.provenance.json", "--check", "6"]) == 0
    # And again.
    assert typed("a", *EXTEND, "--path", "out.grib")["out.grib"] == (finished / "four" / "out.grib").read_bytes()


def test_products_and_stores_are_renewed_to_the_bytes_of_one_run(typed: Typed):
    words = ("--products", "mean,quantile:90,probability:2t>280", "--zarr", "out.zarr", "--netcdf", "out.nc")
    words = ("--path", "out.grib", *words, "--packing", "ccsds")
    whole = typed("whole", *FOUR, *words)
    typed("grown", *TWO, *words)
    assert typed("grown", *EXTEND, *words) == whole
    # NetCDF from HDF5 has no time in it, or the comparison above would say so.
    assert {"out.grib", "out-mean.grib", "out.nc", "out.zarr/.zmetadata"} < whole.keys()


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    advance, calls = TensorStates.advance, [0]

    def stopping(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            signal.raise_signal(signal.SIGTERM)
        return advance(*arguments)

    monkeypatch.setattr(TensorStates, "advance", stopping)


@pytest.mark.parametrize("call", [1, 3])
def test_until_it_is_complete_the_ensemble_stays_and_a_stopped_extension_goes_on(
    typed: Typed, finished: Path, monkeypatch: pytest.MonkeyPatch, call: int
):
    shutil.copytree(finished / "two", typed.folder / "grown")
    before = typed.contents("grown")
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        assert typed.ended("grown", *EXTEND, "--path", "out.grib", "--state-interval", 0)[0] == 143
    assert typed.contents("grown")["out.grib"] == before["out.grib"]
    status, said = typed.ended("grown", *FOUR, "--path", "out.grib", "--resume")
    assert status == 7
    assert "extended from: it began with 2, now None" in said
    resumed = typed("grown", *EXTEND, "--path", "out.grib", "--resume")
    assert resumed == {"out.grib": (finished / "four" / "out.grib").read_bytes()}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((*EXTEND, "--seed", 4), 7, "is of another run than this one:\n  --seed: it was 0, now 4\n"),
        ((*EXTEND, "--lead-time", 72), 7, "\n  steps: it was 2, now 3\n"),
        ((*EXTEND, "--products", "mean"), 7, "\n  --products: it was [], now "),
        (
            (*EXTEND, "--date", "20080426", "--path", "b.grib"),
            7,
            "--extend: expected a finished ensemble from 2008-04-26",
        ),
        ((*EXTEND, *TWO), 2, "--extend says how many members there will be: leave --num-ensemble-members 2 out"),
        (
            (*EXTEND, "--member-number", "3-4"),
            2,
            "--extend makes members in their order, from 1: leave --member-number",
        ),
        (("--extend", 1), 2, "--extend: expected at least 2 members, got 1"),
        ((*EXTEND, "--deadline", "5m"), 2, "--extend says how many members there will be: leave --deadline and"),
        ((*EXTEND, "--output", "none"), 2, "expected output in files, as it is written again"),
    ],
)
def test_what_cannot_be_extended_so_is_refused_and_stays(
    typed: Typed, finished: Path, words: tuple, status: int, said: str
):
    shutil.copytree(finished / "two", typed.folder / "a")
    before = typed.contents("a")
    ended, told = typed.ended("a", "--path", "out.grib", *words)
    assert (ended, said in told) == (status, True), told
    assert typed.contents("a") == before


def test_an_ensemble_that_was_changed_or_made_one_by_one_is_not_extended(typed: Typed, finished: Path):
    shutil.copytree(finished / "two", typed.folder / "a")
    file = typed.folder / "a" / "out.grib"
    file.write_bytes(file.read_bytes()[:-4] + b"7778")
    status, said = typed.ended("a", *EXTEND, "--path", "out.grib")
    assert status == 7
    assert "--extend: the ensemble of 2 in out.grib is not as its run left it: make it anew" in said
    shutil.copytree(finished / "four", typed.folder / "c")
    status, said = typed.ended("c", "--extend", 3, "--path", "out.grib")
    assert status == 7
    assert "--extend 3: expected an ensemble of fewer members in out.grib, got 4 of an ensemble of 4" in said
    for member in (1, 2):
        typed("b", "--num-ensemble-members", 2, "--member-number", member, "--path", "{number}.grib")
    status, said = typed.ended("b", *EXTEND, "--path", "{number}.grib")
    assert status == 7
    assert "got those of 2: members that were made one by one are added to with --num-ensemble-members 4" in said


# Labels.

GRID = Region.whole(LatLonGrid.regular(30.0))
START = datetime(2020, 2, 29, 18)
FIELDS = range(0, 82, 40)


def encoded(size: int | None, members: range, hours: int) -> list[bytes]:
    values = np.random.default_rng(hours).normal(size=(members.stop, len(CHANNELS), GRID.size))
    with GribEncoder(GRID, Labels(START, size, {"expver": "0007"}), FIELDS) as encoder:
        return [
            encoder.encode(channel, member, hours, values[member, channel]).to_bytes()
            for member in members
            for channel in FIELDS
        ]


@pytest.mark.parametrize(("size", "larger"), [(2, 3), (254, 255), (255, 300), (None, 400)])
def test_messages_get_the_labels_of_the_larger_ensemble_and_keep_their_values(
    tmp_path: Path, size: int | None, larger: int
):
    path, members, hours = tmp_path / "a.grib", range(1, 3), (0, 24, 48)
    path.write_bytes(b"".join(message for each in hours for message in encoded(size, members, each)))
    earlier = EarlierMembers([path], GribEncoder(GRID, Labels(START, larger, {"expver": "0007"}), FIELDS))
    # The first is passed over, as where a run goes on.
    for each in hours[1:]:
        assert [message for _, message in earlier.messages(each)] == encoded(larger, members, each)
    assert keys(encoded(larger, members, 24)[0], "numberOfForecastsInEnsemble") == (larger,)
    earlier.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda message: message[:-5], "expected whole GRIB messages"),
        (lambda message: b"GRUB" + message[4:], "expected whole GRIB messages"),
    ],
)
def test_what_is_no_message_of_the_ensemble_is_refused(tmp_path: Path, content: Any, said: str):
    path = tmp_path / "a.grib"
    path.write_bytes(content(encoded(2, range(1, 2), 0)[0]))
    earlier = EarlierMembers([path], GribEncoder(GRID, Labels(START, 3, {}), FIELDS))
    with pytest.raises(OutputError, match=said):
        list(earlier.messages(0))
    earlier.close()


def test_a_field_that_is_not_written_is_refused(tmp_path: Path):
    path = tmp_path / "a.grib"
    path.write_bytes(b"".join(encoded(2, range(1, 2), 0)))
    earlier = EarlierMembers([path], GribEncoder(GRID, Labels(START, 3, {}), FIELDS[:1]))
    with pytest.raises(OutputError, match="which is not written"):
        list(earlier.messages(0))
    earlier.close()
    assert len(messages(path)) == len(FIELDS)


def test_messages_that_are_missing_are_noticed_before_files_get_their_names(tmp_path: Path):
    plan = OutputPlan(f"{tmp_path}/b.grib", OutputOptions(workers=0), GRID.grid, 24, 0, (1, 2))
    path = tmp_path / "a.grib"
    path.write_bytes(b"".join(encoded(1, range(1, 2), 0)))
    values = np.random.default_rng(2).normal(size=(1, *GRID.shape, len(CHANNELS))).astype(np.float32)
    said = (
        "expected 164 messages in all files, got 85: what there was of the ensemble was not whole. Run without --extend"
    )
    with pytest.raises(OutputError, match=said), Outputs(plan, Labels(START, 2, {}), earlier=[path]) as outputs:
        outputs.write(ForecastStep(0, 0, (2,), values, GRID.grid, START))
    assert not (tmp_path / "b.grib").exists()
