"""What a user types first: the README's commands, and a wheel without the checkout."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import BIN, ROOT, SAMPLE, keys, messages

from ai_models_mosaic.cli import main

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks, without those that say that they are not run."""
    return re.findall(rf"(?<!-->\n)^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def environment(**changes: str) -> dict[str, str]:
    """This environment, with the commands of the virtual environment on the path."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands find in a clone."""
    made = tmp_path_factory.mktemp("readme")
    (made / "examples").mkdir()
    shutil.copy(SAMPLE, made / "examples")
    return made


def test_the_commands_of_the_readme_run_in_order(folder: Path):
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("ai-models")]
    assert len(commands) >= 4
    for command in commands:
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
    assert len(messages(folder / "member-2.grib")) == 2 * 82
    in_a_program, reading = blocks("python")
    check = "\nassert dataset['geopotential'].shape == (3, 3, 1, 31, 60)"
    subprocess.run([sys.executable, "-c", in_a_program + check], cwd=folder, env=environment(), check=True)
    assert (folder / "from-python.grib").read_bytes() == (folder / "ensemble.grib").read_bytes()
    check = "\nassert spread.shape == (3, 31, 60) and set(wind.data_vars) == {'u10', 'v10'}"
    subprocess.run([sys.executable, "-c", reading + check], cwd=folder, env=environment(), check=True)


def test_what_the_readme_calls_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("forecast", "test"):
        assert f"make {target} " in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def planned(*words: str) -> str:
    """What make would do in a clone where nothing is installed."""
    command = ["make", "--dry-run", "--no-print-directory", "VENV=absent", *words]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout


def test_pytorch_for_cpus_is_that_of_the_constraints_and_comes_first():
    version = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    lines = planned("forecast", "TORCH=cpu").splitlines()
    installs = [line.split("--disable-pip-version-check ")[1] for line in lines if "pip install" in line]
    assert installs == [
        f"--index-url https://download.pytorch.org/whl/cpu torch=={version}",
        "--constraint constraints.txt --editable '.[report,verify]'",
    ]
    assert "make forecast TORCH=cpu" in README


def test_without_it_pytorch_comes_as_it_does():
    assert "index-url" not in planned("forecast")


def test_make_forecast_says_what_it_does_before_it_does_it_and_where_the_page_is():
    lines = planned("forecast", "REPORT=page.html").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("absent/bin/"):
            assert lines[number - 1].startswith('echo "== '), line
    assert lines[-2] == f'echo "== Done. Look at it: open {ROOT / "page.html"} in a browser"'


def test_the_table_of_options_in_the_documentation_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]):
    assert main(["options", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert table.startswith(
        "| option | | with `--resume` |\n|---|---|---|\n| `--variant {auto,era5,hres,mini}` | weights "
    )
    assert (ROOT / "docs" / "options.md").read_text().endswith(f"\n{table}"), (
        "replace the table in docs/options.md by what `ai-models-mosaic options --markdown` prints"
    )


def test_a_wheel_carries_the_weights_and_runs_without_the_checkout(tmp_path: Path):
    source, site = tmp_path / "source", tmp_path / "site"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.split():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("ai_models_mosaic-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", site, wheel], check=True)
    shutil.rmtree(source)
    program = (
        "import sys, ai_models_mosaic; from ai_models.__main__ import _main; print(ai_models_mosaic.__file__);"
        "_main(['mosaic', '--variant', 'mini', '--file', sys.argv[1], '--lead-time', '24', '--path', 'out.grib'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, SAMPLE],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert f"Loading the weights of {site}/ai_models_mosaic/weights/mini.safetensors" in done.stderr
    assert {keys(message, "number") for message in messages(tmp_path / "out.grib")} == {(1,)}


def test_the_digests_of_the_bundled_weights_are_those_of_the_files():
    from ai_models_mosaic.checkpoints.integrity import sha256

    for folder in (ROOT / "weights", ROOT / "weights" / "twin"):
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        assert {line.split()[1] for line in lines} == {path.name for path in folder.glob("*.safetensors")}
        for line in lines:
            digest, name = line.split()
            assert sha256(folder / name) == digest
