"""From a GRIB file to an ensemble in GRIB, through the runner."""

import itertools
import signal
import subprocess
import time
from pathlib import Path

import earthkit.data
import numpy as np
import pytest
import xarray
from running import BIN, MINI, SAMPLE, Runner, changed, elsewhere, keys, messages, of_member, values

ENSEMBLE = (*MINI, "--lead-time", 48, "--num-ensemble-members", 3)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three members, two steps, made in another process."""
    folder = tmp_path_factory.mktemp("ensemble")
    done = elsewhere(folder, *ENSEMBLE, "--path", "out.grib")
    assert done.returncode == 0, done.stderr
    return folder / "out.grib"


def test_every_member_and_step_has_all_fields_for_eccodes(ensemble: Path):
    found = [keys(message, "number", "step", "shortName", "level") for message in messages(ensemble)]
    assert len(found) == 3 * 3 * 82
    assert len(set(found)) == len(found)
    assert {(number, step) for number, step, _, _ in found} == set(itertools.product((1, 2, 3), (0, 24, 48)))


def test_every_message_is_labelled_as_an_ensemble_member(ensemble: Path):
    names = (
        "class",
        "stream",
        "type",
        "numberOfForecastsInEnsemble",
        "edition",
        "dataDate",
        "dataTime",
        "localDefinitionNumber",
    )
    found = {keys(message, *names) for message in messages(ensemble)}
    assert found == {("ml", "enfo", "pf", 3, 2, 20080426, 600, 1)}


def test_every_member_and_step_has_all_fields_for_earthkit(ensemble: Path):
    fields = earthkit.data.from_source("file", str(ensemble))
    assert len(fields) == 3 * 3 * 82
    assert fields.index("number") == [1, 2, 3]
    assert fields.index("step") == [0, 24, 48]
    assert len(fields.sel(number=2, step=24)) == 82


def test_every_member_and_step_has_all_fields_for_cfgrib(ensemble: Path):
    def opened(**keys_of_interest: object) -> xarray.Dataset:
        arguments = {"filter_by_keys": keys_of_interest, "indexpath": ""}
        return xarray.open_dataset(ensemble, engine="cfgrib", backend_kwargs=arguments, decode_timedelta=True)

    levels = opened(typeOfLevel="isobaricInhPa")
    assert dict(levels.sizes) == {"number": 3, "step": 3, "isobaricInhPa": 13, "latitude": 31, "longitude": 60}
    assert set(levels.data_vars) == {"z", "q", "t", "u", "v", "w"}
    assert levels.number.values.tolist() == [1, 2, 3]
    assert (levels.step / np.timedelta64(1, "h")).values.tolist() == [0, 24, 48]
    assert set(opened(typeOfLevel="heightAboveGround", level=10).data_vars) == {"u10", "v10"}
    assert set(opened(typeOfLevel="heightAboveGround", level=2).data_vars) == {"t2m"}
    assert set(opened(typeOfLevel="meanSea").data_vars) == {"msl"}


def test_step_0_is_the_input_within_the_error_of_packing(ensemble: Path):
    newest = [m for m in messages(SAMPLE) if keys(m, "dataDate") == (20080426,)]
    wanted = {keys(m, "shortName", "level"): values(m) for m in newest}
    for message in of_member(ensemble, 2):
        if keys(message, "step") == (0,):
            expected = wanted[keys(message, "shortName", "level")]
            assert np.abs(values(message) - expected).max() <= np.ptp(expected) / 65_535


def test_members_differ_from_each_other_after_a_step_but_not_before(ensemble: Path):
    def temperature(member: int, step: int) -> np.ndarray:
        wanted = ("t", 850, step)
        return next(values(m) for m in of_member(ensemble, member) if keys(m, "shortName", "level", "step") == wanted)

    assert (temperature(1, 0) == temperature(2, 0)).all()
    assert not (temperature(1, 24) == temperature(2, 24)).all()
    assert not (temperature(2, 24) == temperature(3, 24)).all()


@pytest.mark.parametrize("members", ["2", "3,2,1", "3-1", "2,1"])
def test_member_2_is_the_same_to_the_byte_however_it_is_run(ensemble: Path, run: Runner, members: str):
    run(*ENSEMBLE, "--member-number", members, "--path", "again.grib")
    assert of_member(run.path("again.grib"), 2) == of_member(ensemble, 2)


def test_without_the_size_of_the_ensemble_a_member_is_still_the_same_to_the_byte(run: Runner):
    for members in ("2", "1-3", "3,2,1"):
        run(*MINI, "--lead-time", 24, "--member-number", members, "--path", f"{members}.grib")
    alone = of_member(run.path("2.grib"), 2)
    assert len(alone) == 2 * 82
    assert alone == of_member(run.path("1-3.grib"), 2) == of_member(run.path("3,2,1.grib"), 2)
    assert {keys(message, "numberOfForecastsInEnsemble") for message in alone} == {(255,)}


def test_a_member_has_the_same_values_in_an_ensemble_of_another_size(ensemble: Path, run: Runner):
    run(*MINI, "--lead-time", 24, "--num-ensemble-members", 40, "--member-number", 2, "--path", "large.grib")
    small = [message for message in of_member(ensemble, 2) if keys(message, "step") != (48,)]
    for message, other in zip(of_member(run.path("large.grib"), 2), small, strict=True):
        assert keys(message, "numberOfForecastsInEnsemble", "step") == (40, *keys(other, "step"))
        assert (values(message) == values(other)).all()


@pytest.mark.parametrize("size", [2, 3])
def test_members_in_one_batch_are_the_same_to_the_byte(ensemble: Path, run: Runner, size: int):
    run(*ENSEMBLE, "--members-per-batch", size, "--path", "batches.grib")
    for member in (1, 2, 3):
        assert of_member(run.path("batches.grib"), member) == of_member(ensemble, member)


def test_another_seed_makes_other_members(ensemble: Path, run: Runner):
    run(*ENSEMBLE, "--member-number", 2, "--seed", 1, "--path", "seed.grib")
    ours, theirs = of_member(run.path("seed.grib"), 2), of_member(ensemble, 2)
    assert ours[:82] == theirs[:82]
    assert not any(message == other for message, other in zip(ours[82:], theirs[82:], strict=True))


def test_two_runs_in_one_process_do_not_see_each_other(ensemble: Path, run: Runner):
    run(*ENSEMBLE, "--metadata", "expver=1234", "--path", "first.grib")
    run(*ENSEMBLE, "--path", "second.grib")
    assert {keys(message, "expver") for message in messages(run.path("first.grib"))} == {("1234",)}
    assert run.path("second.grib").read_bytes() == ensemble.read_bytes()


def test_without_options_there_is_one_member_and_its_number_is_1(run: Runner):
    run(*MINI, "--lead-time", 24)
    found = messages(run.path("mosaic.grib"))
    assert {keys(message, "number", "numberOfForecastsInEnsemble", "type") for message in found} == {(1, 1, "pf")}
    assert len(found) == 2 * 82


def test_our_output_is_our_input(run: Runner, caplog: pytest.LogCaptureFixture):
    run(*MINI, "--lead-time", 48, "--path", "first.grib")
    run("mosaic", "--file", "first.grib", "--lead-time", 24, "--path", "second.grib")
    assert "Variant mini, because first.grib is on its grid of 60 × 31 points (6°)" in caplog.text
    assert {keys(message, "dataDate", "dataTime") for message in messages(run.path("second.grib"))} == {(20080428, 600)}


def test_every_member_of_an_ensemble_as_input_goes_on_and_without_noise_alone(
    ensemble: Path, run: Runner, caplog: pytest.LogCaptureFixture
):
    short = ("mosaic", "--file", ensemble, "--lead-time", 24, "--perturbations", "off")
    run(*short, "--member-number", "3,5", "--path", "next.grib")
    assert "The input is an ensemble: members start from its own, 3 from 3, 5 from 2" in caplog.text
    first = [m for number in (3, 2) for m in of_member(ensemble, number) if keys(m, "step") == (48,)]
    again = [m for m in messages(run.path("next.grib")) if keys(m, "step") == (0,)]
    for message, source in zip(again, first, strict=True):
        np.testing.assert_allclose(values(message), values(source), rtol=0, atol=np.ptp(values(source)) / 65_535)


def test_grib1_with_heights_and_more_fields_than_needed_gives_the_same_start(ensemble: Path, run: Runner):
    sources = []
    for message in messages(SAMPLE):
        name, level = keys(message, "shortName", "level")
        old = changed(message, edition=1)
        if name == "z":
            # Twice the bits, so that the height is as exact as the geopotential.
            old = changed(message, values(message) / 9.80665, shortName="gh", bitsPerValue=24)
        sources += [old, changed(message, level=level + 1)] if level > 10 else [old]
    run.path("mixed.grib").write_bytes(b"".join(reversed(sources)))
    run("mosaic", "--variant", "mini", "--file", "mixed.grib", "--lead-time", 0, "--path", "start.grib")
    expected = [m for m in of_member(ensemble, 1) if keys(m, "step") == (0,)]
    for message, source in zip(messages(run.path("start.grib")), expected, strict=True):
        assert keys(message, "shortName", "level", "step") == keys(source, "shortName", "level", "step")
        np.testing.assert_allclose(values(message), values(source), rtol=0, atol=np.ptp(values(source)) / 32_767)


def test_a_killed_run_leaves_whole_messages_and_no_file_under_the_final_name(tmp_path: Path):
    command = [BIN / "ai-models", *MINI, "--lead-time", 24 * 400, "--path", "out.grib"]
    partial = tmp_path / "out.grib.partial"
    with subprocess.Popen([str(word) for word in command], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > 400_000):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.grib").exists()
    assert sum(len(message) for message in messages(partial)) == partial.stat().st_size


def test_a_run_that_fails_leaves_an_older_file_alone(run: Runner):
    run.path("mosaic.grib").write_bytes(b"precious")
    sources = messages(SAMPLE)
    bad = changed(sources[0], values(sources[0]) + 1e9)
    run.path("bad.grib").write_bytes(b"".join([bad, *sources[1:]]))
    refused = run.refused("mosaic", "--variant", "mini", "--file", "bad.grib", "--lead-time", 24)
    assert refused.status == 3
    assert "1 input field cannot be used:\n  2t valid 2008-04-25 06:00 UTC: value " in refused.message
    assert run.path("mosaic.grib").read_bytes() == b"precious"
    assert not run.path("mosaic.grib.partial").exists()
