"""Conservative regridding against loops over overlapping cells, sampling, and closed forms."""

import numpy as np
import pytest
from grib_files import Layout

from ai_models_mosaic.geometry.grid import LatLonGrid, grid_of_points
from ai_models_mosaic.geometry.regrid import ConservativeRegridder


def grid(longitudes, latitudes):
    return LatLonGrid(tuple(float(x) for x in longitudes), tuple(float(y) for y in latitudes))


RELEASED = LatLonGrid.regular(1.5)
MINI = LatLonGrid.regular(6.0)

GRIDS = {
    "1 to 1.5 degrees, not nested": (LatLonGrid.regular(1), RELEASED),
    "2 to 6 degrees, nested": (LatLonGrid.regular(2), MINI),
    "1.5 to 6 degrees, not nested": (RELEASED, MINI),
    "5 to 6 degrees": (LatLonGrid.regular(5), MINI),
    "6 to 4 degrees, finer": (MINI, LatLonGrid.regular(4)),
    "without pole rows": (grid(np.arange(0, 360, 2.5), np.arange(-88.75, 90, 2.5)), MINI),
    "half a cell east": (grid(np.arange(1.25, 360, 2.5), np.arange(-90, 91, 2.5)), MINI),
    "from -180": (grid_of_points(*Layout(columns=90, rows=46, west=-180).points())[0], MINI),
    "to a grid without pole rows": (LatLonGrid.regular(4), grid(np.arange(3, 360, 6), np.arange(-87, 90, 6))),
    "uneven latitudes": (grid(range(0, 360, 5), [-89, -80, -77, -60, -31, -4, 0, 12, 40, 55, 83]), MINI),
}
every_pair = pytest.mark.parametrize(("source", "target"), GRIDS.values(), ids=GRIDS.keys())


def some_field(of, seed=0):
    return np.random.default_rng(seed).uniform(-20, 60, of.shape)


def edges(latitudes):
    """South and north edge of each row's cells: half-way to the next row, or the pole."""
    pairs = []
    for j, latitude in enumerate(latitudes):
        south = -90.0 if j == 0 else (latitudes[j - 1] + latitude) / 2
        north = 90.0 if j == len(latitudes) - 1 else (latitude + latitudes[j + 1]) / 2
        pairs.append((south, north))
    return pairs


def sides(longitudes):
    """West and east side of each column's cells; the first may be west of Greenwich."""
    pairs = []
    for i, longitude in enumerate(longitudes):
        before = longitudes[i - 1] - (360 if i == 0 else 0)
        after = longitudes[(i + 1) % len(longitudes)] + (360 if i == len(longitudes) - 1 else 0)
        pairs.append(((before + longitude) / 2, (longitude + after) / 2))
    return pairs


def cell_area(side, edge):
    """Of a rectangle between meridians and parallels, on the unit sphere."""
    return np.radians(side[1] - side[0]) * (np.sin(np.radians(edge[1])) - np.sin(np.radians(edge[0])))


def mean_over(cell, field, source):
    """Mean over one target cell by going through all source cells that it overlaps."""
    side, edge = cell
    total = area = 0.0
    rows = [(j, max(s, edge[0]), min(n, edge[1])) for j, (s, n) in enumerate(edges(source.latitude_deg))]
    rows = [(j, south, north) for j, south, north in rows if north > south]
    for i, (w, e) in enumerate(sides(source.longitude_deg)):
        for turn in (-360, 0, 360):
            west, east = max(w + turn, side[0]), min(e + turn, side[1])
            if east <= west:
                continue
            for j, south, north in rows:
                overlap = cell_area((west, east), (south, north))
                total += overlap * field[i, j]
                area += overlap
    assert area == pytest.approx(cell_area(side, edge), rel=1e-9)
    return total / area


def area_mean(field, of):
    """Mean over the sphere; columns are equally wide."""
    weights = [np.sin(np.radians(n)) - np.sin(np.radians(s)) for s, n in edges(of.latitude_deg)]
    return float((field.mean(axis=0) * weights).sum() / 2)


def nearest_row(latitudes, wanted):
    return np.abs(np.asarray(latitudes)[None] - wanted[:, None]).argmin(axis=1)


def nearest_column(longitudes, wanted):
    distance = np.abs((np.asarray(longitudes)[None] - wanted[:, None] + 180) % 360 - 180)
    return distance.argmin(axis=1)


