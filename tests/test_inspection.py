import re
from datetime import datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.commands.inspection import inspect_ensemble
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels

GRID = LatLonGrid.regular(6.0)
ALL = range(len(CHANNELS))


@pytest.fixture(scope="module")
def encoder():
    with GribEncoder(GRID, Labels(datetime(2020, 2, 29, 18), 20, {})) as made:
        yield made


@pytest.fixture
def written(encoder, tmp_path):
    """Writes the members and steps of an ensemble but for some (member, step, channel); returns the file."""

    def write(members=(10, 2), steps=(24, 0), without=(), name="x.grib", channels=ALL, **keys):
        path = tmp_path / name
        with path.open("wb") as file:
            for member, step, channel in ((m, s, c) for m in members for s in steps for c in channels):
                if (member, step, channel) in without:
                    continue
                content = encoder.encode(channel, member, step, np.zeros(GRID.size)).to_bytes()
                file.write(labelled(content, keys) if keys else content)
        return path

    return write


def labelled(content, keys):
    handle = eccodes.codes_new_from_message(content)
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def line(paths, name):
    """What the report says under a name."""
    found = re.findall(rf"^  {name} +(.*)$", inspect_ensemble(paths), flags=re.MULTILINE)
    assert len(found) <= 1
    return found[0] if found else None


def test_a_complete_ensemble_is_told_in_six_lines(written):
    path = written()
    assert inspect_ensemble([path]).splitlines() == [
        f"{path}: 328 GRIB messages",
        "  start    20200229 1800 UTC",
        "  grid     regular_ll 60 × 31",
        "  members  2, 10 (of 20)",
        "  steps    0, 24 h",
        "  fields   82 per member and step",
    ]


def test_files_are_read_as_one_ensemble(written):
    first, second = (written(members=(member,), name=f"{member}.grib", channels=range(9)) for member in (1, 2))
    assert inspect_ensemble([second, first]).splitlines()[0] == f"{second}, {first}: 36 GRIB messages"
    assert line([second, first], "members") == "1, 2 (of 20)"
    assert line([second, first], "fields") == "9 per member and step"


def test_a_single_field_that_is_lacking_is_noticed(written):
    assert line([written(without=[(10, 24, 40)])], "fields") == "INCOMPLETE: 81 to 82 per member and step, not the same"


def test_a_step_that_one_member_lacks_is_noticed(written):
    path = written(channels=range(9), without=[(10, 24, channel) for channel in range(9)])
    assert line([path], "members") == "2, 10 (of 20)"
    assert line([path], "steps") == "0, 24 h"
    assert line([path], "fields") == "INCOMPLETE: 9 per member and step, not the same"


def test_members_that_lack_one_field_each_but_not_the_same_are_noticed(written):
    path = written(members=(1, 2), steps=(24,), without=[(1, 24, 40), (2, 24, 41)])
    assert line([path], "fields").startswith("INCOMPLETE")


def test_fields_that_are_there_twice_are_noticed(written):
    path = written(members=(1,), steps=(24,), channels=range(9))
    assert line([path, path], "fields") != "9 per member and step"


def test_a_field_of_the_same_name_on_another_level_is_another_field(written):
    assert line([written(members=(1,), steps=(0,), channels=(0, 1, 10, 11))], "fields") == "4 per member and step"


@pytest.mark.parametrize(
    ("keys", "members"),
    [
        ({"numberOfForecastsInEnsemble": 50}, "1 (of 50)"),
        ({"numberOfForecastsInEnsemble": 255}, "1 (of an unknown number)"),
        ({"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 255}, "1 (of 255)"),
        ({"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 1255}, "1 (of 1255)"),
        ({"productDefinitionTemplateNumber": 117, "numberOfForecastsInEnsemble": 65535}, "1 (of an unknown number)"),
    ],
)
def test_the_size_of_the_ensemble_is_told_as_far_as_it_is_known(written, keys, members):
    path = written(members=(1,), steps=(0,), channels=(3,), **keys | {"number": 1})
    assert line([path], "members") == members


def test_untrained_weights_are_told(written):
    assert line([written(members=(1,), steps=(0,))], "weights") is None
    path = written(members=(1,), steps=(0,), channels=(3,), expver="untr")
    assert line([path], "weights") == "UNTRAINED: random numbers, no forecast"


def test_a_file_that_is_absent_cut_short_or_no_grib_is_an_error(written, tmp_path):
    short, text = written(members=(1,), steps=(0,), channels=(3,)), tmp_path / "notes.txt"
    short.write_bytes(short.read_bytes()[:-10])
    text.write_text("GRIB is a format")
    absent = Path(tmp_path / "absent.grib")
    for path, reason in [
        (absent, f"[Errno 2] No such file or directory: '{absent}'"),
        (tmp_path, f"[Errno 21] Is a directory: '{tmp_path}'"),
        (short, "End of resource reached when reading message"),
        (text, "Edition not supported."),
    ]:
        with pytest.raises(InputError) as caught:
            inspect_ensemble([path])
        assert str(caught.value) == f"{path} cannot be read as GRIB: {reason}"


def test_a_file_without_any_message_is_an_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind")
    with pytest.raises(InputError, match=re.escape(str(path))):
        inspect_ensemble([path])
