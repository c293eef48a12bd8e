"""The surface towards the runner: its own options, and ours."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import MINI, ROOT, SAMPLE, Runner, changed, keys, messages, values

from ai_models_mosaic.cli import main

SHORT = (*MINI, "--lead-time", 24)


def test_a_path_with_placeholders_gives_a_file_for_each(run: Runner):
    run(*SHORT, "--num-ensemble-members", 2, "--path", "m{number:03d}-{step}.grib")
    found = sorted(path.name for path in run.folder.glob("*.grib"))
    assert found == ["m001-0.grib", "m001-24.grib", "m002-0.grib", "m002-24.grib"]
    assert {keys(message, "number", "step") for message in messages(run.path("m002-24.grib"))} == {(2, 24)}


def test_output_none_writes_nothing(run: Runner):
    run(*SHORT, "--output", "none", "--archive-requests", "archive.req")
    assert [path.name for path in run.folder.iterdir()] == ["archive.req"]


def test_archive_requests_name_every_member_and_step(run: Runner):
    run(*SHORT, "--num-ensemble-members", 2, "--archive-requests", "archive.req", "--path", "out.grib")
    request = run.path("archive.req").read_text()
    for line in ("expect=328", 'source="out.grib"', "number=1/2", "step=0/24", "stream=enfo", "type=pf", "class=ml"):
        assert re.search(rf"^ +{re.escape(line)},?$", request, re.MULTILINE), (line, request)


def test_archive_requests_as_json(run: Runner):
    run(*SHORT, "--archive-requests", "archive.json", "--json", "--path", "out.grib")
    (request,) = json.loads(run.path("archive.json").read_text())
    assert request["expect"] == 164
    assert request["number"] == "1"
    assert request["step"] == ["0", "24"]


def test_labels_of_the_user_win(run: Runner):
    run(*SHORT, "--expver", "abcd", "--class", "rd", "--metadata", "stream=enfh", "--metadata", "bitsPerValue=12")
    names = ("expver", "class", "stream", "type", "bitsPerValue")
    assert {keys(message, *names) for message in messages(run.path("mosaic.grib"))} == {
        ("abcd", "rd", "enfh", "pf", 12)
    }


def test_untrained_weights_label_their_output_so(run: Runner, caplog: pytest.LogCaptureFixture):
    words = ("random-checkpoint", "--variant", "mini", "--sample", str(SAMPLE), "--output")
    assert main([*words, str(run.path("random.safetensors"))]) == 0
    run(*SHORT, "--checkpoint", "random.safetensors")
    assert {keys(message, "expver") for message in messages(run.path("mosaic.grib"))} == {("untr",)}
    assert "These weights are UNTRAINED" in caplog.text


def test_the_start_names_device_precision_backend_and_memory(run: Runner, caplog: pytest.LogCaptureFixture):
    run(*SHORT, "--num-ensemble-members", 2, "--num-threads", 1)
    assert "Running on CPU (1 threads), float32, attention backend sdpa" in caplog.text
    assert re.search(r"2 members × 1 step of 24 h, 1 per batch, seed 0; estimated memory \d+ MB", caplog.text)
    assert re.search(r"Step 1 of 1 \(\+24 h\), 2 of 2 members; .* per member and step, all done in ", caplog.text)


def test_provenance_names_input_weights_and_members(run: Runner):
    run(*SHORT, "--member-number", "5,3", "--seed", 7, "--dump-provenance", "provenance.json")
    found = json.loads(run.path("provenance.json").read_text())
    weights = ROOT / "weights" / "mini.safetensors"
    assert found["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["weights"]["untrained"] is False
    assert found["weights"]["licence"] == "Apache-2.0"
    assert (found["variant"], found["seed"], found["members"], found["steps"]) == ("mini", 7, [5, 3], 1)
    assert found["input"]["initial_time"] == "2008-04-26T06:00:00"
    assert found["packages"]["torch"]
    assert found["packages"]["ai-models"] == "0.7.4"


def test_every_file_of_the_output_has_its_provenance_beside_it(run: Runner):
    run(*SHORT, "--num-ensemble-members", 2, "--path", "m{number}.grib", "--dump-provenance", "provenance.json")
    whole = json.loads(run.path("provenance.json").read_text())
    for member in (1, 2):
        text = run.path(f"m{member}.grib.provenance.json").read_text()
        beside = json.loads(text)
        assert text.count("\n") == 1
        assert beside.pop("content")["messages"] == 2 * 82
        assert beside == whole
        assert (beside["precision"], beside["options"]["seed"]) == ("float32", 0)
    assert sorted(path.suffix for path in run.folder.iterdir()) == [".grib", ".grib", ".json", ".json", ".json"]


def test_nothing_is_put_beside_a_pipe(run: Runner):
    run(*SHORT, "--path", "/dev/null")
    assert list(run.folder.iterdir()) == []
    assert not Path("/dev/null.provenance.json").exists()


@pytest.mark.parametrize(
    ("typed", "start"),
    [
        ((), (20080427, 600)),
        (("--date", "20080426"), (20080426, 600)),
        (("--date=2008-04-26", "--time", "6"), (20080426, 600)),
        (("--time", "600"), (20080427, 600)),
    ],
)
def test_the_newest_history_is_taken_unless_a_date_is_typed(
    run: Runner, typed: tuple[str, ...], start: tuple[int, int]
):
    later = [changed(m, dataDate=20080427) for m in messages(SAMPLE) if keys(m, "dataDate") == (20080426,)]
    run.path("three.grib").write_bytes(b"".join([*later, *messages(SAMPLE)]))
    run("mosaic", "--variant", "mini", "--file", "three.grib", "--lead-time", 0, "--path", "out.grib", *typed)
    assert {keys(message, "dataDate", "dataTime") for message in messages(run.path("out.grib"))} == {start}


def test_a_date_that_the_file_does_not_have_is_an_error_that_says_what_it_has(run: Runner):
    refused = run.refused(*SHORT, "--date", "20080425", "--time", "12")
    assert "the input has no field valid at 2008-04-25 12:00 UTC. It holds " in refused.message
    assert refused.message.endswith("valid 2008-04-25 06:00, 2008-04-26 06:00 UTC.\n")


def test_a_date_without_its_history_names_all_that_is_missing(run: Runner):
    refused = run.refused(*SHORT, "--date", "20080425", "--time", "6")
    levels = "50/100/150/200/250/300/400/500/600/700/850/925/1000 hPa"
    assert refused.message == (
        "ai-models mosaic 0.1.0: the input lacks 82 of the 164 fields that a forecast from 2008-04-25 06:00 UTC needs:\n"
        f"  2t, 10u, 10v, msl; z, q, t, u, v, w at {levels}; valid 2008-04-24 06:00 UTC\n"
        f"It holds 2t, 10u, 10v, msl; z, q, t, u, v, w at {levels}; valid 2008-04-25 06:00, 2008-04-26 06:00 UTC.\n"
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--foo", "3"), 2, "unknown options --foo 3: neither the runner (ai-models --help) nor the plugin "),
        (("--num-ensemble", "3"), 2, "unknown options --num-ensemble 3: "),
        (
            ("--num-ensemble-members", "2", "--member-number", "3"),
            2,
            "expected numbers from 1 to 2 (--num-ensemble-members)",
        ),
        (("--only-gpu",), 2, "--only-gpu: expected a CUDA GPU, found none"),
        (("--path", "absent/out.grib"), 6, "cannot write absent/out.grib: there is no folder absent; create it first"),
        (("--path", "out-{members}.grib"), 6, "--path out-{members}.grib: expected in braces some of number, "),
        (("--metadata", "foo=1"), 6, "--metadata foo=1: ecCodes refuses it (Key/value not found)"),
        (("--metadata", "step=3"), 6, "--metadata step=3 cannot be honoured: steps follow from the variant"),
        (("--metadata", "edition=1"), 6, "the output is GRIB2: GRIB1 can lose the member number"),
        (("--path", "{number.__class__}.grib"), 6, "{number.__class__} is none of them"),
        (("--zarr", "{date.nope}.zarr"), 6, "expected in braces some of date, time, perhaps"),
        (("--products", "mean", "--products-path", "{type!r}.grib"), 6, "{type!r} has a form that is not filled in"),
        (("--num-threads", "0"), 2, "--num-threads: expected 1 to 4096, got 0"),
        (("--num-threads", "-3"), 2, "--num-threads: expected 1 to 4096, got -3"),
        (
            ("--dump-provenance", "absent/p.json"),
            6,
            "--dump-provenance: cannot write absent/p.json: there is no folder",
        ),
        (
            ("--archive-requests", "absent/r.req"),
            6,
            "--archive-requests: cannot write absent/r.req: there is no folder",
        ),
        (("--dump-provenance", "."), 6, "--dump-provenance: cannot write .: it is a folder"),
        (
            ("--dump-provenance", "mosaic.grib"),
            6,
            "--dump-provenance mosaic.grib: expected a file of its own, got that of --path mosaic.grib",
        ),
        (
            ("--output", "none", "--products", "mean"),
            2,
            "--products: with --output none expected --zarr or --netcdf, or nothing would be written",
        ),
        (
            ("--output", "none", "--products", "mean", "--no-members"),
            2,
            "--products: with --output none expected --zarr or --netcdf, or nothing would be written",
        ),
        (
            ("--output", "none", "--zarr", "a.zarr", "--products", "mean", "--products-path", "p.grib"),
            2,
            "--products-path: expected GRIB to be written, got --output none; leave one of them out",
        ),
        (("--lead-time", "24000000000"), 2, "--lead-time: expected at most 1572840 h, 65535 steps, got 24000000000"),
        (("--lead-time", "36"), 2, "--lead-time: expected a multiple of the step of 24 h, got 36"),
        (("--hindcast-reference-year", "2020"), 2, "--hindcast-reference-year is not supported by mosaic"),
        (
            ("--model-version", "3"),
            2,
            "--model-version is not supported by mosaic: --variant and --checkpoint say what",
        ),
        (("--input", "cds"), 2, f"--input cds: expected it without --file {SAMPLE}, from which the run would start"),
        (("--input=mars",), 2, "--input mars: expected it without --file"),
        (
            ("--date", "tomorrow"),
            2,
            "--date: expected YYYYMMDD, YYYY-MM-DD, or 0, -1, … days from today, got 'tomorrow'",
        ),
        (("--checkpoint", "absent.pt"), 4, "--checkpoint absent.pt: there is no such file"),
        (("--file", "absent.grib"), 3, "--file absent.grib: there is no such file"),
        (("--variant", "era5"), 4, "variant era5 needs checkpoints/era5_best.pt, data/norm_stats_era5.npz, "),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    run: Runner, words: tuple[str, ...], status: int, message: str
):
    refused = run.refused(*SHORT, *words)
    assert refused.status == status
    assert message in refused.message
    assert "Traceback" not in refused.message
    assert list(run.folder.iterdir()) == []


def test_an_option_of_a_program_that_calls_the_runner_is_no_input(run: Runner, monkeypatch: pytest.MonkeyPatch):
    from ai_models.__main__ import _main

    monkeypatch.chdir(run.folder)
    monkeypatch.setattr(sys, "argv", ["nightly.py", "--input", "analysis.grib"])
    _main(["mosaic", "--variant", "mini", "--file", str(SAMPLE), "--lead-time", "0"])
    assert run.path("mosaic.grib").exists()


def test_a_file_of_another_kind_is_refused_by_name(run: Runner):
    run.path("input.nc").write_bytes(b"CDF\x01" + bytes(1000))
    refused = run.refused("mosaic", "--file", "input.nc")
    assert refused.message == (
        "ai-models mosaic 0.1.0: --file input.nc: expected a GRIB file, got netCDF, which is no input: "
        "ask the CDS for data_format grib\n"
    )


def test_a_full_disk_is_an_error_that_names_the_file(run: Runner):
    refused = run.refused(*SHORT, "--path", "/dev/full")
    assert refused.message == "ai-models mosaic 0.1.0: cannot write /dev/full: No space left on device\n"


def test_nan_from_the_network_stops_the_run_and_names_channel_member_and_step(run: Runner):
    import torch
    from safetensors.torch import load_file

    from ai_models_mosaic.checkpoints.format import read_checkpoint, save_checkpoint

    bundled = ROOT / "weights" / "mini.safetensors"
    tensors = {
        key.removeprefix("model."): tensor for key, tensor in load_file(bundled).items() if "statistics" not in key
    }
    tensors["postprocess.3.weight"][5] = torch.nan
    statistics = read_checkpoint(bundled).statistics
    assert statistics is not None
    save_checkpoint(run.path("bad.safetensors"), tensors, statistics, {})
    refused = run.refused(*SHORT, "--checkpoint", "bad.safetensors", "--member-number", 4)
    assert (
        "the forecast became non-finite: geopotential_100 of member 4 at step 1 (+24 h), and 0 more fields."
        in refused.message
    )
    assert not run.path("mosaic.grib").exists()
    assert len(messages(run.path("mosaic.grib.partial"))) == 82


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_runs_on_the_cpu_and_stays_near(run: Runner, precision: str):
    run(*SHORT, "--path", "single.grib")
    run(*SHORT, "--precision", precision, "--path", "half.grib")
    for message, other in zip(messages(run.path("half.grib")), messages(run.path("single.grib")), strict=True):
        spread = values(other).std()
        assert abs(values(message) - values(other)).max() < spread


INFORMATION = {
    "--fields": "Params: ('2t', '10u', '10v', 'msl')",
    "--assets-list": "checkpoints/hres_best.pt\ndata/norm_stats_hres.npz\ndata/static_vars.npz\n",
    "--retrieve-requests": "levelist=50/100/150/200/250/300/400/500/600/700/850/925/1000",
}


@pytest.mark.parametrize("option", INFORMATION)
def test_information_is_given_without_importing_torch(tmp_path: Path, option: str):
    program = (
        "import sys; from ai_models.__main__ import _main\n"
        "try: _main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'sklearn', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "mosaic", option], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert INFORMATION[option] in done.stdout
    assert done.stdout.endswith("[]\n")
    assert list(tmp_path.iterdir()) == []


def test_requests_ask_for_the_history_and_the_right_stream(run: Runner):
    words = ("mosaic", "--variant", "hres", "--date", "20260511", "--time", "12", "--retrieve-requests", "--json")
    requests = json.loads(run(*words))
    found = [(r["date"], r["time"], r["levtype"], r["class"], r["stream"], r["type"]) for r in requests]
    assert found == [
        (date, time, levtype, "od", stream, "an")
        for date, time, stream in [
            (20260510, 18, "scda"),
            (20260511, 0, "oper"),
            (20260511, 6, "scda"),
            (20260511, 12, "oper"),
        ]
        for levtype in ("pl", "sfc")
    ]


def test_the_input_grid_reaches_the_requests(run: Runner):
    requests = json.loads(run("mosaic", "--variant", "era5", "--input-grid", "1.5", "--retrieve-requests", "--json"))
    assert requests[0]["grid"] == [1.5, 1.5]
    assert requests[0]["area"] == [90, 0, -90, 358.5]
    assert requests[0]["class"] == "ea"


THIRD_PARTY = """
import earthkit.data


class Input:
    def __init__(self, owner, **kwargs):
        self.owner = owner

    @property
    def all_fields(self):
        print("asked for", self.owner.datetimes())
        return earthkit.data.from_source("file", {!r})
"""


def test_an_input_that_a_third_party_added_to_the_runner_is_read(run: Runner, monkeypatch: pytest.MonkeyPatch):
    run.path("site/other-1.dist-info").mkdir(parents=True)
    run.path("site/other-1.dist-info/entry_points.txt").write_text("[ai_models.input]\nother = other:Input\n")
    run.path("site/other.py").write_text(THIRD_PARTY.format(str(SAMPLE)))
    monkeypatch.syspath_prepend(run.path("site"))
    words = ("mosaic", "--variant", "mini", "--lead-time", 24, "--date", "20080426", "--time", 6)
    shown = run(*words, "--input", "other", "--path", "a.grib")
    assert "asked for [(20080425, 6), (20080426, 6)]" in shown
    run(*words, "--file", SAMPLE, "--path", "b.grib")
    assert run.path("a.grib").read_bytes() == run.path("b.grib").read_bytes()