@every_pair
def test_every_target_cell_is_the_mean_of_the_source_cells_that_it_overlaps(source, target):
    field = some_field(source)
    found = ConservativeRegridder(source, target)(field)
    assert found.shape == target.shape
    all_sides, all_edges = sides(target.longitude_deg), edges(target.latitude_deg)
    last_row, last_column = len(all_edges) - 1, len(all_sides) - 1
    for i, j in [(0, 0), (0, last_row), (last_column, 1), (last_column, last_row), (0, 3), (7, 0), (11, 9), (29, 15)]:
        expected = mean_over((all_sides[i], all_edges[j]), field, source)
        assert found[i, j] == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_the_whole_globe_from_the_released_grid_to_6_degrees_agrees_with_the_loops():
    field = some_field(RELEASED, seed=1)
    found = ConservativeRegridder(RELEASED, MINI)(field)
    # Means do not depend on the order of integration: rows first, by plain loops, then columns.
    rows = np.zeros((240, 31))
    for j, (south, north) in enumerate(edges(MINI.latitude_deg)):
        for k, (s, n) in enumerate(edges(RELEASED.latitude_deg)):
            if min(n, north) > max(s, south):
                share = cell_area((0, 1), (max(s, south), min(n, north))) / cell_area((0, 1), (south, north))
                rows[:, j] += share * field[:, k]
    # A 6° cell spans ±3° about its centre: three whole 1.5° columns and half of the two at its sides.
    expected = np.zeros((60, 31))
    for i in range(60):
        for offset, weight in ((-2, 0.5), (-1, 1), (0, 1), (1, 1), (2, 0.5)):
            expected[i] += rows[(4 * i + offset) % 240] * weight / 4
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_a_quarter_degree_field_on_the_released_grid_agrees_with_the_loops():
    source = LatLonGrid.regular(0.25)
    field = some_field(source, seed=2)
    found = ConservativeRegridder(source, RELEASED)(field)
    all_sides, all_edges = sides(RELEASED.longitude_deg), edges(RELEASED.latitude_deg)
    for i, j in [(0, 0), (0, 60), (239, 120), (120, 1), (17, 119), (239, 33), (200, 75)]:
        assert found[i, j] == pytest.approx(
            mean_over((all_sides[i], all_edges[j]), field, source), rel=1e-10, abs=1e-10
        )
    # An inner cell spans ±0.75°: five whole columns and half of the two at its sides, weights 1/12 and 1/6.
    longitude_weights = np.array([0.5, 1, 1, 1, 1, 1, 0.5]) / 6
    centre = 4 * 90 + 6 * 10
    bounds = np.sin(np.radians([14.25, *np.arange(14.375, 15.7, 0.25), 15.75]))
    latitude_weights = np.diff(bounds) / (bounds[-1] - bounds[0])
    block = field[6 * 40 - 3 : 6 * 40 + 4, centre - 3 : centre + 4]
    assert found[40, 70] == pytest.approx(longitude_weights @ block @ latitude_weights, rel=1e-12)


@every_pair
def test_it_agrees_with_sampling_the_field_of_constant_cells_finely(source, target):
    """No cell bounds at all here: a sample takes the value of the nearest row and column."""
    field = some_field(source, seed=3)
    found = ConservativeRegridder(source, target)(field)
    samples = 700
    middle = (np.arange(samples) + 0.5) / samples
    all_sides, all_edges = sides(target.longitude_deg), edges(target.latitude_deg)
    for i, j in [(0, 0), (len(all_sides) - 1, 14), (5, len(all_edges) - 1), (31, 20)]:
        low, high = (np.sin(np.radians(edge)) for edge in all_edges[j])
        latitude = np.degrees(np.arcsin(low + middle * (high - low)))
        longitude = all_sides[i][0] + middle * (all_sides[i][1] - all_sides[i][0])
        columns = nearest_column(source.longitude_deg, longitude)
        rows = nearest_row(source.latitude_deg, latitude)
        assert found[i, j] == pytest.approx(field[np.ix_(columns, rows)].mean(), abs=80 * 2 / samples)


@every_pair
def test_a_constant_stays_constant(source, target):
    found = ConservativeRegridder(source, target)(np.full(source.shape, 101_325.0))
    np.testing.assert_allclose(found, 101_325.0, rtol=1e-13)


@every_pair
def test_the_mean_over_the_globe_is_kept(source, target):
    field = some_field(source, seed=4)
    found = ConservativeRegridder(source, target)(field)
    assert area_mean(found, target) == pytest.approx(area_mean(field, source), rel=1e-12)


