"""Mosaic in earth2studio: the numbers of the API, whatever the batch.

The protocol is gone through by its names, which needs no earth2studio; where that is installed (it is in none of this
project's environments: it wants Python 3.11 and zarr 3), its own workflows run too, and its own check of the protocol.
"""

import doctest
import importlib.util
import re
import sys
from collections import OrderedDict
from itertools import islice

import numpy as np
import pytest
import torch
from running import SAMPLE

import ai_models_mosaic as mosaic
from ai_models_mosaic import earth2studio
from ai_models_mosaic.earth2studio import Mosaic
from ai_models_mosaic.errors import CheckpointError, InputError, OptionError
from ai_models_mosaic.variants import ERA5

INSTALLED = importlib.util.find_spec("earth2studio") is not None
real = pytest.mark.skipif(not INSTALLED, reason="earth2studio is not installed")
# Its own imports warn.
pytestmark = pytest.mark.filterwarnings("ignore" if INSTALLED else "error")


@pytest.fixture(scope="module")
def model():
    return Mosaic("mini", seed=0, device="cpu")


@pytest.fixture(scope="module")
def api():
    model = mosaic.load_model("mini", device="cpu")
    return model, mosaic.open_input(SAMPLE, model)


@pytest.fixture(scope="module")
def steps(api):
    """Two steps of members 1 and 2 by the API, (step, member, variable, lat, lon)."""
    loaded, start = api
    return [as_there(step.values) for step in loaded.forecast(start, members=2, lead_time_hours=48, seed=0)]


@pytest.fixture(scope="module")
def history(api):
    """(time, lead_time, variable, lat, lon) of the sample."""
    return torch.from_numpy(as_there(api[1].states([1])[1].values).copy())[None]


def as_there(values):
    return np.moveaxis(np.swapaxes(values, -3, -2)[..., ::-1, :, :], -1, -3)


def coords_of(model, api, ensemble=None, name="ensemble"):
    coords = model.input_coords()
    del coords["batch"]
    coords["time"] = np.array([api[1].initial_time], dtype="datetime64[ns]")
    return coords if ensemble is None else OrderedDict({name: np.array(ensemble)}) | coords


def repeated(history, members):
    return history[None].repeat(members, *[1] * history.ndim)


def test_variables_have_the_names_of_the_lexicon(model):
    variables = model.input_coords()["variable"].tolist()
    assert variables[:6] == ["t2m", "u10m", "v10m", "msl", "z50", "z100"]
    assert variables[-1] == "w1000"
    if INSTALLED:
        from earth2studio.lexicon.base import E2STUDIO_VOCAB

        assert set(variables) <= set(E2STUDIO_VOCAB)


def test_fields_go_from_the_north_pole_and_from_greenwich(model, history):
    coords = model.input_coords()
    assert coords["lat"][[0, 1, -1]].tolist() == [90, 84, -90]
    assert coords["lon"][[0, -1]].tolist() == [0, 354]
    assert coords["lead_time"].tolist() == np.array([-24, 0], dtype="timedelta64[h]").tolist()
    t2m = history[0, -1, 0]
    # April: the south pole is the colder one.
    assert t2m[0].mean() > t2m[-1].mean()


def test_the_iterator_gives_the_initial_state_and_then_the_numbers_of_the_api(model, api, steps, history):
    coords = coords_of(model, api, [0, 1])
    made = list(islice(model.create_iterator(repeated(history, 2), coords), 3))
    for number, ((x, there), expected) in enumerate(zip(made, steps, strict=True)):
        assert list(there) == ["ensemble", "time", "lead_time", "variable", "lat", "lon"]
        assert there["lead_time"].tolist() == np.array([24 * number], dtype="timedelta64[h]").tolist()
        np.testing.assert_array_equal(x[:, 0, 0].numpy(), expected)


def test_a_member_is_that_of_its_coordinate_in_any_batch(model, api, steps, history):
    x, there = model(repeated(history, 1), coords_of(model, api, [1]))
    assert there["ensemble"].tolist() == [1]
    np.testing.assert_array_equal(x[0, 0, 0].numpy(), steps[1][1])


