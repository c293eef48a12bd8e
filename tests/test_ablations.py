"""What the ablations train, and their table of numbers that are known."""

import importlib
from argparse import Namespace

import pytest
from running import ROOT


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ablations")


def test_runs_differ_in_what_they_leave_out_and_in_their_seed_alone(ablations, tmp_path):
    known = Namespace(updates=100, batch=4, start=tmp_path / "start.safetensors")
    recipes = {name: ablations.varied(name, 3, known).as_dict() for name in ablations.VARIATIONS}
    whole = recipes.pop("nothing left out")
    assert whole["kind"] == "crps"
    assert whole["power_weight"] == 0.3
    assert whole["start_from"] == str(tmp_path / "start.safetensors")
    changed = {name: {key for key in whole if recipe[key] != whole[key]} for name, recipe in recipes.items()}
    assert changed == {
        "perturbations in the bottleneck alone": {"quiet"},
        "no perturbations": {"quiet"},
    }
    other = ablations.varied("nothing left out", 4, known).as_dict()
    assert {key for key in whole if other[key] != whole[key]} == {"seed"}


def test_the_table_has_means_over_seeds_and_their_range(ablations, tmp_path):
    def lines(**columns):
        return [
            {"forecast": f"{name} {seed}", "channel": field, "lead_hours": str(hours)}
            | {key: str(value(seed)) for key, value in columns.items()}
            for name in ablations.VARIATIONS
            for seed in (2, 3)
            for field in ablations.FIELDS
            for hours in ablations.SHOWN_HOURS
        ]

    def ends(value):
        return {"value": value, "low": value, "high": value}

    scores = [
        line | {"score": score}
        for score, value in (("crps_skill_climatology", lambda seed: seed / 10), ("spread_skill", lambda seed: 0.9))
        for line in lines(**ends(value))
    ]
    spectra = [
        line | {"wavenumber": str(wavenumber)}
        for wavenumber in range(9, 17)
        for line in lines(members_ratio=lambda seed, wavenumber=wavenumber: 1 if 10 <= wavenumber <= 15 else 99)
    ]
    for line in spectra:
        line |= {"members_ratio_low": "1", "members_ratio_high": "1"}
    results = importlib.import_module("claims_table").Results(scores, spectra, (), (), tmp_path)
    row = ablations.table(results, [2, 3]).splitlines()[2]
    crps, spread, power = (cell.split(", ") for cell in row.strip("| ").split(" | ")[1:])
    assert (crps, spread, power) == (["0.75 (0.70 – 0.80)"] * 3, ["0.90 (0.90 – 0.90)"] * 3, ["1.00 (1.00 – 1.00)"] * 3)
