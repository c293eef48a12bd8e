import re

import numpy as np
import pytest
from scipy.special import sph_harm_y

from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.geometry.harmonics import analysis, clenshaw_curtis, degrees, synthesis

GRID = LatLonGrid.regular(15.0)


def test_every_degree_has_as_many_coefficients_as_orders():
    assert degrees(3).tolist() == [0] + 3 * [1] + 5 * [2] + 7 * [3]


@pytest.mark.parametrize("intervals", [4, 5, 12, 31])
def test_the_weights_integrate_polynomials_of_the_cosine(intervals):
    theta = np.arange(intervals + 1) * np.pi / intervals
    for power in range(intervals + 1):
        exact = (1 - (-1) ** (power + 1)) / (power + 1)
        assert clenshaw_curtis(intervals) @ np.cos(theta) ** power == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("limit", [0, 5, 11])
def test_analysis_gives_back_the_coefficients_of_a_field(limit):
    coefficients = np.random.default_rng(0).normal(size=(limit + 1) ** 2)
    found = analysis(GRID, limit) @ (synthesis(GRID, limit) @ coefficients)
    np.testing.assert_allclose(found, coefficients, atol=1e-12)


def test_the_real_harmonics_are_those_of_the_complex_ones_and_orthonormal():
    longitude, latitude = (np.radians(axis) for axis in GRID.points())
    basis = synthesis(GRID, 2)
    y21 = sph_harm_y(2, 1, np.pi / 2 - latitude, longitude)
    np.testing.assert_allclose(basis[:, 4 + 2 + 1], np.sqrt(2) * y21.real, atol=1e-14)
    np.testing.assert_allclose(basis[:, 4 + 2 - 1], np.sqrt(2) * y21.imag, atol=1e-14)
    rows = len(GRID.latitude_deg) - 1
    weights = np.tile(clenshaw_curtis(rows), len(GRID.longitude_deg)) * 2 * np.pi / len(GRID.longitude_deg)
    np.testing.assert_allclose((basis.T * weights) @ basis, np.eye(9), atol=1e-12)


def test_the_power_of_a_field_is_its_mean_square():
    coefficients = np.random.default_rng(1).normal(size=36)
    field = synthesis(GRID, 5) @ coefficients
    weights = np.tile(clenshaw_curtis(12), 24) / 48
    assert weights @ field**2 == pytest.approx((coefficients**2).sum() / (4 * np.pi))


@pytest.mark.parametrize(
    ("grid", "limit", "message"),
    [
        (GRID, 12, "expected a degree of at most 11 on 24 × 13 points (15°), got 12"),
        (
            LatLonGrid(GRID.longitude_deg, tuple(np.linspace(-85, 85, 12).tolist())),
            2,
            "spherical harmonics need a regular grid with pole rows, got 24 × 12 points (15°)",
        ),
    ],
)
def test_what_cannot_be_analysed_is_refused(grid, limit, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        analysis(grid, limit)
