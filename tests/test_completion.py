"""Commands and options are completed by argcomplete, asked as a shell asks."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("argcomplete")


def completed(line):
    """What may come next; the answer arrives on descriptor 8, as the shell's function has it."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "ai_models_mosaic.cli"]
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    asked |= {"_ARGCOMPLETE_IFS": "\013", "_ARGCOMPLETE_SHELL": "bash"}
    # A shell has them open at these numbers; another descriptor of this process must not be in the way.
    script = f'exec 8>&{write} 9>&2; exec "$@"'
    ran = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        env=os.environ | asked,
        pass_fds=[write],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(write)
    with os.fdopen(read) as answer:
        words = answer.read()
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    return {word.strip() for word in words.split("\013") if word}


def test_commands_are_completed():
    assert completed("ai-models-mosaic ex") == {"export-onnx"}
    assert {"forecast", "doctor", "inspect", "verify", "train", "world"} <= completed("ai-models-mosaic ")


def test_options_of_a_forecast_are_completed_those_of_the_runner_too():
    assert completed("ai-models-mosaic forecast --lead") == {"--lead-time"}
    assert completed("ai-models-mosaic forecast --output-") == {
        f"--output-{what}" for what in ("params", "levels", "steps", "area", "workers")
    }
    assert completed("ai-models-mosaic forecast --variant ") == {"auto", "era5", "hres", "mini"}


def test_options_of_other_commands_are_completed():
    assert completed("ai-models-mosaic replay --") >= {"--member", "--steps", "--params", "--output"}
