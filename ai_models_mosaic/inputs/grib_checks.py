"""What a GRIB message must not say of its grid and of its values before they are decoded.

ecCodes asks for the memory that a message says to need, and takes its lengths in bits as they are.
"""

from __future__ import annotations

import os

import eccodes

from .field_kinds import integer, text

END = "7777"
"""What ecCodes finds last in a message, under this name."""

WIDTHS = {
    "widthOfFirstOrderValues": 32,
    "widthOfWidths": 8,
    "widthOfLengths": 32,
    "widthOfSPD": 32,
    "referenceForGroupWidths": 64,
    "numberOfBitsUsedForTheGroupWidths": 64,
    "numberOfBitsForScaledGroupLengths": 64,
    "numberOfOctetsExtraDescriptors": 8,
    "bitsPerValue": 64,
}
"""Largest widths of numbers, of all packings; the last is counted with the others."""

SECOND_ORDER = "grid_second_order"
"""How the names of packings begin of which GRIB1's fourth section says where its parts are, and how many groups."""

IMAGE_SIZES = 8
"""Bytes into an image of JPEG 2000 where its width, height, and what of them is left out stand, four bytes each."""

MOST_POINTS = 300_000_000
"""Of a field; the finest global grids have a few ten million."""

BYTES_PER_POINT = 64
"""Memory that reading a field takes, with its coordinates."""

GRID_KEYS = (
    *("Ni", "Nj", "numberOfDataPoints", "latitudeOfFirstGridPointInDegrees", "latitudeOfLastGridPointInDegrees"),
    *("longitudeOfFirstGridPointInDegrees", "longitudeOfLastGridPointInDegrees"),
    *("iScansNegatively", "jScansPositively"),
)
"""What a grid section says, for messages."""


def check_values(handle: int) -> None:
    """Refuse values that a decoder would take for something else than they are, and not live to tell.

    Raises
    ------
    ValueError
        With what the message says of them.
    """
    check_points(handle)
    packing = text(handle, "packingType") or "an unknown packing"
    # ecCodes logs that it did not come to the end, gives a handle all the same, and crashes in the values.
    if text(handle, END) != END:
        raise ValueError(f"its values cannot be decoded: what it says of them ({packing}) does not end where it ends")
    groups = _second_order(handle) if packing.startswith(SECOND_ORDER) else {}
    for key, (least, most) in (groups | {key: (0, most) for key, most in WIDTHS.items()}).items():
        found = integer(handle, key)
        if found is not None and not least <= found <= most:
            raise ValueError(f"its values cannot be decoded: {key} of {packing} is {found}, expected {least}-{most}")
    if packing == "grid_jpeg" and integer(handle, "bitsPerValue"):
        _check_image(handle)


def _second_order(handle: int) -> dict[str, tuple[int, int]]:
    """The least and the most that may be of places and counts by which ecCodes goes through the data."""
    length, points = integer(handle, "section4Length") or 0, integer(handle, "numberOfDataPoints") or 0
    places, counts = ("N1", "N2"), ("numberOfGroups", "numberOfSecondOrderPackedValues")
    return dict.fromkeys(places, (0, length)) | dict.fromkeys(counts, (1, points))


def _check_image(handle: int) -> None:
    """Refuse an image of another size than the field, which ecCodes writes into memory for the field's."""
    place = (integer(handle, "offsetSection7") or 0) + 5 + IMAGE_SIZES
    sizes = eccodes.codes_get_message(handle)[place : place + 16]
    width, height, left, above = (int.from_bytes(sizes[each : each + 4], "big") for each in range(0, 16, 4))
    points, coded = (width - left) * (height - above), integer(handle, "numberOfValues")
    if points != coded:
        raise ValueError(f"its values cannot be decoded: an image of {points} points holds {coded} values")


def check_points(handle: int) -> None:
    """Refuse a field that cannot have as many points as it says, before memory is asked for them.

    Raises
    ------
    ValueError
        With what the grid section says.
    """
    points = integer(handle, "numberOfDataPoints") or 0
    columns, rows = integer(handle, "Ni"), integer(handle, "Nj")
    regular = text(handle, "gridType").startswith("regular")
    if regular and columns and rows and columns * rows != points:
        raise ValueError(f"{columns} × {rows} points are not the {points} that it says to have; {grid_section(handle)}")
    coded = integer(handle, "numberOfValues")
    has_bitmap = bool(integer(handle, "bitmapPresent"))
    if coded is not None and (coded > points or (coded != points and not has_bitmap)):
        raise ValueError(f"it has {coded} values for {points} points; {grid_section(handle)}")
    _check_directions(handle)
    if points > min(MOST_POINTS, _memory_bytes() // BYTES_PER_POINT):
        raise ValueError(f"it says to have {points} points, more than can be read; {grid_section(handle)}")


def _check_directions(handle: int) -> None:
    """Refuse rows that would have to run both ways, of which ecCodes makes no coordinates."""
    first, last = (integer(handle, f"latitudeOf{end}GridPoint") for end in ("First", "Last"))
    northwards = integer(handle, "jScansPositively")
    if first is None or last is None or northwards is None or first == last:
        return
    if (last > first) != bool(northwards):
        way = "northwards" if northwards else "southwards"
        raise ValueError(
            f"its rows run {way} by their flag (jScansPositively {northwards}), and the other way by the latitudes of "
            f"the first and the last; {grid_section(handle)}"
        )


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return MOST_POINTS * BYTES_PER_POINT


def grid_section(handle: int) -> str:
    """What a message's grid section says, in words for a message."""
    said = ((key, text(handle, key)) for key in GRID_KEYS)
    return f"its grid section says {text(handle, 'gridType')}: " + ", ".join(f"{key} {value}" for key, value in said)
