"""What the benchmarks take from the package is there: nothing else runs most of them."""

import ast
import importlib
import subprocess
import sys

import pytest
from running import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ai_models_mosaic"):
            module = importlib.import_module(node.module)
            for name in node.names:
                # Of a package, it may be a module.
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")


def test_what_a_start_is_measured_by_is_there(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    start_up = importlib.import_module("start_up")
    parts = [(module, path) for module, names in start_up.PARTS.items() for path in names]
    missing = {path for module, path in [*parts, start_up.FIRST] if not found_in(module, path)}
    # Where checkouts of before had it.
    assert missing == {"choose_backend"}


def found_in(module, path):
    """Whether a module has what a path of attributes names."""
    owner = importlib.import_module(module)
    for part in path.split("."):
        owner = getattr(owner, part, None)
    return owner is not None


@pytest.mark.parametrize(
    "words",
    [
        ("memory.py", "--engine", "persistence", "--members", "2", "--steps", "1", "--one"),
        ("grib_encoding.py", "--variant", "mini", "--repeats", "1"),
    ],
)
def test_a_benchmark_of_the_output_runs(words):
    name, *more = words
    command = [sys.executable, str(ROOT / "benchmarks" / name), *more]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
