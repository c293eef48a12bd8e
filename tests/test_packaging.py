"""The Dockerfile and the conda recipe against what they repeat of the project."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import re
import shlex
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from running import ROOT

from ai_models_mosaic import __version__
from ai_models_mosaic.cli import parser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
RECIPE = ROOT / "conda" / "recipe.yaml"
NAMES = {"torch": "pytorch", "eccodes": "python-eccodes", "matplotlib": "matplotlib-base"}
"""Those that conda-forge gives to packages of PyPI."""


def lines(section: str, key: str) -> list[str]:
    return [line for line in SETUP[section][key].splitlines() if line and not line.startswith("#")]


def pinned(requirement: str) -> tuple[str, SpecifierSet]:
    """Name and range, without the marker."""
    found = Requirement(requirement)
    return NAMES.get(found.name, found.name), found.specifier


# Conda.


def recipe() -> dict:
    return yaml.safe_load(RECIPE.read_text())


def test_the_recipe_has_the_dependencies_of_the_package_but_for_the_runner():
    wanted = dict(map(pinned, lines("options", "install_requires")))
    assert wanted.pop("ai-models")
    python = SpecifierSet(SETUP["options"]["python_requires"])
    found = dict(map(pinned, recipe()["requirements"]["run"]))
    assert found == {"python": python, **wanted}
    with (ROOT / "pyproject.toml").open("rb") as file:
        build = dict(map(pinned, tomllib.load(file)["build-system"]["requires"]))
    assert dict(map(pinned, recipe()["requirements"]["host"])) == {"python": python, "pip": SpecifierSet(), **build}


def test_the_ranges_of_its_extras_are_those_of_the_package():
    extras = [line for extra in SETUP["options.extras_require"] for line in lines("options.extras_require", extra)]
    known = [pinned(line) for line in extras if not line.startswith("ai-models-mosaic[")]
    for constraint in recipe()["requirements"]["run_constraints"]:
        assert pinned(constraint) in known


def test_the_recipe_is_of_this_version_and_has_its_command():
    assert recipe()["context"]["version"] == __version__
    assert recipe()["build"]["python"]["entry_points"] == lines("options.entry_points", "console_scripts")
    for test in recipe()["tests"]:
        for name in test.get("files", {}).get("source", []):
            assert (ROOT / name).is_file()
        for command in test.get("script", []):
            name, *words = shlex.split(command)
            assert name == "ai-models-mosaic"
            parser().parse_known_args(words)


def test_what_builds_recipes_takes_it():
    rattler_build = pytest.importorskip("rattler_build")
    (variant,) = rattler_build.Stage0Recipe.from_file(str(RECIPE)).render()
    assert len(variant.recipe.requirements.run) == len(recipe()["requirements"]["run"])


# The container.


def instructions() -> list[tuple[str, str]]:
    """Names and arguments, in order, lines that go on put together."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def is_sent(name: str) -> bool:
    """Whether a builder gets a file or folder at the top of the checkout."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(name, line.lstrip("!")):
            sent = line.startswith("!")
    return sent


def test_all_that_is_copied_is_there_and_all_that_the_package_is_made_of_is_sent():
    sources = [
        word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert sources == ["constraints.txt", "."]
    assert (ROOT / "constraints.txt").is_file()
    metadata = SETUP["metadata"]
    needed = {metadata["long_description"].removeprefix("file: "), metadata["license_files"], "setup.cfg"}
    needed |= {"pyproject.toml", "constraints.txt", "ai_models_mosaic"}
    needed |= {line.split(" = ")[1] for line in lines("options", "package_dir")}
    assert {name for name in needed if not is_sent(name)} == set()
    assert {name for name in (".git", ".venv", "tests", "docs", "Dockerfile", "a.grib") if is_sent(name)} == set()


def test_it_is_installed_as_everywhere_with_the_tested_versions():
    installs = [
        part for name, rest in instructions() if name == "RUN" for part in rest.split("&&") if "pip install" in part
    ]
    assert len(installs) == 2
    for line in installs:
        words = shlex.split(line)
        assert words[words.index("--constraint") + 1] == "constraints.txt"
        assert "--no-cache-dir" in words
    assert shlex.split(installs[0])[-1] == "torch"
    assert shlex.split(installs[1])[-1] == ".[${EXTRAS}]"
    arguments = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG")
    assert set(arguments["EXTRAS"].strip('"').split(",")) <= set(SETUP["options.extras_require"])
    assert f"{arguments['PYTHON']}.0" in SpecifierSet(SETUP["options"]["python_requires"])
    assert arguments["TORCH_INDEX"] == '""'


def test_it_runs_as_a_user_with_a_name_and_looks_after_itself_by_a_command_that_there_is():
    found = dict(instructions())
    assert found["USER"] == "1000"
    assert [rest for name, rest in instructions() if name == "RUN"][-1].startswith(
        "useradd --create-home --uid 1000 mosaic"
    )
    for name in ("HEALTHCHECK", "CMD"):
        program, *words = ast.literal_eval(found[name][found[name].index("[") :])
        assert program == "ai-models-mosaic"
        if words != ["--help"]:
            assert parser().parse_args(words).command.__module__.endswith(".doctor")
