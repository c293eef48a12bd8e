"""What docs/python.md shows is run, and what it says to install is what is needed."""

import doctest
import re
import shutil
from configparser import ConfigParser

import numpy as np
import pytest
from packaging.requirements import Requirement
from running import ROOT, SAMPLE

TEXT = (ROOT / "docs" / "python.md").read_text()
RUNNER = "ai-models"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def requirements(lines: str) -> dict[str, Requirement]:
    made = [Requirement(line) for line in lines.splitlines() if line.strip() and not line.startswith("#")]
    return {requirement.name.replace("_", "-").lower(): requirement for requirement in made}


@pytest.fixture(scope="module")
def setup():
    made = ConfigParser()
    made.read(ROOT / "setup.cfg")
    return made


def test_the_examples_run_in_order(tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").mkdir()
    for sample in (SAMPLE, SAMPLE.with_name("mini-truth.grib")):
        shutil.copy(sample, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    examples, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for number, block in enumerate(blocks("python")):
        if block.startswith(">>>"):
            runner.run(examples.get_doctest(block, space, f"block {number}", None, 0), clear_globs=False)
        else:
            exec(compile(block, f"block {number}", "exec"), space)  # noqa: S102
    assert runner.failures == 0, capsys.readouterr().out
    assert space["dataset"].sizes == {"number": 3, "step": 3, "level": 1, "latitude": 31, "longitude": 60}
    assert space["result"].sizes["lead_time"] == 2
    assert np.isfinite(space["result"]["crps_fair"]).all()
    assert space["spread"].dims == ("step", "latitude", "longitude")
    assert {path.name for path in tmp_path.iterdir()} >= {"ensemble.grib", "ensemble.zarr", "ensemble.nc"}
    assert [line.split(" (1,")[0] for line in capsys.readouterr().out.splitlines()[:3]] == [
        "0 2008-04-26 06:00:00",
        "24 2008-04-27 06:00:00",
        "48 2008-04-28 06:00:00",
    ]


def test_what_is_installed_without_the_runner_is_all_that_the_package_requires(setup):
    needed = requirements(setup["options"]["install_requires"])
    (commands,) = blocks("sh")
    words = [line.split("#")[0].removeprefix("pip install ") for line in commands.splitlines()]
    named = requirements("\n".join(word.strip("'") for word in " ".join(words[:2]).split()))
    everywhere = {name for name, requirement in needed.items() if requirement.marker is None}
    assert everywhere - named.keys() == {RUNNER}
    extras = {**requirements(setup["options.extras_require"]["zarr"]), "netcdf4": Requirement("netCDF4")}
    assert named.keys() - needed.keys() == extras.keys() - needed.keys()
    assert words[2] == "--no-deps ."


def test_the_environment_with_numpy_2_is_within_the_ranges_of_the_package(setup):
    pinned = requirements((ROOT / "environments" / "numpy2.txt").read_text())
    needed = requirements(setup["options"]["install_requires"]) | requirements(setup["options.extras_require"]["zarr"])
    del needed[RUNNER]
    for name, requirement in needed.items():
        if requirement.marker is None:
            (version,) = (str(one.version) for one in pinned[name].specifier)
            assert requirement.specifier.contains(version), (str(requirement), version)
    assert str(pinned["numpy"].specifier).startswith("==2.")
    assert str(pinned["zarr"].specifier).startswith("==3.")
    assert RUNNER not in pinned
