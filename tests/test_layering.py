"""What must answer at once imports nothing heavy; who may know whom is told by import-linter in ``pyproject.toml``."""

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import ai_models_mosaic

PACKAGE = Path(ai_models_mosaic.__file__).parent


def test_no_imports_go_round_in_a_circle():
    graph = grimp.build_graph("ai_models_mosaic", exclude_type_checking_imports=True)
    known = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert "ai_models_mosaic.channels" in known["ai_models_mosaic.params"]
    TopologicalSorter(known).prepare()


def test_the_top_of_the_package_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 12


WITHOUT_THE_RUNNER = """
import importlib, pkgutil, sys
import ai_models_mosaic
sys.modules["ai_models"] = None
# Programs of another environment, and modules for which Triton or a version of zarr has to be there.
others = {"plugin", "world.simulator", "model.attention.kernel", "weights", *("inputs.zarr_store.version2", "inputs.zarr_store.version3")}
for module in pkgutil.walk_packages(ai_models_mosaic.__path__, "ai_models_mosaic."):
    if module.name.removeprefix("ai_models_mosaic.") not in others:
        importlib.import_module(module.name)
"""


def test_all_but_the_plugin_runs_where_there_is_no_runner():
    subprocess.run([sys.executable, "-c", WITHOUT_THE_RUNNER], check=True)


LIGHT = """
import sys
{}
heavy = sorted({{"torch", "sklearn", "scipy"}} & sys.modules.keys())
assert heavy == {}, heavy
"""


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("import ai_models_mosaic.plugin", ["scipy"]),
        ("import ai_models_mosaic.cli", []),
        ("from ai_models_mosaic.cli import main; main(['options'])", []),
        ("import ai_models_mosaic.verification.options", []),
        ("from ai_models_mosaic.cli import main; main(['inspect', sys.argv[1]])", []),
        ("from ai_models_mosaic.engines import Engine", []),
        ("import ai_models_mosaic.forecast.rollout, ai_models_mosaic.forecast.provenance", []),
        ("import ai_models_mosaic.forecast.run, ai_models_mosaic.forecast.resume, ai_models_mosaic.forecast.ranks", []),
    ],
)
def test_what_must_answer_at_once_imports_no_torch(program, heavy):
    sample = PACKAGE.parent / "examples" / "mini-input.grib"
    program = LIGHT.format(program, heavy)
    ran = subprocess.run([sys.executable, "-c", program, str(sample)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
