"""Finished means checked: what a run left is still there as it was, or is made again."""

import json
import os
from pathlib import Path

import pytest
from running import MINI, SAMPLE, Runner
from test_writer import PRODUCTS, labels, plan, steps_of, write

from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.forecast.provenance import complete_files, write_beside
from ai_models_mosaic.outputs.contents import count_messages, describe
from ai_models_mosaic.outputs.grib.files import MessageFiles
from ai_models_mosaic.outputs.writer import Outputs

DAY = (*MINI, "--output-params", "2t,z500", "--num-threads", 1, "--lead-time", 24)

# What is complete already.


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_by_a_message(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"GRIB")])


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def other_values_at_the_end(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def another_length_within(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[15] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut_in_half, "bytes: expected {size}, got {half}; messages: expected 5, got None; tail_sha256: expected "),
        (cut_by_a_message, "messages: expected 5, got 4; tail_sha256: expected "),
        (appended, "messages: expected 5, got None; tail_sha256: expected "),
        (other_values_at_the_end, "(tail_sha256: expected "),
        (another_length_within, "(messages: expected 5, got None; "),
    ],
)
def test_a_complete_file_that_was_changed_is_not_complete(tmp_path, caplog, change, said):
    path = tmp_path / "x.grib"
    write(plan(tmp_path, steps=0, members=(1,)))
    write_beside(path, {"run": "aa", "files": [str(path)]})
    assert complete_files(str(path), "aa") == [path]
    size = path.stat().st_size
    change(path)
    assert complete_files(str(path), "aa") is None
    (warning,) = caplog.messages
    assert warning.startswith(f"{path} was complete, and was changed since: it is made again (")
    assert said.format(size=size, half=size // 2) in warning


@pytest.mark.parametrize("change", ["chunk", "metadata", "removed"])
def test_a_complete_store_that_was_changed_is_not_complete(tmp_path, caplog, change):
    store = tmp_path / "x.zarr"
    write(plan(tmp_path, steps=0, members=(1,), path=None, grib=False, zarr=str(store)))
    write_beside(store, {"run": "aa", "files": [str(store)]})
    assert complete_files(str(store), "aa") == [store]
    if change == "chunk":
        cut_in_half(store / "2m_temperature" / "0.0.0.0.0")
    elif change == "metadata":
        (store / ".zmetadata").write_text("{}")
    else:
        (store / "2m_temperature" / "0.0.0.0.0").unlink()
    assert complete_files(str(store), "aa") is None
    assert f"{store} was complete, and was changed since: it is made again (" in caplog.text


@pytest.mark.parametrize("files", [None, "x.grib", [5], [["x.grib"]], ["a\0b"], {}])
def test_a_card_whose_files_are_no_names_is_no_sign_of_completeness(tmp_path, files):
    (tmp_path / "x.grib.provenance.json").write_text(json.dumps({"run": "aa", "files": files}))
    assert complete_files(f"{tmp_path}/x.grib", "aa") is None


def test_a_damaged_complete_file_is_made_again_to_the_same_bytes(run: Runner, caplog: pytest.LogCaptureFixture):
    words = (*DAY, "--path", "f.grib", "--resume")
    run(*words)
    whole = run.path("f.grib").read_bytes()
    run.path("f.grib").write_bytes(whole[: len(whole) // 2])
    caplog.clear()
    run(*words)
    assert run.path("f.grib").read_bytes() == whole
    assert f"f.grib was complete, and was changed since: it is made again (bytes: expected {len(whole)}" in caplog.text
    assert "is complete already" not in caplog.text
    run(*words)
    assert "f.grib is complete already: nothing to do" in caplog.text


def test_messages_are_counted_by_their_lengths_and_nothing_else_is_taken_for_one(tmp_path):
    assert count_messages(SAMPLE) == 164
    (tmp_path / "x").write_bytes(SAMPLE.read_bytes() + b"7777")
    assert count_messages(tmp_path / "x") is None
    (tmp_path / "x").write_bytes(b"GRIB\0\0\0\2" + (2**63).to_bytes(8, "big"))
    assert count_messages(tmp_path / "x") is None
    (tmp_path / "x").write_bytes(b"")
    assert count_messages(tmp_path / "x") == 0
    assert describe(tmp_path / "x").keys() == {"bytes", "tail_sha256"}


# What is being written.


def truncated(partial: Path) -> None:
    os.truncate(partial, 3)


def exchanged(partial: Path) -> None:
    content = partial.read_bytes()
    partial.rename(partial.with_name("away"))
    partial.write_bytes(content)


def removed(partial: Path) -> None:
    partial.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (truncated, "was changed: expected 7 bytes, got 3"),
        (appended, "was changed: expected 7 bytes, got 11"),
        (exchanged, "was exchanged for another file while it was being written"),
        (removed, "its partial file was removed while it was being written"),
    ],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_a_partial_file_that_somebody_changed_does_not_get_its_name(tmp_path, change, said, is_open):
    path = tmp_path / "x.grib"
    files = MessageFiles()
    for each in ("first.grib", "x.grib"):
        files.append(tmp_path / each, b"message")
    if not is_open:
        assert files._close_one()
    change(tmp_path / "x.grib.partial")
    with pytest.raises(OutputError) as caught:
        files.finish()
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert said in str(caught.value)
    assert not path.exists()
    files.abandon()


def test_a_partial_file_that_was_changed_ends_the_run_at_its_next_message(tmp_path):
    made = plan(tmp_path, workers=0)
    steps = list(steps_of(made))

    def run() -> None:
        with Outputs(made, labels()) as outputs:
            outputs.write(steps[0])
            os.truncate(tmp_path / "x.grib.partial", 100)
            outputs.write(steps[1])

    with pytest.raises(OutputError, match=r"x.grib.partial was changed: expected \d+ bytes, got 100$"):
        run()


def test_a_run_that_goes_on_with_fewer_messages_than_it_made_does_not_end_well(tmp_path):
    made = plan(tmp_path, workers=0, products=PRODUCTS)
    steps = list(steps_of(made))

    def begin() -> None:
        with Outputs(made, labels()) as outputs:
            for step in steps[:3]:
                outputs.write(step)
            positions.update(outputs.mark()())
            raise KeyError("killed")

    def go_on() -> None:
        with Outputs(made, labels(), resuming=True) as outputs:
            outputs.resume({name: place for name, place in positions.items() if "products" not in name})
            for step in steps[2:3]:
                outputs.recall(step)
            for step in steps[3:]:
                outputs.write(step)

    positions: dict[str, int] = {}
    with pytest.raises(KeyError):
        begin()
    with pytest.raises(OutputError, match=r"^expected 75 messages in all files, got 65: what an unfinished run left"):
        go_on()
    assert not (tmp_path / "x.grib").exists()


def test_what_is_gone_on_with_holds_whole_messages(tmp_path):
    made = plan(tmp_path, workers=0)
    (tmp_path / "x.grib.partial").write_bytes(b"something else")
    with (
        pytest.raises(OutputError, match=r"expected whole GRIB messages in .*x.grib.partial, got something else"),
        Outputs(made, labels(), resuming=True) as outputs,
    ):
        outputs.resume({str(tmp_path / "x.grib"): 9})
