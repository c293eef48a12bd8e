"""--lagged: members that start at several times, and are one ensemble at the same valid times."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from running import BIN, MINI, SAMPLE, Runner, changed, elsewhere, keys, messages, of_member, values

import ai_models_mosaic as mosaic
from ai_models_mosaic.channels import CHANNELS, LEVELS_HPA
from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.forecast.rollout import Ensemble
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.inputs.initial_times import utc_now
from ai_models_mosaic.inputs.reader import InputReader
from ai_models_mosaic.inputs.services import OPEN_DATA
from ai_models_mosaic.options.lagging import Lagging, parse_lagging
from ai_models_mosaic.report.ensemble import open_ensemble
from ai_models_mosaic.report.words import cards_of, provenance
from ai_models_mosaic.variants import VARIANTS

DOCUMENTATION = (Path(__file__).parent.parent / "docs" / "members.md").read_text()

(WHOLE,) = re.findall(r"```sh\n(ai-models mosaic [^`]*--lagged [^`]*)```", DOCUMENTATION)
"""The command of the documentation."""

CHOSEN = ("--output-params", "2t,z500", "--num-threads", 1)


def typed(text=WHOLE, source="analyses.grib"):
    """Words of the command, with a file elsewhere."""
    words = shlex.split(text.replace("\\\n", " ").replace("analyses.grib", str(source)))
    return [*words[1:], "--num-threads", "1"]


def three_days(path):
    """The sample, and a day before it that is a little warmer."""
    oldest = [message for message in messages(SAMPLE) if keys(message, "dataDate") == (20080425,)]
    before = [changed(changed(message, values(message) * 1.0001), dataDate=20080424) for message in oldest]
    path.write_bytes(b"".join(before) + SAMPLE.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The command of the documentation, run, and what it starts from."""
    path = tmp_path_factory.mktemp("lagged")
    three_days(path / "analyses.grib")
    done = elsewhere(path, *typed())
    assert done.returncode == 0, done.stderr
    return path


# Which member is what.


def test_members_take_the_lags_in_turn():
    lagging = parse_lagging("0,-6,-12,-24")
    assert [lagging.of(member) for member in range(1, 10)] == [0, 6, 12, 24, 0, 6, 12, 24, 0]


@pytest.mark.parametrize("text", ["0", "0,6", "-6,-12", "0,-6,-6", "0,-6,"])
def test_lags_that_make_no_sense_are_refused(text):
    with pytest.raises(OptionError, match=r"^--lagged: expected (several )?hours.*, got '?" + re.escape(text)):
        parse_lagging(text)


def test_only_members_with_the_same_clock_go_together():
    ensemble = Ensemble(0, tuple(range(1, 8)), per_batch=2, lagging=Lagging((0, -24)))
    assert list(ensemble.batches()) == [(1, 3), (2, 4), (5, 7), (6,)]
    alone = Ensemble(0, (4, 1, 2), lagging=Lagging((0, -24)))
    assert list(alone.batches()) == [(4,), (1,), (2,)]


def test_noise_and_clock_are_those_of_a_members_own_start():
    ensemble = Ensemble(0, (1, 2, 3), lagging=Lagging((0, -6, -24)))
    time = datetime(2020, 1, 2)
    assert ensemble.origin(time, 1, 3, 6) == (time, 3)
    assert ensemble.origin(time, 2, 3, 6) == (datetime(2020, 1, 1, 18), 4)
    assert ensemble.origin(time, 3, 3, 6) == (datetime(2020, 1, 1), 7)


# The whole of it.


