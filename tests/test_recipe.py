import re
from pathlib import Path

import pytest

from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.training.recipe import Phase, Recipe, read_recipe, recipe_of

RECIPES = Path(__file__).parent.parent / "recipes"
MINIMAL = {
    "variant": "mini",
    "training": ["a.zarr"],
    "validation": ["b.zarr"],
    "phases": [
        {"updates": 10, "batch": 4, "learning_rate": 1e-3},
        {"updates": 5, "batch": 2, "learning_rate": 1, "rollout": 3},
    ],
}


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_project_can_be_read(path):
    assert read_recipe(path).variant == "mini"


def test_a_recipe_is_what_its_file_says():
    recipe = recipe_of(MINIMAL, "x")
    assert recipe.training == ("a.zarr",)
    assert recipe.phases[1] == Phase(5, 2, 1.0, 0, 3)
    assert (recipe.updates, recipe.kind, recipe.ensemble_members) == (15, "crps", 2)


def test_the_twin_has_one_member():
    assert recipe_of({**MINIMAL, "kind": "mse"}, "x").ensemble_members == 1


@pytest.mark.parametrize(("update", "phase", "within"), [(0, 0, 0), (9, 0, 9), (10, 1, 0), (14, 1, 4)])
def test_updates_count_through_the_phases(update, phase, within):
    recipe = recipe_of(MINIMAL, "x")
    assert recipe.phase_of(update) == (recipe.phases[phase], within)


def test_there_is_no_update_after_the_last():
    with pytest.raises(OptionError, match="the recipe has 15 updates"):
        recipe_of(MINIMAL, "x").phase_of(15)


def test_the_recipe_survives_its_record():
    recipe = recipe_of({**MINIMAL, "quiet": ["bottleneck"], "betas": [0.8, 0.9]}, "x")
    recorded = recipe.as_dict()
    assert recipe_of({**recorded, "phases": list(recorded["phases"])}, "x") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "x: unknown colour; expected some of variant, training, validation, phases"),
        ({"variant": "maxi"}, "recipe: expected variant to be one of era5, hres, mini"),
        ({"kind": "mae"}, "recipe: expected kind to be one of crps, mse, got 'mae'"),
        ({"members": 1}, "recipe: a CRPS needs at least 2 members of the same input, got 1"),
        ({"members": "two"}, "x: expected members to be a int, got 'two'"),
        ({"members": True}, "x: expected members to be a int, got True"),
        ({"training": []}, "recipe: expected at least one store to train on, one to validate on, and one phase"),
        ({"training": "a.zarr"}, "x: expected training to be a tuple, got 'a.zarr'"),
        ({"training": ["a.zarr", 1]}, "x: expected training to be tuple[str, ...], got ('a.zarr', 1)"),
        ({"betas": [0.9]}, "x: expected betas to be tuple[float, float], got (0.9,)"),
        ({"betas": [0.9, "1"]}, "x: expected betas to be tuple[float, float], got (0.9, '1')"),
        ({"betas": [0.9, 1]}, "recipe: expected betas from 0 to below 1, got (0.9, 1)"),
        ({"phases": 3}, "x: expected phases as tables, each below [[phases]], got 3"),
        ({"phases": [3]}, "x: expected phases as tables, each below [[phases]], got [3]"),
        ({"phases": {"updates": 3}}, "x: expected phases as tables, each below [[phases]], got {'updates': 3}"),
        ({"seed": -1}, "recipe: expected a seed from 0 to 2**63 - 1"),
        ({"validate_every": 0}, "recipe: expected validate_every, validation_starts and validation_members from 1"),
        ({"phases": [{"updates": 3, "batch": 1, "learning_rate": float("inf")}]}, "expected positive updates"),
        ({"kind": "mse", "power_weight": 0.1}, "recipe: expected no power_weight for kind 'mse'"),
        ({"power_weight": -1}, "recipe: expected a power_weight from 0"),
        ({"noise_rate": 0}, "and a noise_rate above 0"),
        (
            {"phases": [{"updates": 3, "batch": 1, "learning_rate": 1.0, "free_steps": -1}]},
            "expected free_steps from 0, got -1",
        ),
        ({"fairness": 1.5}, "recipe: expected fairness and ema within 0 … 1"),
        ({"phases": [{"updates": 3, "batch": 1}]}, "x, phase 1: learning_rate missing"),
        ({"phases": [{"updates": 3, "batch": 0, "learning_rate": 1.0}]}, "expected positive updates, batch, rollout"),
        (
            {"phases": [{"updates": 3, "batch": 1, "learning_rate": 1.0, "warm_up": 3}]},
            "expected a warm_up from 0 to below the 3",
        ),
    ],
)
def test_what_is_wrong_is_refused(change, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        recipe_of({**MINIMAL, **change}, "x")


@pytest.mark.parametrize("missing", ["variant", "training", "validation", "phases"])
def test_what_is_missing_is_named(missing):
    found = {name: value for name, value in MINIMAL.items() if name != missing}
    with pytest.raises(OptionError, match=f"{missing} missing|one phase"):
        recipe_of(found, "x")


@pytest.mark.parametrize("text", [None, "variant = ", "variant", "a = " + "[" * 100_000, "\udcff"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "r.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(OptionError, match="cannot be read as a recipe"):
        read_recipe(path)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(AttributeError):
        recipe_of(MINIMAL, "x").seed = 3


def test_every_field_is_documented():
    assert all(
        re.search(rf"^    .*\b{name}\b.* : ", Recipe.__doc__, re.MULTILINE) for name in Recipe.__dataclass_fields__
    )
