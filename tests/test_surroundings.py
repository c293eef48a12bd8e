"""Machines on which ecCodes is given tables of another version, or the user has no name."""

import os
import subprocess
from pathlib import Path

import eccodes
import pytest
from running import BIN, MINI, SAMPLE, elsewhere
from test_doctor import findings

from ai_models_mosaic import __version__
from ai_models_mosaic.commands.checks import FAILURE, OK
from ai_models_mosaic.commands.surroundings import LABELS, check_eccodes, check_surroundings, check_user
from ai_models_mosaic.errors import MosaicError

TABLES = {
    # That of another version may hold what this one cannot parse.
    "boot.def": "a word of another version;\n",
    # Or it lacks labels.
    "grib2/mars_labeling.def": "constant type = 'unknown';\n",
}


def own(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ai-models-mosaic"), *(str(word) for word in words)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(params=TABLES)
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of tables that are not those of this version of ecCodes."""
    path = tmp_path / "definitions" / request.param
    path.parent.mkdir(parents=True)
    path.write_text(TABLES[request.param])
    return str(tmp_path / "definitions")


def test_tables_of_another_version_are_refused_before_a_forecast(tmp_path: Path, tables: str):
    ran = elsewhere(
        tmp_path, *MINI, "--lead-time", 0, "--path", "m.grib", env={**os.environ, "ECCODES_DEFINITION_PATH": tables}
    )
    assert (ran.returncode, "Traceback" in ran.stderr, (tmp_path / "m.grib").exists()) == (1, False, False)
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith(f"ai-models mosaic {__version__}: ")]
    assert "cannot write and read a message: " in said
    assert said.endswith(
        f"Its tables are those of ECCODES_DEFINITION_PATH={tables}: expected tables of this very version. Unset it"
    )


def test_tables_of_another_version_are_refused_by_our_own_commands_and_fail_the_doctor(tmp_path: Path, tables: str):
    said = own(tmp_path, "inspect", SAMPLE, ECCODES_DEFINITION_PATH=tables)
    assert (said.returncode, said.stdout, "Traceback" in said.stderr) == (1, "", False)
    assert "expected tables of this very version. Unset it\n" in said.stderr
    said = own(tmp_path, "doctor", ECCODES_DEFINITION_PATH=tables)
    assert (said.returncode, "Traceback" in said.stderr) == (1, False)
    (line,) = [line for line in said.stdout.splitlines() if line.startswith(FAILURE)]
    assert line.startswith("FAILURE  grib: ecCodes ")


def test_grib_is_read_as_it_was_written_where_nothing_is_amiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_eccodes()
    check_surroundings()
    assert findings(output=tmp_path)["GRIB"] == (OK, "ecCodes reads what it writes")
    # What this template cannot hold.
    monkeypatch.setitem(LABELS, "stepRange", "0-240")
    with pytest.raises(MosaicError) as caught:
        check_eccodes()
    assert str(caught.value) == (
        f"ecCodes {eccodes.codes_get_api_version()} cannot write and read a message: it reads step 0 in place of 240, "
        "stepRange 0 in place of 0-240. Expected a whole installation: install it again (pip install --force-reinstall eccodes eccodeslib)"
    )


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user as many containers have them."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_name_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = (
        "the user id 1234567 has no name on this machine, as happens in containers, and earthkit-data needs one: "
        "expected LOGNAME in the environment, or an entry in /etc/passwd. Set it: export LOGNAME=mosaic"
    )
    with pytest.raises(MosaicError) as caught:
        check_user()
    assert str(caught.value) == expected
    assert findings(output=tmp_path)["user"] == (FAILURE, expected)
    monkeypatch.setenv("LOGNAME", "mosaic")
    check_user()
    assert findings(output=tmp_path)["user"] == (OK, "mosaic")