def test_a_member_is_that_of_an_ordinary_run_from_its_own_start(run: Runner, folder):
    words = (*MINI[:3], "--file", folder / "analyses.grib", *CHOSEN, "--time", 6, "--path", "usual.grib")
    for date, hours, before, numbers in (("20080425", 72, 24, "2,4"), ("20080426", 48, 0, "1,3")):
        run(*words, "--date", date, "--lead-time", hours, "--member-number", numbers)
        for number in map(int, numbers.split(",")):
            names = ("validityDate", "validityTime", "shortName")
            usual = {keys(one, *names): values(one) for one in of_member(run.path("usual.grib"), number)}
            lagged = of_member(folder / "lagged.grib", number)
            assert [keys(one, "dataDate", "step") for one in lagged[::2]] == [(20080426, step) for step in (0, 24, 48)]
            assert len(usual) == 2 * (3 + before // 24)
            for message in lagged:
                np.testing.assert_array_equal(values(message), usual[keys(message, *names)])


def test_products_are_of_members_at_the_same_valid_time(folder):
    def fields(path, hours):
        wanted = ("2t", str(hours))
        return np.stack([values(one) for one in messages(path) if keys(one, "shortName", "stepRange") == wanted])

    for hours in (0, 24, 48):
        members, (mean,) = fields(folder / "lagged.grib", hours), fields(folder / "lagged-mean.grib", hours)
        np.testing.assert_allclose(mean, members.mean(axis=0), atol=2e-3)
        assert members[0].tolist() != members[1].tolist()


def test_a_member_alone_has_the_bytes_that_it_has_among_others(run: Runner, folder):
    words = typed(source=folder / "analyses.grib")
    products = words.index("--products")
    del words[products : products + 2]
    run(*words, "--member-number", 2)
    assert run.path("lagged.grib").read_bytes() == b"".join(of_member(folder / "lagged.grib", 2))


def test_the_card_has_the_lags_and_every_members_start(folder):
    card = json.loads((folder / "lagged.grib.provenance.json").read_text())
    assert card["options"]["lagged"] == {"hours": [0, -24]}
    assert card["input"]["initial_time"] == "2008-04-26T06:00:00"
    assert card["input"]["starts"] == ["2008-04-26T06:00:00", "2008-04-25T06:00:00"] * 2


def test_it_opens_as_one_ensemble_and_can_be_checked(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    dataset = open_ensemble(["lagged.grib"])
    assert dataset["number"].values.tolist() == [1, 2, 3, 4]
    assert dataset.sizes["step"] == 3
    assert main(["inspect", "lagged.grib"]) == 0
    assert (
        "start    20080426 0600 UTC\n  grid     regular_ll 60 × 31\n  members  1-4 (of 4)\n" in capsys.readouterr().out
    )
    assert main(["replay", "lagged.grib.provenance.json", "--check", "5"]) == 0
    assert "of members 1, 2, 3 made again" in (said := capsys.readouterr().out)
    assert "10 of 10 fields identical to the byte" in said


def test_a_report_says_when_members_started(folder, monkeypatch):
    monkeypatch.chdir(folder)
    said = dict(provenance(cards_of(["lagged.grib"]), ["lagged.grib"]))["Start"]
    assert said == (
        "2008-04-26 06:00 UTC, members started at 2008-04-25 06:00 UTC and 2008-04-26 06:00 UTC, out of analyses.grib"
    )


def test_health_hears_of_members_from_the_start_of_the_run(run: Runner, folder):
    """Without noise members of one start are the same, as was asked for, and no alarm."""
    words = typed(source=folder / "analyses.grib")
    run(*words, "--perturbations", "off", "--member-number", "2,4", "--health", "health.jsonl", "--health-exit")
    lines = [json.loads(line) for line in run.path("health.jsonl").read_text().splitlines()]
    assert [(one["member"], one["step"]) for one in lines if one["event"] == "step"] == [(2, 1), (4, 1), (2, 2), (4, 2)]


def test_several_initial_times_have_lags_of_their_own(run: Runner, folder):
    later = [changed(message, dataDate=20080427) for message in messages(SAMPLE)[82:]]
    run.path("four.grib").write_bytes((folder / "analyses.grib").read_bytes() + b"".join(later))
    words = (*MINI[:3], "--file", "four.grib", "--lead-time", 24, *CHOSEN, "--lagged", "0,-24")
    words += ("--num-ensemble-members", 2, "--dates", "20080426T06,20080427T06")
    run(*words, "--path", "{dataDate}.grib")
    same = [of_member(path, 1)[:2] for path in (folder / "lagged.grib", run.path("20080426.grib"))]
    assert [values(one).tolist() for one in same[0]] == [values(one).tolist() for one in same[1]]
    assert keys(of_member(run.path("20080427.grib"), 2)[0], "dataDate", "step") == (20080427, 0)
    card = json.loads(run.path("20080427.grib.provenance.json").read_text())
    assert card["input"]["starts"] == ["2008-04-27T06:00:00", "2008-04-26T06:00:00"]


def test_more_members_are_added_to_the_bytes_of_a_run_of_as_many(run: Runner, folder):
    words = typed(source=folder / "analyses.grib")
    size = words.index("--num-ensemble-members")
    del words[size : size + 2]
    run(*words, "--num-ensemble-members", 2)
    run(*words, "--extend", 4)
    for name in ("lagged.grib", "lagged-mean.grib"):
        assert run.path(name).read_bytes() == (folder / name).read_bytes()


def test_starts_that_an_extended_ensemble_has_none_of_are_named(run: Runner, folder):
    earlier = [changed(message, dataDate=20080423) for message in messages(SAMPLE)[:82]]
    run.path("four.grib").write_bytes((folder / "analyses.grib").read_bytes() + b"".join(earlier))
    words = (*MINI[:3], "--file", "four.grib", "--lead-time", 24, *CHOSEN, "--path", "few.grib")
    run(*words, "--lagged", "0,-24", "--num-ensemble-members", 2)
    refused = run.refused(*words, "--lagged", "0,-24,-48", "--extend", 6)
    assert refused.status == 7
    assert "lagged: it was {'hours': [0, -24]}, now {'hours': [0, -24, -48]}" in refused.message


def test_two_processes_write_what_one_does(run: Runner, folder):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    words = [str(BIN / "ai-models"), *typed(source=folder / "analyses.grib")]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(words, cwd=run.folder, env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    for name in ("lagged.grib", "lagged-mean.grib"):
        assert run.path(name).read_bytes() == (folder / name).read_bytes()


KILLED = """
import os, signal, sys
from ai_models.__main__ import _main
from ai_models_mosaic.engines.tensor_states import TensorStates
step, calls = TensorStates.advance, 5
def dying(*arguments):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
TensorStates.advance = dying
sys.argv[0] = "ai-models"
_main(sys.argv[1:])
"""


def test_a_run_that_was_killed_is_gone_on_with_to_the_same_bytes(run: Runner, folder):
    words = [*typed(source=folder / "analyses.grib"), "--state-interval", "0"]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=run.folder, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not run.path("lagged.grib").exists()
    run(*words, "--resume")
    for name in ("lagged.grib", "lagged-mean.grib"):
        assert run.path(name).read_bytes() == (folder / name).read_bytes()


def test_requests_are_of_the_states_of_all_starts(run: Runner):
    words = ("--variant", "era5", "--input", "cds", "--date", "20200103", "--time", 0, "--retrieve-requests", "--json")
    said = run("mosaic", *words, "--lagged", "0,-48", "--num-ensemble-members", 2)
    assert list(dict.fromkeys(request["date"] for request in json.loads(said))) == [
        *(20191231, 20200101),
        *(20200102, 20200103),
    ]


# What is refused.


def test_a_start_that_a_service_no_longer_has_is_refused_before_it_is_asked():
    day = utc_now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    reader = InputReader(OPEN_DATA, None, VARIANTS["hres"], (1, 2), 0.25, 1.0, lagging=Lagging((0, -240)))
    oldest = day - timedelta(days=10)
    with pytest.raises(
        InputError, match=rf"^a forecast from {oldest:%Y-%m-%d} 00:00 UTC needs states from .* four days"
    ):
        reader.check([Wanted(time=day)])


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--lagged", "0,-6"), 2, "--lagged: expected multiples of the time step, 24 h, got -6"),
        (("--lagged", "0,24"), 2, "--lagged: expected several hours before the start, 0 among them and none twice"),
        (
            ("--lagged", "0,-48"),
            3,
            "--lagged: the start 48 h before 2008-04-26 06:00 UTC: the input lacks 82 of the 164 fields",
        ),
        (
            ("--lagged", "0,-24,-48", "--num-ensemble-members", 2),
            2,
            "--num-ensemble-members: expected at least 3 with --lagged, one for every start, got 2",
        ),
        (("--lagged", "0,-24", "--antithetic"), 2, "--antithetic: expected it without --lagged"),
        (("--lagged", "0,-24", "--crossed", "3x3"), 2, "--crossed: expected it without --lagged"),
        (("--lagged", "0,-24", "--deadline", "60s"), 2, "--deadline: expected it without --lagged"),
    ],
)
def test_what_cannot_be_lagged_is_refused_before_anything_is_written(run: Runner, folder, words, status, message):
    size = () if "--num-ensemble-members" in words or "--crossed" in words else ("--num-ensemble-members", 4)
    source = folder / "analyses.grib"
    refused = run.refused(*MINI[:3], "--file", source, "--lead-time", 24, *words, *size, "--path", "x.grib")
    assert (refused.status, message in refused.message) == (status, True), refused.message
    assert list(run.folder.iterdir()) == []


def test_one_member_has_no_neighbours_unless_it_is_asked_for_alone(run: Runner):
    refused = run.refused(*MINI, "--lead-time", 24, "--lagged", "0,-24", "--path", "x.grib")
    assert "--num-ensemble-members: expected at least 2 with --lagged, one for every start, got 1" in refused.message


# In Python.


@pytest.fixture(scope="module")
def model():
    return mosaic.load_model("mini", device="cpu")


def test_python_writes_what_the_command_writes(model, folder, tmp_path):
    start = mosaic.open_input(folder / "analyses.grib", model)
    forecast = model.forecast(start, 4, 48, lagged="0,-24")
    paths = forecast.write(tmp_path / "lagged.grib", output_params="2t,z500", products="mean")
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert [path.name for path in paths] == ["lagged.grib", "lagged-mean.grib"]


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_members_in_python_are_those_of_forecasts_from_their_own_starts(model, folder, kind):
    source = folder / "analyses.grib"
    if kind == "dataset":
        source = as_dataset(mosaic.open_input(source, model, time=START), mosaic.open_input(source, model))
    # Two members go together, which have the same start: they are not neighbours.
    more = {"members_per_batch": 2, "seed": 3}
    steps = list(model.forecast(mosaic.open_input(source, model), 4, 24, lagged=[0, -24], **more))
    assert [(step.members, step.lead_time_hours) for step in steps] == [((1, 2, 3, 4), 0), ((1, 2, 3, 4), 24)]
    for members, time, skipped in (([1, 3], None, 0), ([2, 4], START, 1)):
        own = model.forecast(mosaic.open_input(source, model, time=time), members, 24 + 24 * skipped, **more)
        for step, usual in zip(steps, list(own)[skipped:], strict=True):
            assert step.valid_time == usual.valid_time
            for member, values_of_member in zip(members, usual.values, strict=True):
                np.testing.assert_array_equal(step.values[member - 1], values_of_member)


START = datetime(2008, 4, 25, 6)


def as_dataset(*opened):
    """Histories that follow each other, in the layout of WeatherBench 2."""
    xarray = pytest.importorskip("xarray")
    first, last = (one.states([1])[1] for one in opened)
    together, times = np.concatenate([first.values, last.values[-1:]]), [*first.times, last.times[-1]]
    arrays = {}
    for name in dict.fromkeys(channel.variable for channel in CHANNELS):
        (*places,) = (index for index, channel in enumerate(CHANNELS) if channel.variable == name)
        flat = CHANNELS[places[0]].level_hpa is None
        fields = np.moveaxis(together[..., places], -1, 1)
        arrays[name] = (("time", "longitude", "latitude"), fields[:, 0]) if flat else (DIMENSIONS, fields)
    grid = first.grid
    places = {"level": list(LEVELS_HPA), "latitude": list(grid.latitude_deg), "longitude": list(grid.longitude_deg)}
    return xarray.Dataset(arrays, {"time": np.array(times, "datetime64[ns]"), **places})


DIMENSIONS = ("time", "level", "longitude", "latitude")


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        (4, {"lagged": "0,-6"}, "lagged: expected multiples of the time step, 24 h, got -6"),
        (4, {"lagged": "0"}, "lagged: expected several hours before the start, 0 among them and none twice"),
        (1, {"lagged": "0,-24"}, "members: expected at least 2 with lagged, one for every start, got 1"),
        (4, {"lagged": "0,-24", "antithetic": True}, "antithetic: expected it without lagged"),
    ],
)
def test_python_refuses_what_the_command_refuses(model, folder, members, options, message):
    with pytest.raises(OptionError, match="^" + re.escape(message)):
        model.forecast(mosaic.open_input(folder / "analyses.grib", model), members, 24, **options)


def test_python_says_which_start_the_input_lacks(model):
    forecast = model.forecast(mosaic.open_input(SAMPLE, model), 2, 24, lagged="0,-24")
    with pytest.raises(InputError, match=r"^lagged: the start 24 h before 2008-04-26 06:00 UTC: the input lacks 82 of"):
        next(iter(forecast))
