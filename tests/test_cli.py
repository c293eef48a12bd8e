import argparse
import subprocess
import sys
from pathlib import Path

import eccodes
import numpy as np
import pytest
import torch

from ai_models_mosaic import __version__, cli
from ai_models_mosaic.checkpoints.files import Assets
from ai_models_mosaic.checkpoints.format import read_checkpoint
from ai_models_mosaic.cli import main
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.variants import MINI

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"


def random_checkpoint(path, seed=0, variant="mini", sample=SAMPLE):
    words = ["random-checkpoint", "--variant", variant, "--sample", sample, "--output", path, "--seed", seed]
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "r.safetensors"
    assert random_checkpoint(path) == 0
    return path


def refused(capsys, *words):
    """What a command that fails for its input or options says."""
    assert main([str(word) for word in words]) in (2, 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    "words",
    [[], ["forecasts"], ["inspect", "a.grib", "--foo"], ["inspect"], ["random-checkpoint", "--variant", "mini"]],
)
def test_a_command_that_is_none_or_lacks_its_arguments_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ai-models-mosaic")


def test_lists_that_begin_below_zero_belong_to_their_options():
    words = [
        "plot",
        "--point",
        "-33.9,151.2",
        "--area=-1,2",
        "-3,4",
        "--output-area",
        "-10/110/-45/155",
        "--seed",
        "-1",
    ]
    expected = ["plot", "--point=-33.9,151.2", "--area=-1,2", "-3,4", "--output-area=-10/110/-45/155", "--seed", "-1"]
    assert cli.joined(words) == expected


def every_parser(parser, name=""):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from every_parser(below, f"{name} {word}".strip())


@pytest.mark.parametrize(("name", "parser"), list(every_parser(cli.parser())))
def test_every_command_and_every_option_of_it_is_explained(name, parser):
    if name != "forecast":  # its options are its own parser's
        assert parser.description
        assert parser.description.endswith((".", "…"))
    assert [action.dest for action in parser._actions if not (action.help or action.choices)] == []


def test_options_are_listed_with_their_help(capsys):
    assert main(["options"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("usage: ai-models mosaic [options of the runner] [options below]")
    for words in (
        "--variant {auto,era5,hres,mini} weights and time step: era5 (24 h), hres (6 h) or mini (24 h, 6°, bundled).",
        "--num-ensemble-members N members of the ensemble, numbered 1 to N",
        "--member-number LIST run only these members",
        "--seed SEED seed of the members' perturbations, 0 to 2**64 - 1",
        "--members-per-batch N members that go through the network together.",
        "--precision {auto,float32,float16,bfloat16} precision of the matrix products",
        "--checkpoint FILE weights to use instead of those in --assets",
        "--input-grid DEGREES grid to ask CDS or MARS for",
        "Options follow the word mosaic; abbreviations are not accepted.",
    ):
        assert words in said


def messages():
    handles = []
    with SAMPLE.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            handles.append(handle)
    contents = [eccodes.codes_get_message(handle) for handle in handles]
    for handle in handles:
        eccodes.codes_release(handle)
    return contents


def test_inspect_says_incomplete_of_files_that_lack_a_field(tmp_path, capsys):
    first, second = tmp_path / "1.grib", tmp_path / "2.grib"
    contents = messages()
    first.write_bytes(b"".join(contents[:82]))
    handle = eccodes.codes_new_from_message(contents[0])
    eccodes.codes_set(handle, "endStep", 24)
    second.write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    assert main(["inspect", str(first), str(second)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{first}, {second}: 83 GRIB messages"
    assert said[-1] == "  fields   INCOMPLETE: 1 to 82 per member and step, not the same"
    assert main(["inspect", str(first)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  fields   82 per member and step"


def test_an_error_is_one_line_and_the_status_of_its_kind_without_a_traceback(tmp_path):
    words = [sys.executable, "-m", "ai_models_mosaic.cli", "inspect", "absent.grib"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == (
        f"ai-models-mosaic {__version__}: absent.grib cannot be read as GRIB: "
        "[Errno 2] No such file or directory: 'absent.grib'\n"
    )


def test_a_random_checkpoint_loads_and_says_that_it_is_untrained(made):
    assert [path.name for path in made.parent.iterdir()] == ["r.safetensors"]
    checkpoint = read_checkpoint(made)
    assert checkpoint.metadata["variant"] == "mini"
    engine = load_engine(MINI, Assets(made, None, None, made.parent), torch.device("cpu"), "float32")
    assert engine.untrained
    architecture = MINI.architecture
    history = np.broadcast_to(checkpoint.statistics.mean, (1, 2, *architecture.grid.shape, 82)).astype(np.float32)
    values = engine.step(history, (0.0, 0.0), np.zeros((1, 32), dtype=np.float32))
    assert values.shape == (1, 60, 31, 82)
    assert np.isfinite(values).all()


def test_its_normalisation_is_the_area_weighted_mean_and_spread_of_the_sample(made):
    statistics = read_checkpoint(made).statistics
    found = []
    for content in messages():
        handle = eccodes.codes_new_from_message(content)
        if eccodes.codes_get_string(handle, "shortName") == "msl":
            values = eccodes.codes_get_values(handle)
            # Every row of points has the band of the sphere between the middles to its neighbours.
            north = eccodes.codes_get_array(handle, "latitudes")
            top, bottom = (np.sin(np.radians(np.clip(north + shift, -90, 90))) for shift in (3, -3))
            found.append((values, top - bottom))
        eccodes.codes_release(handle)
    values, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mean = np.average(values, weights=weights)
    std = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    assert len(found) == 2
    assert statistics.mean[3] == pytest.approx(mean, rel=1e-6)
    assert statistics.std[3] == pytest.approx(std, rel=1e-4)
    assert (statistics.std > 0).all()


def test_the_seed_decides_the_random_weights(made, tmp_path):
    again, other = tmp_path / "again.safetensors", tmp_path / "other.safetensors"
    assert random_checkpoint(again) == random_checkpoint(other, seed=1) == 0
    assert again.read_bytes() == made.read_bytes()
    first, second = read_checkpoint(made).state, read_checkpoint(other).state
    assert first.keys() == second.keys()
    name = "preprocess.0.weight"
    assert not torch.equal(first[name], second[name])


def test_a_sample_that_is_none_is_refused(tmp_path, capsys):
    words = ("random-checkpoint", "--variant", "mini", "--output", tmp_path / "r.safetensors", "--sample")
    assert refused(capsys, *words, tmp_path / "absent.grib") == (
        f"ai-models-mosaic {__version__}: --file {tmp_path}/absent.grib: there is no such file\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["absent/r.safetensors", "r.pt"])
def test_an_output_that_could_not_be_written_or_not_be_read_again_is_refused(tmp_path, capsys, name):
    words = ("random-checkpoint", "--variant", "mini", "--sample", SAMPLE, "--output", tmp_path / name)
    assert str(tmp_path / name) in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == []
