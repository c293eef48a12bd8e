"""The benchmark for a GPU that is there for a few minutes, run on the CPU, without what only a GPU has."""

import importlib
import json
import subprocess
import sys

import pytest
from running import ROOT

from ai_models_mosaic.model.launches import Launch

sys.path.append(str(ROOT / "benchmarks"))
quick, sections, bench, census, counting = (
    importlib.import_module(name) for name in ("quick", "sections", "bench", "census", "counting")
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All sections of ``gpu.py --quick`` for one step of mini."""
    path = tmp_path_factory.mktemp("quick") / "found.json"
    words = [
        "--quick",
        "--device",
        "cpu",
        "--variant",
        "mini",
        "--steps",
        "1",
        "--seconds",
        "1500",
        "--json",
        str(path),
    ]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(path.read_text())


def test_all_is_measured_but_what_only_a_gpu_has(found):
    assert list(found) == ["begun", *quick.SECTIONS]
    there = {name for name in quick.SECTIONS if "not there" not in found[name]}
    assert there == quick.SECTIONS.keys() - {"parts", "tiles"}
    assert found["parts"]["not there"] == found["tiles"]["not there"] == "needs a CUDA GPU"
    assert set(found["step"]) == {"seconds", "1 at once", "2 at once"}
    assert (found["resident"]["members"], found["resident"]["steps"]) == (2, 1)
    assert found["command"]["no output, s"] > 0
    assert found["command"]["GRIB, s"] > 0


def test_the_released_outputs_are_met(found):
    for file in ("era5_tiny", "hres_tiny"):
        for backend in ("sdpa", "reference"):
            assert found["parity"][file][f"{backend} float32"]["largest difference"] < 1e-5


# One section does not end the others.


class Options:
    """Of the command, as far as sections without a device ask."""

    device, seconds, sections = "cpu", 10.0, ("fine", "broken", "not for a CPU", "late")

    def __init__(self, path):
        self.json = path


def test_a_section_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def broken(bench):
        raise ValueError("no such kernel\nand more")

    def not_for_a_cpu(bench):
        bench.need_gpu()

    made = {
        "fine": quick.Section(lambda bench: {"rate": 1.25}, 5),
        "broken": quick.Section(broken, 5),
        "not for a CPU": quick.Section(not_for_a_cpu, 5),
        "late": quick.Section(lambda bench: {"never": 0}, 0),
    }
    monkeypatch.setattr(quick, "SECTIONS", made)
    assert quick.run(Options(tmp_path / "found.json")) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert [value.pop("seconds") >= 0 for key, value in found.items() if key != "begun"] == [True] * 4
    assert found["fine"] == {"rate": 1.25}
    assert found["broken"] == {"failed": "ValueError: no such kernel"}
    assert found["not for a CPU"] == {"not there": "needs a CUDA GPU"}
    assert found["late"] == {"not there": "no time was left"}
    assert "rate: 1.25" in capsys.readouterr().out


# The profile.


def test_kernels_are_summed_by_part():
    ran = {
        "attend": (3.0, 2),
        "nvjet_hsh_256x128": (4.0, 5),
        "void at::native::vectorized_elementwise_kernel<CUDAFunctor_add>": (1.0, 1),
        "rotate": (1.0, 1),
        "something new": (1.0, 1),
    }
    found = sections.by_part(ran)
    assert list(found) == ["products", "attention", "sums", "rotation and means", "other"]
    assert found["products"] == {"s": 4.0, "launches": 5, "share": 0.4}
    assert found["attention"] == {"s": 3.0, "launches": 2, "share": 0.3}


def test_kernels_of_our_own_are_told_from_those_whose_names_begin_alike():
    assert sections.part_of("attend_to_means") == "attention"
    assert sections.part_of("select") == "selection"
    assert sections.part_of("select_and_reduce_kernel") != "selection"


def test_a_kernel_stands_beside_what_the_rates_allow():
    rates = census.Rates(products=100.0, attention=50.0, bytes=10.0)
    counts = [
        counting.Count("norms", Launch("normalise", 30, 10)),
        counting.Count("norms", Launch("normalise", 40, 20)),
    ]
    counts.append(counting.Count("attention", Launch("attend", 1, 1, 100.0)))
    found = sections.against_floor({"normalise": (20.0, 2), "attend": (2.5, 1)}, counts, rates)
    assert found == {
        "normalise": {"s": 20.0, "floor, s": 10.0, "of its floor": 2.0},
        "attend": {"s": 2.5, "floor, s": 2.0, "of its floor": 1.25},
    }


def test_nested_values_are_shown_line_by_line():
    assert quick.lines({"a": {"b": {"c": 1.0, "d": "x"}}, "e": 2}) == ["a b: c: 1; d: x", "e: 2"]