@pytest.mark.parametrize(("ensemble", "members"), [(None, [0]), ([7, 7], [0, 1])])
def test_without_an_ensemble_the_place_is_the_member(model, api, steps, history, ensemble, members):
    x = history if ensemble is None else repeated(history, 2)
    made, _ = model(x, coords_of(model, api, ensemble, "batch"))
    np.testing.assert_array_equal(made.reshape(len(members), *steps[1][0].shape).numpy(), steps[1][members])


def test_calls_one_after_the_other_are_the_steps_of_one_forecast(model, api, steps, history):
    coords = coords_of(model, api)
    first, there = model(history, coords)
    assert there["lead_time"].tolist() == np.array([24], dtype="timedelta64[h]").tolist()
    later = OrderedDict(coords, lead_time=np.array([0, 24], dtype="timedelta64[h]"))
    second, there = model(torch.cat([history[:, 1:], first], dim=1), later)
    assert there["lead_time"].tolist() == np.array([48], dtype="timedelta64[h]").tolist()
    np.testing.assert_array_equal(second[0, 0].numpy(), steps[2][0])


def test_each_initial_time_has_its_own_noise(model, api, history):
    coords = coords_of(model, api)
    time = coords["time"][0]
    both = OrderedDict(coords, time=np.array([time, time + np.timedelta64(24, "h")]))
    x, _ = model(history.repeat(2, 1, 1, 1, 1), both)
    alone, _ = model(history, OrderedDict(coords, time=both["time"][1:]))
    np.testing.assert_array_equal(x[1].numpy(), alone[0].numpy())
    assert not torch.equal(x[0], x[1])


def test_hooks_change_what_goes_on(api, steps, history):
    model = Mosaic("mini", device="cpu")
    model.rear_hook = lambda x, coords: (torch.zeros_like(x) + history[:, -1:], coords)
    _, (first, _), _ = islice(model.create_iterator(history, coords_of(model, api)), 3)
    torch.testing.assert_close(first, history[:, -1:], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: OrderedDict((name, c[name]) for name in reversed(c)),
            "expected the dimensions time, lead_time, variable, lat, lon, and at most one before them, got lon, lat",
        ),
        (
            lambda c: OrderedDict(c, lat=c["lat"][::-1]),
            "lat: expected 31 values from 90.0 to -90.0, with 90.0 at place 0, got -90.0 there",
        ),
        (lambda c: OrderedDict(c, lon=c["lon"][:-1]), "lon: expected 60 values from 0.0 to 354.0, got 59 values"),
        (
            lambda c: OrderedDict(c, variable=np.roll(c["variable"], 1)),
            "variable: expected 82 values from t2m to w1000, with t2m at place 0, got w1000 there",
        ),
        (
            lambda c: OrderedDict(c, lead_time=np.array([-6, 0], dtype="timedelta64[h]")),
            "lead_time: expected 2 values from -24 hours to 0 hours, with -24 hours at place 0, got -6 hours there",
        ),
        (lambda c: OrderedDict(c, lead_time=c["lead_time"][1:]), "lead_time: expected 2 values from -24 hours to 0"),
        (lambda c: OrderedDict(c, lead_time=c["lead_time"][:0]), "lead_time: expected 2 values from -24 hours to 0"),
        (
            lambda c: OrderedDict(c, lead_time=c["lead_time"] + np.timedelta64(6, "h")),
            "lead_time: expected the last to be 0 h or a multiple of the step of 24 h, got 6 h",
        ),
    ],
)
def test_other_coordinates_are_refused_by_name(model, api, history, change, message):
    coords = change(coords_of(model, api))
    for call in (model.output_coords, lambda c: model(history, c), lambda c: model.create_iterator(history, c)):
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            call(coords)
        assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("numbers", [[0, 0], [-1, 0], [0.5, 1.0]])
def test_numbers_that_are_no_members_are_refused(model, api, history, numbers):
    message = f"ensemble: expected distinct whole numbers from 0, got {numbers}"
    with pytest.raises(ValueError, match=re.escape(message)):
        model(repeated(history, 2), coords_of(model, api, numbers))


def test_a_tensor_of_another_shape_is_refused(model, api, history):
    with pytest.raises(ValueError, match=r"expected a tensor of ensemble 2, time 1, .* got shape \(1, 2, 82, 31, 60\)"):
        model(history, coords_of(model, api, [0, 1]))


def test_output_coordinates_keep_what_is_free(model):
    made = model.output_coords(model.input_coords())
    assert [len(values) for values in made.values()] == [0, 0, 1, 82, 31, 60]