@every_pair
def test_no_value_leaves_the_range_of_the_cells_it_comes_from(source, target):
    spike = np.zeros(source.shape)
    spike[0, source.shape[1] // 2] = 1.0
    found = ConservativeRegridder(source, target)(spike)
    assert found.min() == 0
    assert 0 < found.max() <= 1 + 1e-12
    field = some_field(source, seed=5)
    found = ConservativeRegridder(source, target)(field)
    assert field.min() - 1e-12 <= found.min()
    assert found.max() <= field.max() + 1e-12


@pytest.mark.parametrize(("fine", "coarse"), [(2.0, 6.0), (0.5, 1.5), (4.0, 12.0)])
def test_means_of_the_sine_of_latitude_over_nested_cells_are_exact(fine, coarse):
    """A mean of sin φ over a cell is that of the sines of its edges, so means of means have a closed form."""

    def cell_means(of):
        return np.array([(np.sin(np.radians(s)) + np.sin(np.radians(n))) / 2 for s, n in edges(of.latitude_deg)])

    source, target = LatLonGrid.regular(fine), LatLonGrid.regular(coarse)
    field = np.tile(cell_means(source), (source.shape[0], 1))
    expected = np.tile(cell_means(target), (target.shape[0], 1))
    np.testing.assert_allclose(ConservativeRegridder(source, target)(field), expected, rtol=0, atol=1e-13)


def test_a_wave_in_longitude_is_damped_by_its_sinc():
    """Over cells of a whole number of points the mean of a wave is the wave times a ratio of sines."""
    source, target, wave = (
        grid(np.arange(0.5, 360, 1), range(-90, 91, 5)),
        grid(np.arange(2.5, 360, 5), range(-90, 91, 5)),
        3,
    )
    phase = np.radians(source.longitude_deg) * wave
    field = np.tile(np.cos(phase)[:, None], (1, 37))
    damping = np.sin(np.radians(5 * wave / 2)) / (5 * np.sin(np.radians(wave / 2)))
    expected = np.tile(damping * np.cos(wave * np.radians(target.longitude_deg))[:, None], (1, 37))
    np.testing.assert_allclose(ConservativeRegridder(source, target)(field), expected, rtol=0, atol=1e-13)


def test_turning_the_source_turns_the_result():
    regridder = ConservativeRegridder(RELEASED, MINI)
    field = some_field(RELEASED, seed=6)
    np.testing.assert_allclose(regridder(np.roll(field, 4, axis=0)), np.roll(regridder(field), 1, axis=0), atol=1e-12)
    np.testing.assert_allclose(regridder(field[:, ::-1]), regridder(field)[:, ::-1], atol=1e-12)


def test_a_field_on_the_same_points_is_passed_through_untouched():
    field = some_field(MINI).astype(np.float32)
    regridder = ConservativeRegridder(LatLonGrid.regular(6.0), MINI)
    assert regridder.is_identity
    assert regridder(field) is field


def test_points_that_differ_by_the_rounding_of_grib1_are_the_same_points():
    rounded = grid([round(x + 0.0004, 4) for x in MINI.longitude_deg], MINI.latitude_deg)
    field = some_field(MINI)
    assert ConservativeRegridder(rounded, MINI)(field) is field


def test_the_field_itself_is_left_as_it_was():
    field = some_field(RELEASED).astype(np.float32)
    before = field.copy()
    ConservativeRegridder(RELEASED, MINI)(field)
    np.testing.assert_array_equal(field, before)


def test_means_of_single_precision_fields_are_taken_in_double_precision():
    field = (101_325 + some_field(LatLonGrid.regular(0.5))).astype(np.float32)
    regridder = ConservativeRegridder(LatLonGrid.regular(0.5), MINI)
    np.testing.assert_array_equal(regridder(field), regridder(field.astype(np.float64)))
    assert regridder(field).dtype == np.float64


def test_two_fields_after_one_another_do_not_influence_each_other():
    regridder = ConservativeRegridder(RELEASED, MINI)
    first, second = some_field(RELEASED, seed=7), some_field(RELEASED, seed=8)
    alone = regridder(first).copy()
    regridder(second)
    np.testing.assert_array_equal(regridder(first), alone)


@pytest.mark.parametrize("target", [MINI, RELEASED], ids=["another grid", "the same grid"])
def test_a_field_of_another_shape_is_refused(target):
    regridder = ConservativeRegridder(RELEASED, target)
    with pytest.raises(ValueError, match=r"^expected a field of shape \(240, 121\), got \(121, 240\)$"):
        regridder(np.zeros((121, 240)))
