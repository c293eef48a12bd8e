"""Power spectra, against spherical harmonics made by hand and against another library."""

import ducc0
import numpy as np
import pytest
from scipy.special import roots_legendre, sph_harm_y

from ai_models_mosaic.errors import InputError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.verification.scores import area_weights
from ai_models_mosaic.verification.spectra import PowerSpectrum


def evenly(columns: int) -> tuple[float, ...]:
    return tuple((np.arange(columns) * 360 / columns).tolist())


GRIDS = {
    "with poles": LatLonGrid.regular(6),
    "without poles": LatLonGrid(evenly(64), tuple((np.arange(32) * 5.625 - 87.1875).tolist())),
    "Gaussian": LatLonGrid(evenly(64), tuple(np.degrees(np.arcsin(np.sort(roots_legendre(32)[0]))).tolist())),
    "few longitudes": LatLonGrid(evenly(24), LatLonGrid.regular(6).latitude_deg),
    "from 3°E": LatLonGrid(tuple((np.arange(60) * 6 + 3.0).tolist()), LatLonGrid.regular(6).latitude_deg),
}


def harmonic(grid: LatLonGrid, degree: int, order: int) -> np.ndarray:
    """A real harmonic whose mean square over the sphere is 1, ``(lon, lat)``."""
    longitude, latitude = (np.radians(angles) for angles in (grid.longitude_deg, grid.latitude_deg))
    wave = sph_harm_y(degree, order, (np.pi / 2 - latitude)[None], longitude[:, None])
    return np.sqrt(4 * np.pi) * (wave.real if order == 0 else np.sqrt(2) * wave.imag)


@pytest.fixture(scope="module")
def spectrum() -> PowerSpectrum:
    return PowerSpectrum(GRIDS["with poles"])


@pytest.mark.parametrize("grid", GRIDS)
def test_a_harmonic_has_its_power_at_its_degree_alone(grid: str):
    power_of = PowerSpectrum(GRIDS[grid])
    highest = power_of.maximum
    for degree, order in (
        (0, 0),
        (1, 0),
        (1, 1),
        (4, 3),
        (highest // 2, 2),
        (highest, 0),
        (highest, 1),
        (highest, highest),
    ):
        expected = np.zeros(highest + 1)
        expected[degree] = 1.0
        np.testing.assert_allclose(power_of(harmonic(GRIDS[grid], degree, order)), expected, atol=1e-10)


def test_the_highest_wavenumber_is_what_the_grid_can_tell():
    assert {name: PowerSpectrum(grid).maximum for name, grid in GRIDS.items()} == {
        "with poles": 29,
        "without poles": 31,
        "Gaussian": 31,
        "few longitudes": 11,
        "from 3°E": 29,
    }


def test_powers_of_different_degrees_add_up_to_the_mean_square(spectrum: PowerSpectrum):
    generator, grid = np.random.default_rng(2), GRIDS["with poles"]
    field, expected = np.zeros(grid.shape), np.zeros(30)
    for degree in range(15):
        for order in range(degree + 1):
            amplitude = generator.normal()
            field += amplitude * harmonic(grid, degree, order)
            expected[degree] += amplitude**2
    np.testing.assert_allclose(spectrum(field), expected, atol=1e-10 * expected.sum())
    assert spectrum(field).sum() == pytest.approx((field**2 * area_weights(grid)).sum(), rel=5e-3)


def test_any_field_has_the_spectrum_that_ducc_finds(spectrum: PowerSpectrum):
    field = np.random.default_rng(3).normal(size=GRIDS["with poles"].shape)
    # At a pole all longitudes are one point.
    field[:, [0, -1]] = field[0, [0, -1]]
    from_north = np.ascontiguousarray(field.T[::-1])[None]
    coefficients = ducc0.sht.analysis_2d(map=from_north, lmax=29, spin=0, geometry="CC")[0]
    expected, position = np.zeros(30), 0
    for order in range(30):
        for degree in range(order, 30):
            expected[degree] += (1 if order == 0 else 2) * abs(coefficients[position]) ** 2 / (4 * np.pi)
            position += 1
    np.testing.assert_allclose(spectrum(field), expected, rtol=1e-11)


def test_turning_and_mirroring_the_globe_does_not_change_the_spectrum(spectrum: PowerSpectrum):
    field = harmonic(GRIDS["with poles"], 7, 3) + 0.5 * harmonic(GRIDS["with poles"], 12, 0)
    for other in (np.roll(field, 11, axis=0), field[:, ::-1], field[::-1]):
        np.testing.assert_allclose(spectrum(other), spectrum(field), atol=1e-12)


def test_fields_are_analysed_together_as_they_are_alone(spectrum: PowerSpectrum):
    fields = np.random.default_rng(5).normal(size=(2, 3, 60, 31)).astype(np.float32)
    together = spectrum(fields)
    assert together.shape == (2, 3, 30)
    np.testing.assert_allclose(together[1, 2], spectrum(fields[1, 2]), rtol=1e-12)


def test_a_mean_of_unlike_members_has_less_power_than_they_have(spectrum: PowerSpectrum):
    members = np.random.default_rng(6).normal(size=(8, 60, 31))
    ratio = spectrum(members.mean(axis=0)) / spectrum(members).mean(axis=0)
    assert 0.08 < ratio[3:].mean() < 0.18


def test_uneven_longitudes_are_refused():
    grid = LatLonGrid((0.0, 80.0, 180.0, 270.0), LatLonGrid.regular(30).latitude_deg)
    with pytest.raises(InputError, match="spectra need evenly spaced longitudes, got steps of 80° to 100°"):
        PowerSpectrum(grid)


def test_uneven_latitudes_are_refused():
    uneven = [-90.0, *(-90 + np.cumsum([2.0, 10.0] * 15))]
    grid = LatLonGrid(evenly(64), tuple(float(latitude) for latitude in uneven))
    with pytest.raises(InputError, match="spectra need latitudes that are nearly evenly spaced"):
        PowerSpectrum(grid)