def test_the_device_it_is_on_loads_nothing_again(model):
    loaded = model._model
    assert model.to(torch.device("cpu")) is model
    assert model._model is loaded
    with pytest.raises(OptionError, match="device: expected cpu, or one of the"):
        model.to("cuda:99")


def test_noise_that_makes_no_sense_is_refused_before_weights_are_read():
    with pytest.raises(OptionError, match="expected a noise factor from 0 to 10, got -1"):
        Mosaic("era5", assets="absent", noise_factor=-1)


class Folder:
    """What is asked of a package of earth2studio, of files in a local folder, laid out as on the hub or flat."""

    def __init__(self, root, *, flat):
        self.root, self.flat = root, flat

    def resolve(self, name):
        path = self.root / (name.rpartition("/")[-1] if self.flat else name)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
        return str(path)


@pytest.mark.parametrize("flat", [True, False])
def test_all_files_of_a_variant_are_taken_from_the_package(tmp_path, flat):
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        Mosaic.load_model(Folder(tmp_path, flat=flat), "era5")
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {name.rpartition("/")[-1] if flat else name for name in ERA5.asset_files}


def test_a_package_that_hides_names_of_files_is_refused(tmp_path):
    class Hashed:
        def resolve(self, name):
            return str(tmp_path / "0f3a")

    with pytest.raises(
        CheckpointError, match=r"era5_best\.pt: expected the package to keep names of files, got .*0f3a"
    ):
        Mosaic.load_model(Hashed(), "era5")


def test_a_bundled_variant_asks_no_package():
    assert len(Mosaic.load_model(None, "mini", device="cpu").input_coords()["lat"]) == 31


def test_a_package_needs_earth2studio_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "earth2studio.models.auto", None)
    with pytest.raises(OptionError, match="load_default_package: expected earth2studio to be installed"):
        Mosaic.load_default_package()


def test_the_example_of_the_module_holds():
    assert doctest.testmod(earth2studio).failed == 0


@real
def test_it_is_a_prognostic_model_and_its_package_is_one(model):
    from earth2studio.models.auto import Package
    from earth2studio.models.px import PrognosticModel

    assert isinstance(model, PrognosticModel)
    package = Mosaic.load_default_package()
    assert isinstance(package, Package)
    assert package.root == "hf://maxxxzdn/mosaic@232b632"


class SampleSource:
    """A data source of earth2studio: the sample, at any of its two times."""

    def __init__(self, coords, history):
        self.coords, self.history = coords, history

    def __call__(self, time, variable):
        import xarray

        initial = self.coords["time"][0]
        times = initial + self.coords["lead_time"]
        names = {name: self.coords[name] for name in ("variable", "lat", "lon")}
        array = xarray.DataArray(self.history[0].numpy(), {"time": times, **names}, ["time", *names])
        return array.sel(time=np.array(time, dtype="datetime64[ns]"), variable=np.array(variable))


@real
@pytest.mark.parametrize("batch_size", [1, 2])
def test_its_ensemble_workflow_gives_the_numbers_of_the_api(model, api, steps, history, batch_size):
    from earth2studio import run
    from earth2studio.io import XarrayBackend
    from earth2studio.perturbation import Zero

    coords = coords_of(model, api)
    made = run.ensemble(
        [str(api[1].initial_time)],
        2,
        2,
        model,
        SampleSource(coords, history),
        XarrayBackend(),
        Zero(),
        batch_size=batch_size,
        device=torch.device("cpu"),
        verbose=False,
    )
    dataset = made.root
    for name in ("z500", "t2m"):
        index = coords["variable"].tolist().index(name)
        values = dataset[name].transpose("ensemble", "time", "lead_time", "lat", "lon").values[:, 0]
        np.testing.assert_array_equal(values, np.stack([step[:, index] for step in steps], axis=1))


@real
def test_its_deterministic_workflow_gives_member_1(model, api, steps, history):
    from earth2studio import run
    from earth2studio.io import XarrayBackend

    coords = coords_of(model, api)
    time, source = [str(api[1].initial_time)], SampleSource(coords, history)
    cpu = torch.device("cpu")
    made = run.deterministic(time, 1, model, source, XarrayBackend(), device=cpu, verbose=False)
    np.testing.assert_array_equal(made.root["t2m"].values[0], np.stack([step[0, 0] for step in steps[:2]]))
