import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ai_models_mosaic

PACKAGE = Path(ai_models_mosaic.__file__).parent

# From the top floor to the ground: imports point down, or along the same floor.
FLOORS = (
    ("plugin", "cli"),
    ("api",),
    ("verification",),
    (
        "forecast_command",
        "run_config",
        "archive_requests",
        "forecast_setup",
        "destination",
        "input_opening",
        "destination",
        "input_reader",
        "initial_times",
        "inspection",
        "doctor",
        "session",
        "run",
        "replay",
        "card",
        "card_form",
        "console",
        "declarations",
        "number_lists",
        "surroundings",
        "runner_options",
        "journal",
        "identity",
        "record_file",
        "state_files",
        "ranks",
        "dates",
        "retrieve",
        "open_data",
        "services",
        "clients",
        "provenance",
        "rollout",
        "progress",
        "inputs",
        "holdings",
        "histories",
        "shortcomings",
        "sources",
        "zarr_input",
        "zarr_store",
        "outputs",
        "options",
        "training",
        "world",
    ),
    (
        "engines",
        "assets",
        "hub",
        "convert",
        "integrity",
        "random_checkpoint",
        "checkpoint",
        "held_file",
        "tensor_files",
        "npz_file",
        "onnx_export",
    ),
    ("model",),
    (
        "variants",
        "params",
        "channels",
        "field_kinds",
        "field_origins",
        "grib_messages",
        "regrid",
        "weights_cache",
        "geometry_cache",
        "disk_cache",
        "files",
        "grid",
        "state",
        "arrays",
        "errors",
        "wording",
        "redaction",
        "messages",
        "harmonics",
        "__init__",
    ),
)


def module_of(path):
    """``outputs/grib.py`` is outputs.grib, ``outputs/__init__.py`` is outputs, ``__init__.py`` itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module):
    return module.split(".")[0]


def imported(module):
    """Every module that a module imports, anywhere in it: (of this package, of others)."""
    own, others = set(), set()
    path = SOURCES[module]
    package = list(path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = ["ai_models_mosaic", *package[: len(package) - node.level + 1], *base]
            # What is imported from a package may be a module of it.
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            if room(name) != "ai_models_mosaic":
                others.add(name)
                continue
            inner = name.split(".")[1:]
            while inner and ".".join(inner) not in SOURCES:
                inner.pop()
            own.add(".".join(inner) or "__init__")
    return own - {module}, others


def floor(module):
    return next(index for index, rooms in enumerate(FLOORS) if room(module) in rooms)


def test_the_imports_that_are_known_to_be_there_are_found():
    own, others = imported("outputs.templates")
    assert {"arrays", "errors", "grid", "params", "outputs.packing"} == own
    assert {"eccodes", "datetime.datetime"} <= others
    assert {"engines", "assets", "__init__"} <= imported("provenance")[0]


def test_every_module_has_its_floor():
    rooms = [room for rooms in FLOORS for room in rooms]
    assert len(rooms) == len(set(rooms))
    assert {room(module) for module in SOURCES} == set(rooms)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_one_way(module):
    upwards = [other for other in imported(module)[0] if floor(other) < floor(module)]
    assert upwards == []


def test_no_imports_go_round_in_a_circle():
    TopologicalSorter({module: imported(module)[0] for module in SOURCES}).prepare()


def test_the_runner_is_known_to_the_plugin_alone():
    users = [module for module in SOURCES if any(room(name) == "ai_models" for name in imported(module)[1])]
    assert users == ["plugin"]


def test_torch_is_known_to_the_network_its_engine_and_what_makes_weights_alone():
    users = [module for module in SOURCES if any(room(name) == "torch" for name in imported(module)[1])]
    assert {room(module) for module in users} == {
        "checkpoint",
        "tensor_files",
        "doctor",
        "engines",
        "model",
        "onnx_export",
        "random_checkpoint",
        "training",
        "ranks",
        "replay",
    }


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
        ("import ai_models_mosaic.rollout, ai_models_mosaic.provenance", []),
        ("import ai_models_mosaic.run, ai_models_mosaic.journal, ai_models_mosaic.ranks", []),
    ],
)
def test_what_must_answer_at_once_imports_no_torch(program, heavy):
    sample = PACKAGE.parent / "examples" / "mini-input.grib"
    program = LIGHT.format(program, heavy)
    ran = subprocess.run([sys.executable, "-c", program, str(sample)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
