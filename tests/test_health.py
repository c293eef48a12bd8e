"""The flight recorder: sick members are told from sound ones, and what is recorded survives."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from ensembles import ensemble
from late_device import LateEngine
from running import MINI, ROOT, SAMPLE, Runner
from test_tensor_states import network, starts  # noqa: F401 - fixtures
from test_torch_engine import CPU, STATISTICS
from toy_run import several
from toy_series import LoadedToy, Toy

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.cli import main
from ai_models_mosaic.engines.states import StepsOnHost
from ai_models_mosaic.engines.tensor_vitals import TensorProbe
from ai_models_mosaic.engines.vitals import Probe
from ai_models_mosaic.errors import ForecastError, HealthError, InputError, OptionError, OutputError
from ai_models_mosaic.forecast.deadline import Budget
from ai_models_mosaic.forecast.growing import Bounds, GrowingRun
from ai_models_mosaic.forecast.health.bands import Bands, read_bands, write_bands
from ai_models_mosaic.forecast.health.groups import GroupRecorder
from ai_models_mosaic.forecast.health.learning import learn
from ai_models_mosaic.forecast.health.options import HealthOptions
from ai_models_mosaic.forecast.health.record import Section, read_record
from ai_models_mosaic.forecast.health.recorder import Recorder
from ai_models_mosaic.forecast.health.signs import Reference
from ai_models_mosaic.forecast.options import parse_options
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.forecast.run import EnsembleJob, EnsembleRun, NoWriter
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.report import health
from ai_models_mosaic.report.ensemble import canonical
from ai_models_mosaic.state import InitialState

GRID = LatLonGrid.regular(10.0)
START = datetime(2020, 2, 29, 18)
LABELS = [channel.label for channel in CHANNELS]
Illness = Callable[[np.ndarray], None]


def sound_start() -> InitialState:
    """Physical means, and waves of every length that fall off as in the atmosphere."""
    generator = np.random.default_rng(7)
    columns, rows = GRID.shape
    longitude = np.radians(np.array(GRID.longitude_deg))[:, None, None]
    values = np.empty((2, *GRID.shape, len(CHANNELS)), dtype=np.float32)
    values[:] = [(channel.minimum + channel.maximum) / 2 for channel in CHANNELS]
    width = np.array([(channel.maximum - channel.minimum) / 20 for channel in CHANNELS])
    for wave in range(1, columns // 2 + 1):
        amplitude = width * generator.normal(size=(1, rows, len(CHANNELS))) / wave**1.5
        values += amplitude * np.cos(wave * longitude + generator.uniform(0, 6, (1, rows, len(CHANNELS))))
    return InitialState(GRID, (START - timedelta(hours=24), START), values)


class SickEngine(StepsOnHost):
    """Members stay where they are but for some noise; from a step on, one has an illness."""

    noise_width, description = 4, "toy"

    def __init__(self, illness: Illness = lambda _: None, since: int = 2) -> None:
        self._illness, self._since, self._steps = illness, since, 0

    def step(self, history, progress, noise):
        self._steps += 1
        places = np.sin(np.arange(GRID.size, dtype=np.float32)).reshape(*GRID.shape, 1)
        # Of one size in all fields, beside their own.
        size = np.ptp(history[:, -1], axis=(1, 2), keepdims=True) / 1000
        values = history[:, -1] + size * noise[:, None, None, :1] * places
        if self._steps >= self._since:
            self._illness(values)
        return values.astype(np.float32)

    def memory_bytes(self, members):
        return members


def recorded(folder: Path, illness: Illness = lambda _: None, *, factor: float = 1.0, **options) -> Section:
    """What is recorded of 3 members and 3 steps, of which one falls ill in the second."""
    ensemble = Ensemble(5, (1, 2, 3), 3, factor)
    job = EnsembleJob(dict.fromkeys(ensemble.members, sound_start()), ensemble, 24, 3)
    recorder = Recorder(HealthOptions(folder / "health.json", **options), "mini", resume=False)
    EnsembleRun(job, SickEngine(illness), SingleRank(), NoWriter(), None, Watch(), recorder)()
    recorder.verdict()
    (section,) = read_record(folder / "health.json")
    return section


def alarms(section: Section) -> dict[tuple[int, int], list[str]]:
    return {(line["step"], line["member"]): line["alarms"] for line in section.lines if line["alarms"]}


# What is measured.


def test_power_is_that_of_waves_by_area():
    probe = Probe(GRID, len(CHANNELS))
    assert probe.waves == ((1, 3), (4, 9), (10, 12), (13, 18))
    values = np.full((1, *GRID.shape, len(CHANNELS)), 5, dtype=np.float32)
    longitude = np.radians(np.array(GRID.longitude_deg))[:, None]
    values[0, :, :, LABELS.index("z500")] += 3 * np.cos(2 * longitude) + np.cos(18 * longitude)
    power = probe.power(probe.measure(values))[0]
    # The square of a wave of amplitude 3 is 4.5 in the mean, that of the shortest is 1 at every point.
    np.testing.assert_allclose(power[0], [4.5, 0, 0, 1.0], atol=1e-6)
    np.testing.assert_allclose(power[1:], 0, atol=1e-6)


def test_mass_and_water_are_means_by_area():
    probe = Probe(GRID, len(CHANNELS))
    values = np.zeros((2, *GRID.shape, len(CHANNELS)), dtype=np.float32)
    # An odd function of latitude has no mean, whatever the rows at the poles.
    values[..., LABELS.index("msl")] = 101_000 + 100 * np.array(GRID.latitude_deg)
    for channel in (index for index, label in enumerate(LABELS) if label.startswith("q")):
        values[1, ..., channel] = 0.01
    means = probe.means(probe.measure(values))
    np.testing.assert_allclose(means[:, 0], 101_000, rtol=1e-6)
    # 950 hPa of air that is water to one hundredth.
    np.testing.assert_allclose(means[:, 1], [0, 0.01 * 95_000 / 9.80665], rtol=1e-6)


def test_the_waves_of_the_full_size_have_more_groups():
    assert Probe(LatLonGrid.regular(1.5), 82).waves == ((1, 3), (4, 9), (10, 29), (30, 80), (81, 120))


@pytest.mark.parametrize("channels", [6, 82])
def test_tensors_have_the_same_vital_signs_as_arrays(channels):
    probe = Probe(GRID, channels)
    values = np.concatenate([sound_start().values, 1.1 * sound_start().values])[..., :channels]
    found, wanted = TensorProbe(probe, CPU)(torch.from_numpy(values)).numpy(), probe.measure(values)
    assert found.shape == (4, probe.size)
    np.testing.assert_array_equal(probe.extremes(found), probe.extremes(wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-12)


def test_a_device_measures_what_it_makes_and_hands_it_over_with_it(network, starts):  # noqa: F811
    start = starts[1]
    probe = Probe(start.grid, start.values.shape[-1])
    engine = LateEngine(network, STATISTICS, CPU)
    made = list(rollout(engine, starts, Ensemble(3, tuple(starts), 2), 24, 2, probe=probe))
    assert [one.vitals is None for one in made] == [one.step == 0 for one in made]
    for one in made[3:]:
        np.testing.assert_allclose(one.vitals, probe.measure(one.values), rtol=1e-4, atol=1e-6)


# What is wrong.


def test_sound_members_have_no_alarm(tmp_path, caplog):
    section = recorded(tmp_path)
    assert alarms(section) == {}
    assert [(line["step"], line["member"]) for line in section.lines] == [(s, m) for s in (1, 2, 3) for m in (1, 2, 3)]
    assert section.ending == {"event": "end"}
    assert section.header["climate"] == "start"
    assert "Health" not in caplog.text
    for ratios in section.lines[0]["power"].values():
        np.testing.assert_allclose(ratios, 1, rtol=0.02)


def scaled(values):
    values[1] *= 3


def constant(values):
    values[1, ..., LABELS.index("w300")] = 0.5


def copied(values):
    values[1] = values[0]


def exploding(values):
    values[1, ::2, :, LABELS.index("t850")] += 20
    values[1, 1::2, :, LABELS.index("t850")] -= 20


def blurred(values):
    values[1, ..., LABELS.index("q700")] = values[1, ..., LABELS.index("q700")].mean(axis=0)


def leaking(values):
    values[1, ..., LABELS.index("msl")] -= 700


def drying(values):
    values[1, ..., [label.startswith("q") for label in LABELS]] *= 0.5


@pytest.mark.parametrize(
    ("illness", "message"),
    [
        (scaled, r"power of z500 at wavenumbers 1 to 3 is 9 times the start's, expected 0.1 to 6"),
        (constant, "the range of w300 is 0 times the start's, expected at least 0.1"),
        (copied, "it is a copy of member 1"),
        (exploding, "power of t850 at wavenumbers 13 to 18 is "),
        (blurred, "power of q700 at wavenumbers 4 to 9 is "),
        (leaking, "mean pressure at sea level is -700 Pa more than at the start, expected -500 to 500"),
        (drying, "water in the column is 0.5 times the start's, expected 0.7 to 1.4"),
    ],
)
def test_a_sick_member_is_told(tmp_path, caplog, illness, message):
    found = alarms(recorded(tmp_path, illness))
    assert set(found) == {(2, 2), (3, 2)}
    assert any(alarm.startswith(message) for alarm in found[2, 2]), found[2, 2]
    warnings = [line for line in caplog.messages if line.startswith("Health")]
    assert len(warnings) == 2
    assert warnings[0].startswith("Health at step 2 (+48 h): 1 of 3 members left their bands; member 2: ")


def test_equal_members_of_one_start_without_noise_are_what_was_asked_for(tmp_path):
    assert alarms(recorded(tmp_path, factor=0.0)) == {}


def test_a_run_that_becomes_non_finite_says_so_in_its_last_line(tmp_path):
    def illness(values):
        values[2, 3, 4, LABELS.index("z500")] = math.nan

    with pytest.raises(ForecastError):
        recorded(tmp_path, illness)
    (section,) = read_record(tmp_path / "health.json")
    assert len(section.lines) == 3
    assert section.ending["exit_status"] == 5
    assert section.ending["message"].startswith(
        "the forecast became non-finite: geopotential_500 of member 3 at step 2 (+48 h)"
    )


def test_what_is_not_finite_is_told_and_is_null_in_the_record():
    start = sound_start()
    probe = Probe(GRID, len(CHANNELS))
    values = start.values[-1:].copy()
    values[0, 0, 0, LABELS.index("z500")] = math.nan
    (signs,) = Reference(probe, start, None).signs(probe.measure(values))
    assert list(Bands.default(probe).complaints(signs)) == ["a field is not finite"]
    assert signs.as_json()["power"]["z500"] == [None] * 4
    json.loads(json.dumps(signs.as_json(), allow_nan=False))


def test_alarms_may_have_a_status_of_their_own(tmp_path):
    with pytest.raises(
        HealthError, match="--health-exit: the forecast is complete, and 2 steps of members left their bands"
    ):
        recorded(tmp_path, copied, exits=True)
    assert HealthError.exit_status == 13


def test_the_default_bands_do_not_cry_wolf_on_mini(run: Runner, caplog):
    run(*MINI, "--lead-time", 240, "--num-ensemble-members", 2, "--output", "none", "--health", "h.json")
    (section,) = read_record(run.path("h.json"))
    assert alarms(section) == {}
    assert len(section.lines) == 20
    assert (section.header["variant"], section.header["climate"]) == ("mini", "weights")
    assert "Health" not in caplog.text


# Bands of runs.


def test_bands_of_clean_runs_are_closer_than_the_default(tmp_path, capsys, caplog):
    recorded(tmp_path)
    assert main(["health-bands", str(tmp_path / "health.json"), "--output", str(tmp_path / "bands.json")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'bands.json'}: bands of 1 run\n"
    assert "Bands of 1 runs: 20 or more tell better what is usual" in caplog.text
    bands = read_bands(tmp_path / "bands.json", Probe(GRID, len(CHANNELS)), "mini")
    low, high = bands.power["z500"][3]
    assert 0.6 < low < 0.7 < 1.4 < high < 1.6
    assert bands.numbers["beyond"][0] == -math.inf

    def warmer(values):
        values[1, ..., LABELS.index("msl")] -= 100

    assert alarms(recorded(tmp_path, warmer)) == {}
    found = alarms(recorded(tmp_path, warmer, bands=tmp_path / "bands.json"))
    assert set(found) == {(2, 2), (3, 2)}


def test_bands_come_from_clean_runs_alone(tmp_path):
    recorded(tmp_path, drying)
    with pytest.raises(InputError, match="expected records of complete runs without alarms, got 1 runs, none of them"):
        learn([tmp_path / "health.json"])
    assert learn([tmp_path / "health.json"], with_alarms=True)[1]["runs"] == 1
    recorded(tmp_path, copied)
    with pytest.raises(InputError, match="without alarms"):
        learn([tmp_path / "health.json"], with_alarms=True)


def test_bands_of_another_variant_or_grid_are_refused(tmp_path):
    recorded(tmp_path)
    bands, origin = learn([tmp_path / "health.json"])
    write_bands(tmp_path / "b.json", bands, origin)
    assert read_bands(tmp_path / "b.json").waves == bands.waves
    with pytest.raises(InputError, match=r"expected bands of era5 at wavenumbers .* got those of mini"):
        read_bands(tmp_path / "b.json", Probe(GRID, len(CHANNELS)), "era5")
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"--health-bands .*c.json: expected what ai-models-mosaic health-bands writes"
    ):
        read_bands(tmp_path / "c.json")


# The file.


def recorded_lines(path: Path) -> list[tuple[int, int]]:
    (section,) = read_record(path)
    return [(line["step"], line["member"]) for line in section.lines]


def test_a_resumed_run_goes_on_in_its_record_and_has_no_step_twice(tmp_path):
    health = tmp_path / "health.json"
    words = ("--health", str(health), "--state-interval", "0")
    Toy(str(tmp_path / "whole.grib"))(*words)
    whole = health.read_bytes()
    toy = Toy(str(tmp_path / "out.grib"))
    # In the midst of the second step.
    toy.stopped(*words, engine=LoadedToy(stops_at=5))
    assert read_record(health)[0].ending["exit_status"] == 143
    done = recorded_lines(health)
    assert 3 <= len(done) < 6
    # As after a kill: a step that no state was kept of, and half a line.
    (section,) = read_record(health)
    later = {**section.lines[-1], "step": 2, "member": 3}
    health.write_bytes(health.read_bytes() + json.dumps(later).encode() + b'\n{"event":"st')
    toy(*words, "--resume")
    assert health.read_bytes() == whole
    assert recorded_lines(health) == [(step, member) for step in (1, 2) for member in (1, 2, 3)]
    assert (tmp_path / "out.grib").read_bytes() == (tmp_path / "whole.grib").read_bytes()


def test_a_record_may_begin_when_a_run_is_resumed(tmp_path):
    toy = Toy(str(tmp_path / "out.grib"))
    toy.stopped("--state-interval", "0", engine=LoadedToy(stops_at=3))
    toy("--resume", "--health", str(tmp_path / "h.json"))
    assert recorded_lines(tmp_path / "h.json") == [(2, 1), (2, 2), (2, 3)]


def test_a_run_that_is_complete_already_has_the_status_of_its_record(tmp_path, monkeypatch):
    monkeypatch.setattr("ai_models_mosaic.forecast.health.bands.DEFAULTS", {"mass_change": (5.0, 6.0)})
    toy, words = Toy(str(tmp_path / "out.grib")), ("--health", str(tmp_path / "h.json"), "--health-exit")
    with pytest.raises(HealthError):
        toy(*words)
    before = (tmp_path / "h.json").read_bytes()
    with pytest.raises(HealthError):
        toy(*words, "--resume")
    assert (tmp_path / "h.json").read_bytes() == before


def test_the_output_does_not_depend_on_the_recorder(tmp_path):
    Toy(str(tmp_path / "with.grib"))("--health", str(tmp_path / "h.json"))
    Toy(str(tmp_path / "without.grib"))()
    assert (tmp_path / "with.grib").read_bytes() == (tmp_path / "without.grib").read_bytes()


@pytest.mark.parametrize("content", ["GRIB\0\0", '{"event":"begin"}\n', "[]\n", "7\n", "{\n"])
def test_something_else_of_that_name_is_not_written_over(tmp_path, content):
    path = tmp_path / "h.json"
    path.write_text(content)
    with pytest.raises(OutputError, match=r"--health .*h.json: not written over: "):
        Toy(str(tmp_path / "out.grib"))("--health", str(path))
    assert path.read_text() == content


def test_a_record_that_cannot_be_written_any_more_ends_no_forecast(tmp_path, caplog):
    path = tmp_path / "folder" / "h.json"
    Toy(str(tmp_path / "out.grib"))("--health", str(path))
    assert f"--health cannot write {path}: No such file or directory; nothing more is recorded there" in caplog.text
    assert (tmp_path / "out.grib").exists()


def grown(folder: Path, engine: SickEngine, *, factor: float = 1.0, full_from: int | None = None, **options) -> Section:
    """What is recorded of an ensemble that is made in groups of two until a group fails, or writing does."""
    ensemble = Ensemble(5, (1, 2, 3, 4), 2, factor)
    whole = EnsembleJob(dict.fromkeys(ensemble.members, sound_start()), ensemble, 24, 3)
    all_groups = Recorder(HealthOptions(folder / "health.json", **options), "mini", resume=False)
    recorder = GroupRecorder(all_groups)

    def job(members):
        return replace(whole, ensemble=replace(ensemble, members=tuple(members)))

    def write(size: int, _: bool) -> float:
        if full_from is not None and size >= full_from:
            raise OutputError("the disk is full")
        recorder.wrote(size)
        return 0.0

    bounds = Bounds(4, Budget(None))
    with recorder.of(whole, engine):
        GrowingRun(job, engine, SingleRank(), Watch(), bounds, None, write, recorder)(2)
    all_groups.verdict()
    (section,) = read_record(folder / "health.json")
    return section


def test_groups_have_the_record_of_an_ordinary_run_of_as_many(tmp_path):
    for name, factor in (("usual", 1.0), ("equal", 0.0)):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-grown").mkdir()
        record = grown(tmp_path / f"{name}-grown", SickEngine(), factor=factor)
        assert [(line["step"], line["member"]) for line in record.lines] == [
            (step, member) for step in (1, 2, 3) for member in (1, 2, 3, 4)
        ]
        assert record.ending == {"event": "end"}
        # Without noise they are meant to be equal, also those of different groups.
        assert not alarms(record)
        ensemble = Ensemble(5, (1, 2, 3, 4), 2, factor)
        job = EnsembleJob(dict.fromkeys(ensemble.members, sound_start()), ensemble, 24, 3)
        recorder = Recorder(HealthOptions(tmp_path / name / "health.json"), "mini", resume=False)
        EnsembleRun(job, SickEngine(), SingleRank(), NoWriter(), None, Watch(), recorder)()
        assert record == read_record(tmp_path / name / "health.json")[0]


def test_a_copy_of_a_member_of_another_group_is_told(tmp_path, caplog):
    kept = {}

    def copied_from_the_first(values):
        # Steps are counted from the second on: three to a group.
        step = kept["calls"] = kept.get("calls", 1) + 1
        if step <= 3:
            kept[step] = values[1].copy()
        elif step > 4:
            values[0] = kept[step - 3]

    with pytest.raises(HealthError, match="the forecast is complete, and 2 steps of members left their bands"):
        grown(tmp_path, SickEngine(copied_from_the_first), exits=True)
    assert alarms(read_record(tmp_path / "health.json")[0]) == {
        (step, 3): ["it is a copy of member 2"] for step in (2, 3)
    }
    assert (
        "Health at step 3 (+72 h): 1 of 2 members left their bands; member 3: it is a copy of member 2" in caplog.text
    )


def test_groups_that_are_not_written_are_not_in_the_record(tmp_path):
    def broken(values):
        # In the last step of the second group.
        broken.calls += 1
        if broken.calls == 5:
            raise ForecastError("the toy broke")

    broken.calls = 0
    for engine, options, members, message in (
        (SickEngine(broken), {}, [1, 2], "the toy broke"),
        (SickEngine(scaled), {"full_from": 4}, [1, 2], "the disk is full"),
        (SickEngine(), {"full_from": 1}, [], "the disk is full"),
    ):
        with pytest.raises((ForecastError, OutputError), match=message):
            grown(tmp_path, engine, **options)
        (section,) = read_record(tmp_path / "health.json")
        assert section.header["members"] == members
        assert sorted({line["member"] for line in section.lines}) == members
        assert (section.ending["event"], section.ending["message"]) == ("failed", message)


def test_several_processes_have_one_record(tmp_path):
    words = [str(tmp_path / "out.grib"), "--members", "3", "--health", str(tmp_path / "several.json")]
    assert several(2, words) == [0, 0]
    assert several(1, [*words[:-1], str(tmp_path / "one.json")]) == [0]
    assert (tmp_path / "several.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_bands_and_a_status_need_a_record():
    for words in (("--health-bands", "b.json"), ("--health-exit",)):
        with pytest.raises(OptionError, match=f"{words[0]}: expected --health FILE as well"):
            parse_options(words)


def test_a_forecast_says_beforehand_that_its_record_cannot_be_written(run: Runner):
    refused = run.refused(*MINI, "--lead-time", 24, "--output", "none", "--health", "nowhere/h.json")
    assert refused.status == 6
    assert "--health: " in refused.message
    assert "nowhere" in refused.message
    words = ("--path", "out.grib", "--health", "out.grib")
    refused = run.refused(*MINI, "--lead-time", 24, *words)
    assert "--health out.grib: expected a file of its own, got that of --path" in refused.message


# The page, and the documentation.


def test_the_examples_of_the_documentation_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    shutil.copy(SAMPLE, tmp_path / "examples")
    text = (ROOT / "docs" / "health.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "ai-models-mosaic"
        status = main(words)
        assert status == 0, line
    assert len(lines) == 4
    page = (tmp_path / "report.html").read_text()
    assert '<a href="#health">Health</a>' in page
    assert "<p>No member left its bands.</p>" in page
    assert 'alt="Health of the members"' in page


def of_ensemble(folder: Path, alarm: list[str]) -> Path:
    """A record of the members of `ensembles.ensemble`, of which the third has an alarm."""
    section = recorded(folder)
    lines = [{**line, "alarms": alarm if line["member"] == 3 else []} for line in section.lines]
    path = folder / "ensemble.json"
    header = {**section.header, "initial_time": "2020-01-02T12:00:00"}
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)))
    return path


def test_curves_have_all_members_and_alarms_are_told_in_words(tmp_path):
    dataset = canonical(ensemble())
    section = health.section_of(of_ensemble(tmp_path, ["a < b"]), dataset)
    figure = health.drawn(dataset, section)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0] == "Geopotential height at 500 hPa: power over that of the start"
    assert titles[5:] == [title for _, title, _ in health.NUMBERS]
    # Members, their median, and a line where all began.
    assert len(figure.axes[5].lines) == 3 + 1 + 1
    assert len(figure.axes[0].lines) == 4 * (3 + 1) + 1
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [1, 2, 3])
    assert figure.get_suptitle() == "Health of 3 members, from 2020-01-02 12 UTC"
    said = health.words(section)
    assert said.startswith(
        "<p>The record does not tell of the end of the run.</p><p>Members that left their bands:</p>"
    )
    assert said.count("<li>") == 3
    assert "<li>member 3, +24 h: a &lt; b" in said
    assert health.words(replace(section, ending={"event": "failed", "message": "it broke"})).startswith(
        "<p class=warning>The run failed: it broke</p>"
    )


def test_a_record_of_another_time_or_of_other_members_is_refused(tmp_path):
    path = of_ensemble(tmp_path, [])
    dataset = canonical(ensemble())
    with pytest.raises(InputError, match="expected a record of members of 2020-01-02T12:00:00, got one of 2020-02-29"):
        health.section_of(tmp_path / "health.json", dataset)
    with pytest.raises(InputError, match="expected a record of members of"):
        health.section_of(path, dataset.assign_coords(number=[11, 12, 13, 14]))


def test_a_line_that_lacks_something_is_named(tmp_path):
    path = of_ensemble(tmp_path, [])
    path.write_text(path.read_text() + '{"event":"step","step":1}\n')
    with pytest.raises(InputError, match=r"ensemble.json: line 11 lacks alarms, beyond, high, lead_time_hours, "):
        read_record(path)
