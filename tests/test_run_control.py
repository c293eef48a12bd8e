"""What a user of the command line controls of a run: going on, several dates, replay, progress, statuses."""

import json
import logging
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from running import BIN, MINI, ROOT, SAMPLE, Runner, changed, keys, messages, of_member, values

from ai_models_mosaic import errors
from ai_models_mosaic.cli import main
from ai_models_mosaic.forecast.recorded import Card, read_card
from ai_models_mosaic.forecast.replay import choose_channels, choose_hours

ENSEMBLE = (*MINI, "--lead-time", 72, "--num-ensemble-members", 2, "--num-threads", 1, "--path", "out.grib")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run, and what it noted of its progress."""
    folder = tmp_path_factory.mktemp("ensemble")
    command = [BIN / "ai-models", *ENSEMBLE, "--progress-file", "progress.jsonl", "--archive-requests", "archive.req"]
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "out.grib"


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Going on.


@pytest.fixture
def stopped(run: Runner) -> Path:
    """A run that a signal stopped after at least a step of every member."""
    command = [BIN / "ai-models", *ENSEMBLE, "--lead-time", 24 * 400, "--progress-file", "progress.jsonl"]
    path = run.path("progress.jsonl")
    with subprocess.Popen(
        [str(word) for word in command], cwd=run.folder, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and (not path.exists() or path.read_text().count('"step": 1') < 2):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 143
    assert re.search(
        r"stopped by a signal after step \d+ \(\+\d+ h\), as asked; run again with --resume to go on\n", said
    )
    last = events(path)[-1]
    assert (last["event"], last["exit_status"]) == ("failed", 143)
    return path


def test_another_seed_lead_time_or_input_is_not_gone_on_with(run: Runner, stopped: Path):
    later = run.path("later.grib")
    later.write_bytes(b"".join(changed(m, values(m) * 1.0001) for m in messages(SAMPLE)))
    refused = run.refused(*ENSEMBLE, "--resume", "--seed", 3, "--antithetic", "--file", later)
    assert refused.status == 7
    assert (
        "out.grib.20080426T0600.state is another than this one:\n  steps: it began with 400, now 3\n" in refused.message
    )
    assert (
        "\n  --seed: it began with 0, now 3\n  --antithetic: it began with False, now True\n  input: it "
        in refused.message
    )
    assert not run.path("out.grib").exists()


def test_a_run_that_a_signal_stopped_goes_on_to_the_same_bytes_and_archive_requests(
    run: Runner, ensemble: Path, monkeypatch: pytest.MonkeyPatch
):
    from ai_models_mosaic.engines.tensor_states import TensorStates

    step, calls = TensorStates.advance, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(TensorStates, "advance", stopping)
    assert run.refused(*ENSEMBLE).status == 143
    run(*ENSEMBLE, "--resume", "--archive-requests", "archive.req")
    assert len(calls) == 6
    assert run.path("out.grib").read_bytes() == ensemble.read_bytes()
    assert run.path("archive.req").read_text() == ensemble.with_name("archive.req").read_text()
    names = sorted(path.name for path in run.folder.iterdir())
    assert names == ["archive.req", "out.grib", "out.grib.provenance.json"]
    # It is complete: the same again has nothing to do, and another is not put in its place.
    run(*ENSEMBLE, "--resume")
    assert len(calls) == 6
    refused = run.refused(*ENSEMBLE, "--resume", "--lead-time", 24)
    assert refused.status == 7
    assert "out.grib is complete, and of another run than this one:\n  steps: it was 3, now 1\n" in refused.message
    assert len(calls) == 6
    run(*ENSEMBLE, "--lead-time", 24)
    assert len(calls) == 8


def test_what_has_no_files_is_not_gone_on_with(run: Runner):
    refused = run.refused(*MINI, "--lead-time", 24, "--output", "none", "--resume")
    assert refused.status == 7
    assert "--resume: expected output in files to go on with" in refused.message


# Progress.


def test_progress_is_noted_line_by_line(ensemble: Path):
    found = events(ensemble.with_name("progress.jsonl"))
    assert [event["event"] for event in found] == ["begin", *["step"] * 8, "end"]
    begin = {key: found[0][key] for key in ("initial_time", "members", "steps", "done")}
    assert begin == {"initial_time": "2008-04-26T06:00:00", "members": 2, "steps": 3, "done": 0}
    steps = [(event["step"], event["lead_time_hours"], event["members"]) for event in found[1:-1]]
    assert steps == [(step, 24 * step, [member]) for step in range(4) for member in (1, 2)]
    times = [event["time"] for event in found]
    assert times == sorted(times)


def test_quiet_logs_warnings_only(run: Runner, caplog: pytest.LogCaptureFixture):
    logging.getLogger().setLevel(logging.INFO)
    run(*MINI, "--lead-time", 24, "--quiet")
    ours = [record for record in caplog.records if record.name.startswith("ai_models_mosaic")]
    assert {record.levelname for record in ours} <= {"WARNING"}
    caplog.clear()
    run(*MINI, "--lead-time", 0)
    assert "INFO" in {record.levelname for record in caplog.records if record.name.startswith("ai_models_mosaic")}


def test_a_progress_file_that_cannot_be_written_is_refused(run: Runner):
    refused = run.refused(*MINI, "--lead-time", 24, "--progress-file", "absent/p.jsonl")
    assert refused.status == 6
    assert "--progress-file absent/p.jsonl: cannot be written: No such file or directory" in refused.message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--progress-file", "out.grib"),
            "--progress-file out.grib: expected a file of its own, got that of --path out",
        ),
        (("--progress-file", "copy.grib"), "--progress-file copy.grib: expected a file of its own, got that of --file"),
        (("--progress-file", "notes"), "--progress-file notes: expected no file, or lines of JSON, which are added to"),
        (
            ("--products", "mean", "--health", "out-mean.grib"),
            "--health out-mean.grib: expected a file of its own, got that of --path out-{product}.grib",
        ),
        (
            ("--zarr", "x.zarr", "--health", "x.zarr"),
            "--health x.zarr: expected a file of its own, got that of --zarr x",
        ),
        (
            ("--dump-provenance", "./out.grib.provenance.json"),
            "expected a file of its own, got that of the card of --path out.grib",
        ),
        (
            ("--health", "h", "--progress-file", "h"),
            "--progress-file h: expected a file of its own, got that of --health",
        ),
    ],
)
def test_what_is_written_beside_a_forecast_goes_over_nothing(run: Runner, words, message):
    for name in ("copy.grib", "notes"):
        run.path(name).write_bytes(SAMPLE.read_bytes() if name == "copy.grib" else b"what I must not forget\n")
    refused = run.refused(*MINI[:3], "--file", "copy.grib", "--lead-time", 24, *words, "--path", "out.grib")
    assert refused.status == 6
    assert message in refused.message
    assert sorted(path.name for path in run.folder.iterdir()) == ["copy.grib", "notes"]
    assert run.path("copy.grib").read_bytes() == SAMPLE.read_bytes()
    assert run.path("notes").read_text() == "what I must not forget\n"


def test_every_kind_of_failure_has_a_status_of_its_own_and_the_documentation_lists_them():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MosaicError)}
    statuses = {kind.exit_status for kind in kinds}
    assert len(statuses) == len(kinds)
    listed = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert sorted(int(status) for status in listed) == sorted({0, errors.INTERRUPTED, *statuses})


# ConnectedRanks initial times.


def test_one_of_several_dates_fails_and_the_others_are_complete(run: Runner, caplog: pytest.LogCaptureFixture):
    later = [changed(m, dataDate=20080427) for m in messages(SAMPLE) if keys(m, "dataDate") == (20080426,)]
    run.path("three.grib").write_bytes(b"".join([*messages(SAMPLE), *later]))
    several = ("mosaic", "--variant", "mini", "--file", "three.grib", "--lead-time", 24, "--path", "{dataDate}.grib")
    refused = run.refused(*several, "--dates", "20080425/to/20080427", "--progress-file", "progress.jsonl")
    assert refused.status == 9
    assert (
        "1 of 3 initial times failed, the others are complete:\n  2008-04-25: the input lacks 82 of " in refused.message
    )
    # Told once: the log says when, the end says why.
    assert "2008-04-25 failed with status 3; why is told after the others" in caplog.text
    assert "the input lacks" not in caplog.text
    assert "1 member × 1 step of 24 h, 1 per batch, seed 0; estimated memory " in caplog.text
    assert re.search(r"estimated memory \d+ MB$", caplog.text, re.MULTILINE)
    for day in (20080426, 20080427):
        found = messages(run.path(f"{day}.grib"))
        assert {keys(message, "dataDate", "step") for message in found} == {(day, 0), (day, 24)}
        card = json.loads(run.path(f"{day}.grib.provenance.json").read_text())
        assert card["input"]["initial_time"] == f"2008-04-{day % 100}T06:00:00"
    found = [event["event"] for event in events(run.path("progress.jsonl"))]
    assert found == ["failed", *["begin", "step", "step", "end"] * 2]
    # One date alone is the same to the byte.
    run(*several[:-1], "alone.grib", "--date", 20080426)
    assert run.path("alone.grib").read_bytes() == run.path("20080426.grib").read_bytes()


def test_dates_that_would_go_to_one_file_are_refused(run: Runner):
    refused = run.refused(*MINI, "--lead-time", 24, "--dates", "20080426T00,20080426T06", "--path", "{dataDate}.grib")
    assert refused.status == 6
    assert (
        "expected a file for every initial time, got 20080426.grib for 2008-04-26 00:00:00 and for 2008-04-26 06:0"
        in (refused.message)
    )


@pytest.mark.parametrize(
    "words", [("--date", "20080426"), ("--staging-dates", "dates.txt")], ids=["with --date", "with --staging-dates"]
)
def test_dates_are_given_in_one_way_only(run: Runner, words: tuple[str, ...]):
    refused = run.refused(*MINI, "--lead-time", 24, "--dates", "20080426", *words)
    assert refused.status == 2
    assert "expected one of --date, --dates and --staging-dates, got two of them" in refused.message


def test_the_runners_staging_dates_are_several_dates(run: Runner):
    # The second is the same instant, by another clock.
    run.path("dates.txt").write_text("2008-04-26T06:00:00\n2008-04-26T08:00:00+02:00\n")
    run(*MINI, "--lead-time", 0, "--staging-dates", "dates.txt", "--path", "{dataDate}-{dataTime:04d}.grib")
    assert [path.name for path in run.folder.glob("*.grib")] == ["20080426-0600.grib"]


# Replay.


def replayed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["replay", *(str(word) for word in words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_fields_are_made_again_to_the_byte_from_the_card(
    ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    card, output = f"{ensemble}.provenance.json", tmp_path / "again.grib"
    words = (card, "--member", 2, "--steps", "24-48", "--params", "2t,z500", "--output", output)
    status, said, _ = replayed(capsys, *words)
    assert said == f"{output}: 4 fields made again, 4 of 4 identical to the original's\n"
    assert status == 0
    wanted = [
        message
        for message in of_member(ensemble, 2)
        if keys(message, "step") in ((24,), (48,)) and keys(message, "shortName", "level") in (("2t", 2), ("z", 500))
    ]
    assert messages(output) == wanted


def test_a_replay_that_is_off_says_how_far_and_what_is_another(
    ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    card = json.loads(Path(f"{ensemble}.provenance.json").read_text())
    warmer = [changed(m, values(m) + 1.0) if keys(m, "shortName") == ("2t",) else m for m in of_member(ensemble, 1)]
    (tmp_path / "out.grib").write_bytes(b"".join(warmer))
    card["packages"]["torch"] = "1.0"
    (tmp_path / "out.grib.provenance.json").write_text(json.dumps(card))
    words = ("--member", 1, "--steps", 24, "--params", "2t,msl", "--output", tmp_path / "again.grib")
    status, said, error = replayed(capsys, tmp_path / "out.grib.provenance.json", *words)
    assert status == 10
    first, second, third = said.removeprefix(f"{tmp_path}/again.grib: ").splitlines()
    assert first.startswith("torch was 1.0, is 2.")
    assert second == "2 fields made again, 1 of 2 identical to the original's"
    std = next(values(m).std() for m in warmer if keys(m, "shortName", "step") == ("2t", 24))
    match = re.fullmatch(r"farthest off: 2t at level 2 of member 1 at \+24 h, by (\S+), (\S+) of the field's .*", third)
    assert float(match[1]) == pytest.approx(1, rel=0.02)
    assert float(match[2]) == pytest.approx(1 / std, rel=0.08)
    assert "1 fields are not those of the original" in error


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"source": "/absent.grib"}, 3, "was /absent.grib, which is no file that is there: give it with --file"),
        ({"sha256": "ab"}, 3, "is not what the forecast of {card} started from: expected fields with SHA-256 ab, got "),
    ],
)
def test_another_input_is_not_replayed_from(
    ensemble: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    status: int,
    message: str,
):
    found = json.loads(Path(f"{ensemble}.provenance.json").read_text())
    found["input"] |= change
    card = tmp_path / "card.json"
    card.write_text(json.dumps(found))
    words = (card, "--member", 1, "--steps", 24, "--output", tmp_path / "again.grib")
    found_status, _, error = replayed(capsys, *words)
    assert found_status == status
    assert message.format(card=card) in error
    assert not (tmp_path / "again.grib").exists()


def test_other_static_fields_are_not_replayed_with(ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = json.loads(Path(f"{ensemble}.provenance.json").read_text())
    found["weights"]["data"]["static fields"] = {"file": "/a/static.npz", "sha256": "ab"}
    card = tmp_path / "card.json"
    card.write_text(json.dumps(found))
    words = (card, "--member", 1, "--steps", 24, "--output", tmp_path / "again.grib")
    status, _, error = replayed(capsys, *words)
    assert status == 4
    assert f"the static fields of {card}: expected /a/static.npz with SHA-256 ab, got none; give the folder" in error
    # A card of before there was word of them.
    del found["weights"]["data"]
    card.write_text(json.dumps(found))
    assert replayed(capsys, *words, "--params", "2t")[0] == 0


def test_what_is_no_card_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x.json").write_text("{}")
    words = (tmp_path / "x.json", "--member", 1, "--steps", 24, "--output", tmp_path / "again.grib")
    status, _, error = replayed(capsys, *words)
    assert status == 3
    assert (
        "expected the card of a forecast, NAME.grib.provenance.json, got something else (KeyError('variant'))" in error
    )


def test_steps_and_parameters_of_a_replay_are_chosen_by_lists(ensemble: Path):
    card = read_card(Path(f"{ensemble}.provenance.json"))
    assert choose_hours("0,48-100,24", card) == (0, 24, 48, 72, 96)
    assert len(choose_channels("z")) == 13
    assert len(choose_channels(None)) == 82
    assert choose_channels("2t, z500") == choose_channels("z500,2t")
    with pytest.raises(errors.OptionError, match=r"^--steps: expected hours, multiples of 24, .*, got '25-47'$"):
        choose_hours("25-47", card)
    # The endless ones are refused without being made.
    with pytest.raises(errors.OptionError, match=r"^--steps: expected a list of at most 65535 numbers, got '24-9+'$"):
        choose_hours("24-99999999999", card)
    assert choose_hours("24/to/72/by/24", card) == (24, 48, 72)
    with pytest.raises(
        errors.OptionError,
        match=r"^--params: expected some of 2t, 10u, 10v, msl, z, q, t, u, v, w, or one level such as z500, got 'z501'; levels are ",
    ):
        choose_channels("z501")


@pytest.mark.parametrize(
    ("engine", "options", "device", "backend", "threads"),
    [
        ("CPU (2 threads), float32, attention backend tiled", {"attention_backend": "auto"}, "cpu", "tiled", 2),
        ("CPU (2 threads), float32, attention backend tiled", {"attention_backend": "auto"}, "cuda", "auto", 2),
        ("NVIDIA H100, float16, attention backend triton", {"attention_backend": "triton"}, "cpu", "triton", None),
        ("NVIDIA H100, float16, attention backend sdpa, CUDA graphs", {}, "cuda", "sdpa", None),
        ("NVIDIA H100, float16, attention backend triton", {}, "cpu", "auto", None),
        ("CPUExecutionProvider, float32", {}, "cpu", "auto", None),
    ],
)
def test_a_replay_takes_the_backend_and_the_threads_of_the_original_on_the_same_kind_of_device(
    engine, options, device, backend, threads
):
    card = Card(Path("a.grib.provenance.json"), {"engine": engine, "options": options})
    assert (card.attention_backend(device), card.threads) == (backend, threads)


# The noise.


def test_without_noise_members_are_all_the_same_and_antithetic_ones_lie_about_them(run: Runner):
    short = (*MINI, "--lead-time", 24, "--num-ensemble-members", 2)
    for name, words in (("off", ("--perturbations", "off")), ("pair", ("--antithetic",)), ("usual", ())):
        run(*short, *words, "--path", f"{name}.grib")

    def temperature(name: str, member: int) -> np.ndarray:
        wanted = ("t", 850, 24)
        found = of_member(run.path(f"{name}.grib"), member)
        return next(values(m) for m in found if keys(m, "shortName", "level", "step") == wanted)

    assert (temperature("off", 1) == temperature("off", 2)).all()
    assert (temperature("pair", 1) == temperature("usual", 1)).all()
    assert not (temperature("pair", 2) == temperature("usual", 2)).all()


def test_the_requests_of_several_dates_are_those_of_all_their_histories_once(run: Runner):
    words = ("mosaic", "--variant", "era5", "--input", "cds", "--time", 0, "--dates", "20200101/to/20200102")
    requests = json.loads(run(*words, "--retrieve-requests", "--json"))
    found = [(request["date"], request["time"]) for request in requests if request["levtype"] == "pl"]
    assert found == [(20191231, 0), (20200101, 0), (20200102, 0)]
