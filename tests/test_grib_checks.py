"""Messages of which ecCodes makes a crash of the whole process: each is damaged as a transfer may damage it."""

import eccodes
import grib_files
import numpy as np
import pytest

from ai_models_mosaic.inputs.grib_messages import Damage, FileMessage
from ai_models_mosaic.inputs.grib_sections import sections_of


def section(message, number):
    """Where a section begins."""
    found = sections_of(lambda start, length: message[start : start + length], len(message))
    return next(each.start for each in found if each.number == number)


def damaged(message, number, place, *content):
    """With other bytes at a place in a section, counted from 1 as in its definition."""
    start = section(message, number) + place - 1
    return message[:start] + bytes(content) + message[start + len(content) :]


def only(tmp_path, message):
    [found] = grib_files.fields_of(tmp_path / "in.grib", [message])
    return found


COMPLEX = "grid_complex_spatial_differencing"
VALUES = [
    (
        {"param": "w", "level": 700, "edition": 1},
        (4, 4, 127),
        "what it says of them (grid_second_order_general_grib1) does not end where it ends",
    ),
    ({}, (5, 20, 65), "bitsPerValue of grid_simple is 65, expected 0-64"),
    ({"packing": COMPLEX}, (5, 36, 128), "referenceForGroupWidths of " + COMPLEX + " is 128, expected 0-64"),
    ({"packing": COMPLEX}, (5, 37, 128), "numberOfBitsUsedForTheGroupWidths of " + COMPLEX + " is 128, expected 0-64"),
    ({"packing": COMPLEX}, (5, 47, 127), "numberOfBitsForScaledGroupLengths of " + COMPLEX + " is 127, expected 0-64"),
    ({"packing": COMPLEX}, (5, 49, 255), "numberOfOctetsExtraDescriptors of " + COMPLEX + " is 255, expected 0-8"),
    ({"packing": "grid_jpeg"}, (7, 17, 127), "an image of 889 points holds 84 values"),
]


def second_order(packing):
    """Of GRIB1, which packs so only what is long enough."""
    handle = eccodes.codes_new_from_message(grib_files.message("t", 500, edition=1, layout=grib_files.MINI))
    try:
        eccodes.codes_set(handle, "packingType", packing)
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)


GROUPS = {
    (12, 255): "N1 of grid_second_order is 65456, expected 0-4315",
    (15, 255): "N2 of grid_second_order is 65440, expected 0-4315",
    (17, 0, 0): "numberOfGroups of grid_second_order is 0, expected 1-1860",
    (19, 255): "numberOfSecondOrderPackedValues of grid_second_order is 65346, expected 1-1860",
    (22, 64): "widthOfWidths of grid_second_order is 64, expected 0-8",
    (23, 64): "widthOfLengths of grid_second_order is 64, expected 0-32",
}


@pytest.mark.parametrize("damage", GROUPS)
def test_groups_that_would_crash_the_decoder_are_refused(tmp_path, damage):
    found = only(tmp_path, damaged(second_order("grid_second_order"), 4, *damage))
    with pytest.raises(ValueError) as error:  # noqa: PT011 - literally below
        found.to_numpy()
    assert str(error.value) == f"its values cannot be decoded: {GROUPS[damage]}"


@pytest.mark.parametrize("packing", ["grid_second_order", "grid_second_order_no_SPD", "grid_second_order_SPD1"])
def test_groups_of_the_first_edition_are_read(tmp_path, packing):
    values = only(tmp_path, grib_files.message("t", 500, edition=1, layout=grib_files.MINI)).to_numpy()
    np.testing.assert_allclose(only(tmp_path, second_order(packing)).to_numpy(), values, atol=0.01)


@pytest.mark.parametrize(("how", "damage", "said"), VALUES, ids=[said[:20] for *_, said in VALUES])
def test_values_that_would_crash_the_decoder_are_refused(tmp_path, how, damage, said):
    found = only(tmp_path, damaged(grib_files.message(**{"param": "t", "level": 500, **how}), *damage))
    with pytest.raises(ValueError) as error:  # noqa: PT011 - literally below
        found.to_numpy()
    assert str(error.value) == f"its values cannot be decoded: {said}"


@pytest.mark.parametrize("missing", [(), (3, 5)])
@pytest.mark.parametrize("packing", ["grid_simple", "grid_second_order", "grid_ccsds", "grid_jpeg", "grid_ieee"])
def test_values_of_every_packing_are_read(tmp_path, packing, missing):
    values = np.linspace(200, 300, 84)
    found = only(tmp_path, grib_files.message("t", 500, values=values, packing=packing, missing=missing)).to_numpy()
    assert np.flatnonzero(np.isnan(found)).tolist() == list(missing)
    np.testing.assert_allclose(np.delete(found, missing), np.delete(values, missing), atol=0.01)


LENGTHS = [
    ({}, (5, 1, 0, 0, 0, 26), "after its section 5 comes one that says to be 1"),
    ({}, (6, 1, 0, 0, 0, 0), "its section 6 says to have 0 bytes"),
    ({}, (6, 5, 8), "after its section 5 comes one that says to be 8"),
    ({}, (7, 1, 0, 236, 0, 0), "its section 7 says to have 15466496 bytes"),
    ({"edition": 1}, (1, 1, 255), "its section 1 says to have 16711708 bytes"),
    ({"edition": 1}, (1, 8, 0), "its sections end 264 bytes before it does"),
    ({"edition": 1}, (4, 1, 0, 0, 32), "its sections end 232 bytes before it does"),
]


@pytest.mark.parametrize(("how", "damage", "said"), LENGTHS, ids=[said for *_, said in LENGTHS])
def test_a_message_whose_sections_do_not_lead_to_its_end_is_damaged_and_the_next_one_is_read(
    tmp_path, how, damage, said
):
    good = grib_files.message("t", 500, **how)
    found = list(grib_files.fields_of(tmp_path / "in.grib", [damaged(good, *damage), good]))
    assert found == [Damage(f"the message at byte 0: {said}"), FileMessage(tmp_path / "in.grib", len(good), len(good))]


@pytest.mark.parametrize("edition", [1, 2])
def test_a_message_cut_anywhere_is_damaged_and_never_given_to_the_decoder_without_its_sections(tmp_path, edition):
    good = grib_files.message("t", 500, edition=edition)
    for length in range(40, len(good)):
        found = only(tmp_path, good[:length])
        assert isinstance(found, Damage)
        assert ("(t at level 500)" in found.problem) == (
            length > section(good, 4 if edition == 1 else 7) + (2 if edition == 1 else 4)
        )


def test_two_fields_in_one_message_are_counted_and_their_grid_is_found(tmp_path):
    one, other = (grib_files.message(param, 500) for param in ("u", "v"))
    both = grib_files.two_fields_in_one_message(one, other, tmp_path / "both.grib")
    grid, count = only(tmp_path, both).grid_and_count()
    assert (grid, count) == (only(tmp_path, one).grid_and_count()[0], 2)
    assert len(grid) == 72


def test_a_grid_of_a_catalogue_is_known_by_its_number(tmp_path):
    message = grib_files.message("t", 500, edition=1)
    handle = eccodes.codes_new_from_message(message)
    eccodes.codes_set_key_vals(handle, {"gridDefinition": 3, "section1Flags": 0})
    start, end = section(message, 2), section(message, 4)
    without = bytearray(message[:start] + message[end:])
    eccodes.codes_release(handle)
    without[4:7], without[8 + 6], without[8 + 7] = len(without).to_bytes(3, "big"), 3, 0
    assert only(tmp_path, bytes(without)).grid_and_count() == (b"\x03", 1)
