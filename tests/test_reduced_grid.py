"""Reduced Gaussian grids: found from their points, and mapped conservatively."""

import numpy as np
import pytest
from scipy.special import roots_legendre

from ai_models_mosaic.geometry.grid import LatLonGrid, ReducedGrid, grid_of_points, latitude_bounds
from ai_models_mosaic.geometry.regrid import ConservativeRegridder

TARGET = LatLonGrid.regular(6.0)
CLASSIC_N32 = (20, 27, 36, 40, 45, 50, 60, 64, 72, 75, 80, 90, 90, 96, 100, 108, 108, 120, 120, 120, 128, *[128] * 11)


def gaussian_rows(number: int) -> np.ndarray:
    """Latitudes of a Gaussian grid from north to south, degrees."""
    return np.degrees(np.arcsin(roots_legendre(2 * number)[0]))[::-1]


def octahedral_lengths(number: int) -> tuple[int, ...]:
    half = [20 + 4 * row for row in range(number)]
    return (*half, *half[::-1])


def points_of(lengths: tuple[int, ...], start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes from north to south, each row eastwards, as GRIB has them."""
    rows = gaussian_rows(len(lengths) // 2)
    longitude = np.concatenate([(start / n + np.arange(n)) * 360 / n for n in lengths])
    return longitude, np.repeat(rows, lengths)


GRIDS = {"O48": octahedral_lengths(48), "N32": (*CLASSIC_N32, *CLASSIC_N32[::-1])}


@pytest.fixture(params=GRIDS)
def lengths(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return GRIDS[request.param]


def overlap_by_brute_force(lengths: tuple[int, ...], values: np.ndarray, column: int, row: int) -> float:
    """The mean over one target cell, from rectangles one by one; values from north to south."""
    latitudes = gaussian_rows(len(lengths) // 2)
    bounds = [90.0, *((latitudes[1:] + latitudes[:-1]) / 2), -90.0]
    north, south = min(90.0, -90 + 6 * row + 3.0), max(-90.0, -90 + 6 * row - 3.0)
    west, east = 6 * column - 3.0, 6 * column + 3.0
    total = area = 0.0
    first = 0
    for index, length in enumerate(lengths):
        top, bottom = min(north, bounds[index]), max(south, bounds[index + 1])
        if top > bottom:
            height = np.sin(np.radians(top)) - np.sin(np.radians(bottom))
            half = 180 / length
            for point in range(length):
                for turn in (-360, 0, 360):
                    centre = point * 360 / length + turn
                    width = min(east, centre + half) - max(west, centre - half)
                    if width > 0:
                        total += width * height * values[first + point]
                        area += width * height
        first += length
    return total / area


def test_rows_of_different_lengths_make_a_reduced_grid_from_south_to_north(lengths: tuple[int, ...]):
    longitude, latitude = points_of(lengths)
    grid, order = grid_of_points(longitude, latitude)
    assert isinstance(grid, ReducedGrid)
    assert grid.row_lengths == lengths[::-1]
    assert set(grid.row_starts_deg) == {0.0}
    assert (np.diff(latitude[order]) >= -1e-9).all()
    # The first point of the order is the first of the southernmost row.
    assert order[0] == longitude.size - lengths[-1]


def test_the_order_of_the_points_does_not_matter(lengths: tuple[int, ...]):
    longitude, latitude = points_of(lengths)
    shuffled = np.random.default_rng(0).permutation(longitude.size)
    values = longitude + 1000 * latitude
    grid, order = grid_of_points(longitude, latitude)
    other, other_order = grid_of_points(longitude[shuffled], latitude[shuffled])
    assert grid == other
    assert (values[order] == values[shuffled][other_order]).all()


def test_means_agree_with_rectangles_one_by_one(lengths: tuple[int, ...]):
    longitude, latitude = points_of(lengths)
    values = np.random.default_rng(1).normal(size=longitude.size)
    grid, order = grid_of_points(longitude, latitude)
    mapped = ConservativeRegridder(grid, TARGET)(values[order])
    for column, row in [(0, 0), (0, 30), (59, 15), (0, 14), (17, 3), (31, 29), (44, 8), (1, 22)]:
        # Coordinates are rounded to a millionth of a degree.
        assert mapped[column, row] == pytest.approx(overlap_by_brute_force(lengths, values, column, row), abs=2e-6)


def test_the_global_mean_and_constants_are_kept(lengths: tuple[int, ...]):
    longitude, latitude = points_of(lengths)
    grid, order = grid_of_points(longitude, latitude)
    regridder = ConservativeRegridder(grid, TARGET)
    values = 1e5 + 1e3 * np.random.default_rng(2).normal(size=longitude.size)
    bands = np.diff(np.sin(np.radians(latitude_bounds(grid)))) / 2
    rows = np.split(values[order], np.cumsum(grid.row_lengths)[:-1])
    source_mean = sum(band * row.mean() for band, row in zip(bands, rows, strict=True))
    target_mean = (regridder(values[order]) * TARGET.cell_weights()).sum() / TARGET.shape[0]
    assert target_mean == pytest.approx(source_mean, rel=1e-12)
    np.testing.assert_allclose(regridder(np.full(values.size, 3.0)), 3.0, rtol=1e-13)


def test_rows_may_start_half_a_cell_from_greenwich():
    lengths = octahedral_lengths(48)
    values_of = lambda longitude, latitude: np.cos(np.radians(latitude)) ** 2 * np.sin(np.radians(longitude))  # noqa: E731
    mapped = []
    for start in (0.0, 180.0):
        longitude, latitude = points_of(lengths, start / 360)
        grid, order = grid_of_points(longitude, latitude)
        mapped.append(ConservativeRegridder(grid, TARGET)(values_of(longitude, latitude)[order]))
    assert mapped[0] == pytest.approx(mapped[1], abs=2e-3)
    assert mapped[0] != pytest.approx(mapped[1], abs=1e-9)


def test_rows_with_gaps_are_refused():
    longitude, latitude = points_of(octahedral_lengths(48))
    kept = ~((longitude > 100) & (longitude < 140))
    with pytest.raises(
        ValueError, match=r"^expected rows of evenly spaced points all round the globe, got others at -8"
    ):
        grid_of_points(longitude[kept], latitude[kept])


def test_a_hemisphere_is_refused():
    longitude, latitude = points_of(octahedral_lengths(48))
    with pytest.raises(ValueError, match=r"^expected latitudes up to the south pole, got a gap of "):
        grid_of_points(longitude[latitude > 0], latitude[latitude > 0])


def test_a_field_of_another_size_is_refused():
    grid, order = grid_of_points(*points_of(octahedral_lengths(48)))
    with pytest.raises(ValueError, match=rf"^expected a field of shape \({order.size},\), got \(3,\)$"):
        ConservativeRegridder(grid, TARGET)(np.zeros(3))
