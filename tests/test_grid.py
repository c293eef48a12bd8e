"""Orders of points, cells, HEALPix centres and neighbours, against closed forms and plain loops."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from grib_files import COARSE, Layout, plausible

from ai_models_mosaic.geometry.grid import (
    SAME_POINT_DEG,
    LatLonGrid,
    grid_of_points,
    healpix_centres,
    latitude_bounds,
    longitude_bounds,
    nearest_neighbours,
    to_grib_order,
    unit_vectors,
)

RELEASED = Path(__file__).parent / "data" / "era5_tiny.npz"


def grid(longitudes, latitudes):
    return LatLonGrid(tuple(float(x) for x in longitudes), tuple(float(x) for x in latitudes))


def great_circle(first, second):
    """Angles between all pairs of points, radians, from float64 chords."""
    vectors = []
    for longitude, latitude in (first, second):
        east, north = (np.radians(np.asarray(angle, dtype=np.float64)) for angle in (longitude, latitude))
        vectors.append(np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1))
    chord = np.linalg.norm(vectors[0][:, None] - vectors[1][None], axis=-1)
    return 2 * np.arcsin(np.clip(chord / 2, 0, 1))


# Grids


def test_the_grid_of_the_released_model_has_29040_points_with_both_poles():
    released = LatLonGrid.regular(1.5)
    assert released.shape == (240, 121)
    assert released.size == 29_040
    assert released.spacing_deg == 1.5
    assert released.longitude_deg[:2] == (0.0, 1.5)
    assert released.longitude_deg[-1] == 358.5
    assert (released.latitude_deg[0], released.latitude_deg[60], released.latitude_deg[-1]) == (-90.0, 0.0, 90.0)
    assert str(released) == "240 × 121 points (1.5°)"


@pytest.mark.parametrize("spacing", [7.0, 0.7, -30.0, 200.0, 180.0])
def test_a_spacing_that_does_not_divide_the_meridian_is_refused(spacing):
    with pytest.raises(ValueError, match=f"^a grid spacing of {re.escape(f'{spacing:g}')}° does not divide 180°$"):
        LatLonGrid.regular(spacing)


LONGITUDES = list(range(0, 360, 30))
LATITUDES = list(range(-90, 91, 30))


@pytest.mark.parametrize(
    ("longitudes", "latitudes", "sentence"),
    [
        ([0, 120, 240], LATITUDES, "expected a global grid, got 3 longitudes × 7 latitudes"),
        (LONGITUDES, [-45, 45], "expected a global grid, got 12 longitudes × 2 latitudes"),
        (LONGITUDES[::-1], LATITUDES, "longitudes must ascend within [0, 360)"),
        ([*LONGITUDES, 360], LATITUDES, "longitudes must ascend within [0, 360)"),
        ([-30, *LONGITUDES[:-1]], LATITUDES, "longitudes must ascend within [0, 360)"),
        ([0, 0, *LONGITUDES[1:]], LATITUDES, "longitudes must ascend within [0, 360)"),
        (LONGITUDES, LATITUDES[::-1], "latitudes must ascend within [-90, 90]"),
        (LONGITUDES, [-90, -45, 0, 45, 91], "latitudes must ascend within [-90, 90]"),
        (LONGITUDES, [-91, -45, 0, 45, 90], "latitudes must ascend within [-90, 90]"),
        # A region; a region across Greenwich; one column missing.
        (range(30, 181, 30), LATITUDES, "expected longitudes all round the globe, got a gap of 210° east of 180°"),
        ([0, 30, 60, 300, 330], LATITUDES, "expected longitudes all round the globe, got a gap of 240° east of 60°"),
        (
            [x for x in LONGITUDES if x != 150],
            LATITUDES,
            "expected longitudes all round the globe, got a gap of 60° east of 120°",
        ),
        (LONGITUDES, range(0, 91, 15), "expected latitudes up to the south pole, got a gap of 90°"),
        (LONGITUDES, range(-90, 61, 15), "expected latitudes up to the north pole, got a gap of 30°"),
    ],
)
def test_a_grid_that_is_not_global_or_out_of_order_is_refused(longitudes, latitudes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        grid(longitudes, latitudes)


def test_a_grid_may_end_up_to_one_step_from_the_poles():
    assert grid(LONGITUDES, [-75, -45, -15, 15, 45, 75]).shape == (12, 6)
    assert grid(LONGITUDES, range(-60, 61, 30)).shape == (12, 5)


def test_grids_have_the_same_points_up_to_the_rounding_of_grib1():
    coarse = LatLonGrid.regular(30)
    rounded = grid([x + 0.0004 for x in LONGITUDES], [min(y + 0.0004, 90) for y in LATITUDES])
    assert coarse.same_points(rounded)
    assert rounded.same_points(coarse)
    assert SAME_POINT_DEG == 0.002


@pytest.mark.parametrize(
    "other",
    [
        grid([x + 0.01 for x in LONGITUDES], LATITUDES),
        grid(LONGITUDES, [-89.99, *LATITUDES[1:]]),
        grid(LONGITUDES, [-75, -45, -15, 15, 45, 75]),
        LatLonGrid.regular(15),
    ],
    ids=["shifted in longitude", "shifted in latitude", "without pole rows", "finer"],
)
def test_grids_further_apart_than_that_are_different(other):
    assert not LatLonGrid.regular(30).same_points(other)
    assert not other.same_points(LatLonGrid.regular(30))


def test_tokens_run_with_longitude_outermost_from_south_to_north():
    longitude, latitude = LatLonGrid.regular(1.5).points()
    expected = [(i * 1.5, j * 1.5 - 90) for i in range(240) for j in range(121)]
    np.testing.assert_array_equal(np.stack([longitude, latitude], axis=1), expected)


# Orders of points

ORDERS = {
    "from north to south": Layout(),
    "from south to north": Layout(from_south=True),
    "from east to west": Layout(from_east=True),
    "from the date line": Layout(west=-180),
    "from the date line, positive": Layout(west=180),
    "by columns": Layout(by_columns=True),
    "by columns from the south-east": Layout(by_columns=True, from_south=True, from_east=True),
    "boustrophedon": Layout(snaking=True),
    "boustrophedon by columns": Layout(snaking=True, by_columns=True),
    "with Greenwich twice": Layout(columns=13, east=360),
    "with the date line twice": Layout(columns=13, west=-180, east=180),
    "with Greenwich twice, by columns": Layout(columns=13, east=360, by_columns=True, from_south=True),
}


@pytest.mark.parametrize("layout", ORDERS.values(), ids=ORDERS.keys())
def test_any_order_of_points_gives_the_same_field_on_the_same_grid(layout):
    longitude, latitude = layout.points()
    found, order = grid_of_points(longitude, latitude)
    assert found == LatLonGrid.regular(30)
    expected = np.empty((12, 7))
    for i, j in itertools.product(range(12), range(7)):
        expected[i, j] = plausible("t", 500)(np.array(30.0 * i), np.array(30.0 * j - 90))
    np.testing.assert_allclose(plausible("t", 500)(longitude, latitude)[order], expected, rtol=0, atol=1e-9)


def test_points_in_no_order_at_all_are_sorted_out():
    longitude, latitude = COARSE.points()
    shuffled = np.random.default_rng(1).permutation(longitude.size)
    found, order = grid_of_points(longitude[shuffled], latitude[shuffled])
    assert found == LatLonGrid.regular(30)
    expected_longitude, expected_latitude = found.points()
    np.testing.assert_array_equal(longitude[shuffled][order].ravel(), expected_longitude)
    np.testing.assert_array_equal(latitude[shuffled][order].ravel(), expected_latitude)


def test_a_grid_without_pole_rows_and_off_greenwich_keeps_its_points():
    found, order = grid_of_points(*Layout(west=-165, north=75, south=-75, rows=6).points())
    assert found.longitude_deg == tuple(range(15, 360, 30))
    assert found.latitude_deg == (-75, -45, -15, 15, 45, 75)
    assert order.shape == (12, 6)


def test_coordinates_that_differ_by_rounding_are_one_column():
    longitude, latitude = COARSE.points()
    noise = np.random.default_rng(2).uniform(-2e-8, 2e-8, (2, longitude.size))
    found, _ = grid_of_points(longitude + noise[0], np.clip(latitude + noise[1], -90, 90))
    assert found == LatLonGrid.regular(30)


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (
            Layout(columns=7, rows=4, west=-30, east=60, north=75, south=30),
            "expected longitudes all round the globe, got a gap of 270° east of 60°",
        ),
        (
            Layout(columns=12, rows=4, north=90, south=0),
            "expected latitudes up to the south pole, got a gap of 90°",
        ),
    ],
)
def test_the_points_of_a_region_are_refused(layout, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        grid_of_points(*layout.points())


def test_points_that_are_no_product_of_longitudes_and_latitudes_are_refused():
    longitude, latitude = COARSE.points()
    with pytest.raises(
        ValueError, match=r"^expected rows of evenly spaced points all round the globe, got others at -?90°$"
    ):
        grid_of_points(longitude[:-1], latitude[:-1])


def test_values_leave_from_north_to_south_and_each_row_from_west_to_east():
    field = np.array([[10 * i + j for j in range(3)] for i in range(4)])  # (lon, lat)
    assert to_grib_order(field).tolist() == [2, 12, 22, 32, 1, 11, 21, 31, 0, 10, 20, 30]


def test_what_is_written_reads_back_as_the_same_field():
    found, order = grid_of_points(*COARSE.points())
    fields = np.random.default_rng(3).normal(size=(2, 5, *found.shape))
    written = to_grib_order(fields)
    assert written.shape == (2, 5, 84)
    assert written.flags.c_contiguous
    np.testing.assert_array_equal(written[..., order], fields)


# Cells


def test_cells_end_half_way_between_points_and_at_the_poles():
    np.testing.assert_allclose(latitude_bounds(LatLonGrid.regular(30)), [-90, -75, -45, -15, 15, 45, 75, 90])
    np.testing.assert_allclose(longitude_bounds(np.array(LatLonGrid.regular(30).longitude_deg)), range(-15, 346, 30))
    uneven = grid([10, 90, 200, 280], [-80, -20, 50])
    np.testing.assert_allclose(latitude_bounds(uneven), [-90, -50, 15, 90])
    np.testing.assert_allclose(longitude_bounds(np.array(uneven.longitude_deg)), [-35, 50, 145, 240, 325])


@pytest.mark.parametrize("spacing", [0.25, 1.5, 6.0, 30.0])
def test_cell_weights_with_pole_rows_have_their_closed_form(spacing):
    weights = LatLonGrid.regular(spacing).cell_weights()
    half = np.radians(spacing / 2)
    latitude = np.radians(np.arange(-90 + spacing, 90 - spacing / 2, spacing))
    assert weights.sum() == pytest.approx(1, abs=1e-13)
    # sin(φ + h) − sin(φ − h) = 2 cos φ sin h; a polar cap has half a cell.
    np.testing.assert_allclose(weights[1:-1], np.cos(latitude) * np.sin(half), rtol=1e-10)
    np.testing.assert_allclose(weights[[0, -1]], (1 - np.cos(half)) / 2, rtol=1e-8)


def test_cell_weights_without_pole_rows_have_their_closed_form():
    weights = grid(LONGITUDES, [-75, -45, -15, 15, 45, 75]).cell_weights()
    half = np.sqrt(3) / 2
    np.testing.assert_allclose(
        weights, np.array([1 - half, half - 0.5, 0.5, 0.5, half - 0.5, 1 - half]) / 2, rtol=1e-12
    )


# The HEALPix mesh


def test_unit_vectors_point_along_the_axes_in_single_precision():
    vectors = unit_vectors(np.array([0, 90, 180, 270, 33.0]), np.array([0, 0, 0, 0, 90.0]))
    expected = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1]]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-7)


def test_the_twelve_base_pixels_are_where_they_are_published():
    longitude, latitude = healpix_centres(1)
    ring = np.degrees(np.arcsin(2 / 3))
    np.testing.assert_allclose(longitude, [45, 135, 225, 315, 0, 90, 180, 270, 45, 135, 225, 315], atol=1e-5)
    np.testing.assert_allclose(latitude, [ring] * 4 + [0] * 4 + [-ring] * 4, atol=1e-5)
    assert longitude.dtype == latitude.dtype == np.float32


def test_centres_are_those_of_the_published_ring_formulas():
    nside, expected = 4, []
    for ring in range(1, 4 * nside):
        cap = min(ring, 4 * nside - ring)
        if cap < nside:
            z = (1 - cap**2 / (3 * nside**2)) * (1 if ring < 2 * nside else -1)
            expected += [((j + 0.5) * 90 / cap, z) for j in range(4 * cap)]
        else:
            shift = 0.5 if (ring - nside) % 2 == 0 else 0.0
            expected += [((j + shift) * 90 / nside, 4 / 3 - 2 * ring / (3 * nside)) for j in range(4 * nside)]
    longitude, latitude = healpix_centres(nside)
    found = sorted(
        zip(np.round(np.sin(np.radians(latitude, dtype=np.float64)), 5), np.round(longitude, 3), strict=True)
    )
    np.testing.assert_allclose(found, sorted((round(z, 5), round(lon, 3)) for lon, z in expected), atol=2e-3)
    assert len(set(found)) == 12 * nside**2


@pytest.mark.parametrize("nside", [2, 8])
def test_the_four_children_of_a_pixel_are_neighbours_in_memory(nside):
    parents = unit_vectors(*healpix_centres(nside)).astype(np.float64)
    children = unit_vectors(*healpix_centres(2 * nside)).astype(np.float64).reshape(-1, 4, 3)
    middle = children.mean(axis=1)
    middle /= np.linalg.norm(middle, axis=-1, keepdims=True)
    size = np.sqrt(4 * np.pi / (12 * nside**2))
    assert np.linalg.norm(middle - parents, axis=-1).max() < 0.15 * size
    assert np.linalg.norm(children - parents[:, None], axis=-1).max() < 0.6 * size


def test_centres_are_symmetric_about_the_equator_and_under_quarter_turns():
    longitude, latitude = (np.round(angle.astype(np.float64), 3) for angle in healpix_centres(8))
    points = set(zip(longitude % 360, latitude, strict=True))
    assert points == set(zip(longitude % 360, -latitude + 0.0, strict=True))
    assert points == {(round((lon + 90) % 360, 3), lat) for lon, lat in points}


# Neighbours


def test_neighbours_are_those_of_a_search_through_all_points_where_there_are_no_ties():
    random = np.random.default_rng(4)

    def scattered(count):
        latitude = np.degrees(np.arcsin(random.uniform(-1, 1, count)))
        return random.uniform(0, 360, count).astype(np.float32), latitude.astype(np.float32)

    target, source, count = scattered(200), scattered(500), 7
    angles = great_circle(target, source)
    ranked = np.sort(angles, axis=1)
    clear = ranked[:, count] - ranked[:, count - 1] > 1e-4
    assert clear.sum() > 190
    found = nearest_neighbours(target, source, count)
    assert found.dtype == np.int64
    assert found.shape == (200, 7)
    expected = np.argsort(angles, axis=1)[:, :count]
    for mine, theirs in zip(found[clear], expected[clear], strict=True):
        assert set(mine) == set(theirs)


def test_neighbours_reach_across_greenwich_and_over_the_pole():
    source = (np.array([1.0, 5, 180, 20]), np.array([0.0, 0, 88, 80]))
    assert nearest_neighbours((np.array([359.0]), np.array([0.0])), source, 2).tolist() == [[0, 1]]
    assert nearest_neighbours((np.array([0.0]), np.array([89.0])), source, 1).tolist() == [[2]]


@pytest.mark.parametrize("direction", ["interp_to_hp", "interp_to_ll"])
def test_neighbours_are_those_that_the_released_model_was_trained_with(direction):
    released = np.load(RELEASED)
    points = LatLonGrid(tuple(released["longitude"].tolist()), tuple(released["latitude"].tolist())).points()
    centres = healpix_centres(8)
    target, source = (centres, points) if direction == "interp_to_hp" else (points, centres)
    stored = released[f"buffer/model.{direction}.neighbors"]
    found = nearest_neighbours(target, source, stored.shape[1])
    # As sets: the order within a neighbourhood has no effect.
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(stored, axis=1))
