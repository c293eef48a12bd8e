"""Make the coastline that reports are drawn with: Natural Earth 1:110m, public domain, from a wheel of GeoPandas.

The last wheels that carry it are those before GeoPandas 1.0:

    pip download --no-deps geopandas==0.14.4
    python recipes/coastlines.py geopandas-0.14.4-py3-none-any.whl ai_models_mosaic/report/data/coastlines.npz

They carry countries. An edge that two countries share is a border, and one that is of one country only a coast.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

SHAPES = "geopandas/datasets/naturalearth_lowres/naturalearth_lowres.shp"

HUNDREDTHS = 100
"""Coordinates are kept as whole hundredths of a degree, a kilometre at most."""

POLYGON = 5
HEADER_BYTES = 100

Point = tuple[int, int]


def rings_of(content: bytes) -> list[list[Point]]:
    """The rings of all polygons of a shapefile, in hundredths of a degree."""
    rings, place = [], HEADER_BYTES
    while place < len(content):
        words = struct.unpack_from(">i", content, place + 4)[0]
        start = place + 8
        if struct.unpack_from("<i", content, start)[0] == POLYGON:
            parts, points = struct.unpack_from("<2i", content, start + 36)
            first = struct.unpack_from(f"<{parts}i", content, start + 44)
            values = np.frombuffer(content, "<f8", 2 * points, start + 44 + 4 * parts).reshape(-1, 2)
            whole = [(int(x), int(y)) for x, y in np.rint(values * HUNDREDTHS)]
            rings += [whole[begin:end] for begin, end in zip(first, [*first[1:], points], strict=True)]
        place = start + 2 * words
    return rings


def coasts_of(rings: list[list[Point]]) -> list[list[Point]]:
    """Chains of the edges that are of one ring only."""
    edges = [(one, other) for ring in rings for one, other in pairwise(ring) if one != other]
    count = Counter(frozenset(edge) for edge in edges)
    following = defaultdict(list)
    for one, other in edges:
        if count[frozenset((one, other))] == 1:
            following[one].append(other)
    chains = []
    while following:
        chain = [next(iter(following))]
        while chain[-1] in following:
            after = following[chain[-1]]
            chain.append(after.pop())
            if not after:
                del following[chain[-2]]
            if chain[-1] == chain[0]:
                break
        chains.append(chain)
    return joined(chains)


def joined(chains: list[list[Point]]) -> list[list[Point]]:
    """Chains put together where one begins at the end of another."""
    closed = [chain for chain in chains if chain[0] == chain[-1]]
    rest = [chain for chain in chains if chain[0] != chain[-1]]
    while rest:
        chain = rest.pop()
        while chain[0] != chain[-1]:
            after = next((other for other in rest if other[0] == chain[-1]), None)
            if after is None:
                break
            rest.remove(after)
            chain = chain + after[1:]
        closed.append(chain)
    return closed


def main(wheel: str, target: str) -> None:
    """Read the wheel, write the lines."""
    with zipfile.ZipFile(wheel) as archive:
        chains = coasts_of(rings_of(archive.read(SHAPES)))
    points = np.array([point for chain in chains for point in chain], dtype=np.int16)
    ends = np.cumsum([len(chain) for chain in chains]).astype(np.int32)
    np.savez_compressed(target, hundredths_of_a_degree=points, ends=ends)
    sys.stdout.write(f"{len(chains)} lines, {len(points)} points, {Path(target).stat().st_size} bytes\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
