"""The tracker, on vortices whose way is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

from ai_models_mosaic.errors import InputError
from ai_models_mosaic.report import track_maps
from ai_models_mosaic.report.ensemble import canonical
from ai_models_mosaic.report.tracks import (
    EARTH_KM,
    Centre,
    Sphere,
    Track,
    counts,
    distance_km,
    obstacle,
    strike_probability,
    track,
)

HOURS = np.arange(0, 49, 6)
START, PER_HOUR = (14.0, 310.0), (0.08, -0.2)
"""Latitude and longitude at first, and degrees per hour."""


def vortices(
    members: int = 2,
    spacing: float = 1.5,
    *,
    warm: float = 3.0,
    spin: float = 1.0,
    start=START,
    hours=HOURS,
    crossing=0.0,
) -> xarray.Dataset:
    """A cyclone that moves steadily, in every member but the last."""
    latitude, longitude = np.arange(-90, 90.1, spacing), np.arange(0, 359.9, spacing)
    shape = (members, len(hours), len(latitude), len(longitude))
    found = {name: np.zeros(shape, dtype=np.float32) for name in ("msl", "u", "v", "t")}
    found["msl"] += 101_300
    found["t"] += 240
    for member in range(members - 1 if members > 1 else 1):
        for place, hour in enumerate(hours):
            north, east = start[0] + PER_HOUR[0] * hour, start[1] + crossing + PER_HOUR[1] * hour
            away = distance_km(north, east, latitude[:, None], longitude[None])
            dx = ((longitude - east + 180) % 360 - 180)[None] * np.cos(np.radians(latitude))[:, None]
            dy = (latitude - north)[:, None]
            speed = spin * 25 * away / 300 * np.exp(0.5 - 0.5 * (away / 300) ** 2)
            around = np.hypot(dx, dy) + 1e-9
            found["msl"][member, place] -= 2500 * np.exp(-((away / 350) ** 2))
            found["t"][member, place] += warm * np.exp(-((away / 350) ** 2))
            found["u"][member, place] -= speed * dy / around
            found["v"][member, place] += speed * dx / around
    stack = {name: found[name][:, :, None] for name in "uvt"}
    axes = ("number", "step", "level", "latitude", "longitude")
    both = {name: (axes, np.repeat(values, 2, axis=2)) for name, values in stack.items()}
    return canonical(
        xarray.Dataset(
            {"msl": (("number", "step", "latitude", "longitude"), found["msl"]), **both},
            {
                "number": np.arange(1, members + 1),
                "step": np.asarray(hours).astype("timedelta64[h]").astype("timedelta64[ns]"),
                "level": ("level", [300, 850], {"units": "hPa"}),
                "latitude": latitude,
                "longitude": longitude,
                "time": np.datetime64("2024-09-01", "ns"),
            },
        )
    )


def tracks_of(dataset):
    *_, (_, found) = track(dataset)
    return found


def test_a_cyclone_is_followed_along_its_way():
    found = tracks_of(vortices())

    assert [each.member for each in found] == [1]
    centres = found[0].centres
    assert [centre.hours for centre in centres] == HOURS.tolist()
    for centre in centres:
        where = START[0] + PER_HOUR[0] * centre.hours, START[1] + PER_HOUR[1] * centre.hours
        # The grid's point nearest to it, at most.
        assert distance_km(*where, np.array(centre.latitude), np.array(centre.longitude)) < 120
        assert 98_800 <= centre.pressure < 99_200
    gone = distance_km(
        centres[0].latitude, centres[0].longitude, np.array(centres[-1].latitude), np.array(centres[-1].longitude)
    )
    assert gone == pytest.approx(distance_km(*START, np.array(START[0] + 3.84), np.array(START[1] - 9.6)), abs=200)


def test_one_is_followed_across_the_edge_of_the_grid():
    assert len(tracks_of(vortices(crossing=55.0))[0].centres) == len(HOURS)


def test_the_other_hemisphere_turns_the_other_way():
    south = (-18.0, 60.0)

    assert len(tracks_of(vortices(start=south, spin=-1.0))) == 1
    assert tracks_of(vortices(start=south, spin=1.0)) == []


def test_lows_with_a_cold_core_or_without_spin_are_none():
    assert tracks_of(vortices(warm=-3.0)) == []
    assert tracks_of(vortices(spin=0.1)) == []


def test_lows_that_begin_outside_the_tropics_or_end_soon_are_none():
    assert tracks_of(vortices(start=(38.0, 310.0))) == []
    assert tracks_of(vortices(hours=np.arange(0, 19, 6))) == []
    assert not counts(Track(1, [Centre(0, 10, 10, 1e5), Centre(18, 10, 10, 1e5)]))


def test_vorticity_is_that_of_solid_rotation():
    sphere = Sphere(vortices(1, hours=HOURS[:1]))
    latitude = np.radians(np.arange(-90, 90.1, 1.5))[:, None]
    rate = 1e-5
    east = rate * 1000 * EARTH_KM * np.cos(latitude) * np.ones((1, 240))

    found = sphere.vorticity(east, np.zeros_like(east))

    np.testing.assert_allclose(found[5:-5], (2 * rate * np.sin(latitude) * np.ones((1, 240)))[5:-5], atol=2e-8)


def test_places_near_the_track_are_struck_by_the_share_of_members_that_have_it():
    dataset = vortices(4)
    chance = strike_probability(tracks_of(dataset), dataset)

    at = {name: dataset[name].values.tolist() for name in ("latitude", "longitude")}
    row, column = at["latitude"].index(15.0), at["longitude"].index(307.5)
    assert chance[row, column] == 75
    assert chance[at["latitude"].index(0.0), column] == 0
    assert sorted({*np.unique(chance).tolist()}) == [0, 75]


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (vortices(1, spacing=3.0, hours=HOURS[:2]), "the grid's points lie 3° apart, and a cyclone needs 1.5° or less"),
        (vortices(1, hours=[0, 24]), "the lead times are 24 h apart, and following a cyclone needs 12 h or less"),
        (vortices(1, hours=[0]), "the lead times are only one, and following a cyclone needs 12 h or less"),
        (vortices(1, hours=[0, 6]).drop_vars("t"), "there is no t at one of 200/250/300/400/500 hPa"),
        (vortices(1, hours=[0, 6]).sel(level=[300]), "there is no u850, no v850"),
    ],
)
def test_what_cannot_be_searched_says_why(dataset, reason):
    assert obstacle(dataset) == reason
    with pytest.raises(InputError, match="no tracks of tropical cyclones: " + reason):
        track_maps.tracks(dataset)


def test_the_drawing_says_how_many_members_have_tracks():
    figure = track_maps.tracks(vortices(3))

    assert figure.axes[0].get_title() == "2 tracks in 2 of 3 members"
    assert figure.get_suptitle() == "Tropical cyclones, from 2024-09-01 00 UTC to Tue 2024-09-03 00 UTC"
