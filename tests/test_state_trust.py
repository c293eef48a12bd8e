"""The state of an unfinished run is data that somebody may have changed: refused, and nothing of the user's touched."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from steps import forecast_step
from test_writer import PRODUCTS, labels, plan, steps_of

from ai_models_mosaic.errors import ResumeError
from ai_models_mosaic.forecast.record_file import DIGEST, seal, unseal
from ai_models_mosaic.forecast.resume import FORMAT, ResumeRecord, open_resume_state, read_record
from ai_models_mosaic.outputs.writer import Outputs

START = datetime(2020, 2, 29, 18)
FRESH = ResumeRecord({"seed": 1, "members_per_batch": 1}, {"torch": "2"})
STATE = "step-00001-batch-00000.npy"


@pytest.fixture
def folder(tmp_path):
    """What a run left after step 1."""
    made = tmp_path / "s"
    with open_resume_state(made, FRESH, 2, 1, resume=False) as resume_state:
        resume_state.note(0, forecast_step(1, 24, (1,), np.full((1, 4, 3, 1), 7, dtype=np.float32)))
        resume_state.save(2, {"out.grib": 10})
    return made


def go_on(folder: Path, shape=(1, 4, 3, 1)):
    with open_resume_state(folder, FRESH, 2, 1, resume=True) as resume_state:
        return resume_state.load(0, 1, shape)


def fields_of(folder: Path) -> dict:
    return unseal((folder / "run.json").read_bytes(), FORMAT)


def test_what_was_kept_is_gone_on_with(folder):
    assert (go_on(folder) == 7).all()


@pytest.mark.parametrize("name", ["run.json", STATE])
def test_no_byte_of_the_state_may_change(folder, name):
    path = folder / name
    whole = path.read_bytes()
    random = np.random.default_rng(13)
    changes = {bytes([*whole[:at], whole[at] ^ 1 << int(bit), *whole[at + 1 :]]) for at, bit in
               zip(random.integers(0, len(whole), 60), random.integers(0, 8, 60), strict=True)}  # fmt: skip
    changes |= {whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0", whole + whole}
    for changed in changes:
        path.write_bytes(changed)
        with pytest.raises(ResumeError, match=r"(cannot be used|is damaged).*[Rr]un without --resume$"):
            go_on(folder)
    path.write_bytes(whole)
    assert (go_on(folder) == 7).all()


NESTED: dict = {}
for _ in range(50):
    NESTED = {"deeper": NESTED}


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 10**30, "2", [2], {"a": 2}, NESTED])
@pytest.mark.parametrize(
    "name", [*(name for name in ResumeRecord.__dataclass_fields__ if name != "format"), "positions/"]
)
def test_a_value_of_another_kind_is_refused_even_with_a_digest_of_its_own(folder, name, value):
    fields = fields_of(folder)
    changed = {**fields, "positions": {"out.grib": value}} if name == "positions/" else {**fields, name: value}
    (folder / "run.json").write_bytes(seal(changed))
    fine = (
        (name in ("positions", "tails") and value is None)
        or (name == "finished" and value is True)
        or (name in ("identity", "backend") and isinstance(value, dict))
        or (name == "positions" and value == {"a": 2})
    )
    if fine:
        assert read_record(folder) is not None
        return
    with pytest.raises(ResumeError, match=rf"run.json cannot be used: {name.rstrip('/')}: expected .*, got "):
        read_record(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "expected at most 100 containers in one another, got more"),
        ("NaN", "expected finite numbers, got NaN"),
        ('{"units": Infinity}', "expected finite numbers, got Infinity"),
        ("[1]", r"expected an object, got \[1\]"),
        ("9" * 5000, "Exceeds the limit"),
        ("\x80", "codec can't decode"),
        (json.dumps({"format": [FORMAT]}), r"expected format 2, got \[2\]"),
        (json.dumps({"format": FORMAT}), "expected identity, got none"),
    ],
)
def test_a_text_that_is_no_record_is_refused(tmp_path, text, said):
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ResumeError, match=rf"run.json cannot be used: .*{said}.* Run without --resume$"):
        read_record(tmp_path)


def test_nothing_may_be_added_to_a_record_or_taken_from_it(folder):
    fields = fields_of(folder)
    (folder / "run.json").write_bytes(seal({**fields, "more": 1}))
    with pytest.raises(ResumeError, match=r"expected nothing else, got \['more'\]"):
        read_record(folder)
    (folder / "run.json").write_bytes(seal({name: value for name, value in fields.items() if name != "units"}))
    with pytest.raises(ResumeError, match=r"expected units, got none"):
        read_record(folder)
    (folder / "run.json").write_text(json.dumps({**fields, DIGEST: "0" * 64}))
    with pytest.raises(ResumeError, match=r"its digest is another than that of what it says"):
        read_record(folder)


@pytest.mark.parametrize(
    "values",
    [
        np.full((1, 4, 3, 1), 8, dtype=np.float32),
        np.full((1, 4, 3, 1), 7, dtype=np.float64),
        np.full((1, 4, 3, 1), 7, dtype=">f4"),
        np.full((1, 4, 3, 2), 7, dtype=np.float32),
        np.full((4, 3, 1, 1), 7, dtype=np.float32),
        np.full((2, 2), "object", dtype=object),
    ],
)
def test_another_state_is_refused(folder, values):
    np.save(folder / STATE, values, allow_pickle=True)
    with pytest.raises(
        ResumeError, match=rf"{STATE} cannot be read .*the state of the unfinished run is damaged\. Run"
    ):
        go_on(folder)


def test_a_state_of_another_shape_than_the_run_needs_is_refused_though_record_and_file_agree(folder):
    with pytest.raises(ResumeError, match=r"expected a state of shape \(2, 4, 3, 1\), got \(1, 4, 3, 1\)"):
        go_on(folder, (2, 4, 3, 1))


def test_a_header_that_promises_too_much_takes_no_memory(folder):
    (folder / STATE).unlink()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)}
    with (folder / STATE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    fields = fields_of(folder)
    fields["states"][STATE]["shape"] = [10**9, 10**6]
    (folder / "run.json").write_bytes(seal(fields))
    with pytest.raises(ResumeError, match=r"expected 4000000000000000 bytes and a header, got 128"):
        go_on(folder, None)


# Files of the plan alone.


@pytest.mark.parametrize("products", [(), PRODUCTS])
@pytest.mark.parametrize("path", ["x.grib", "{number}.grib", "{number}-{step}-{shortName}.grib"])
def test_a_record_that_names_a_file_of_the_users_touches_it_not(tmp_path, path, products):
    own = tmp_path / "thesis.tex"
    own.write_text("years of work")
    (tmp_path / "thesis.tex.partial").write_text("more of it")
    more = {"products": products, "products_path": f"{tmp_path}/{{type}}-{{step}}.grib"} if products else {}
    made = plan(tmp_path, path=path, workers=0, **more)
    steps = list(steps_of(made))
    positions: dict[str, int] = {}

    def begin() -> None:
        with Outputs(made, labels()) as outputs:
            for step in steps:
                outputs.write(step)
            positions.update(outputs.mark()())
            raise KeyError("killed")

    with pytest.raises(KeyError):
        begin()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with (
        pytest.raises(ResumeError, match=r"names .*/thesis.tex, which this run does not write: it was changed\. Run"),
        Outputs(made, labels(), resuming=True) as outputs,
    ):
        outputs.resume({**positions, str(own): 4})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    # Of its own all are known: members times steps times fields at the most.
    with Outputs(made, labels(), resuming=True) as outputs:
        outputs.resume(positions)
    assert own.read_text() == "years of work"


def test_without_grib_a_record_may_name_no_file(tmp_path):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr")
    with (
        pytest.raises(ResumeError, match=r"names thesis\.tex, which this run does not write"),
        Outputs(made, labels(), resuming=True) as outputs,
    ):
        outputs.resume({"thesis.tex": 4})
