"""What a run is, and what `--resume` may find in its place: nothing of another one."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from test_options import EXAMPLES
from toy_run import FIELDS, GRID, START
from toy_series import LoadedToy, Toy, files

from ai_models_mosaic.checkpoints.files import DataFile
from ai_models_mosaic.engines.vitals import Probe
from ai_models_mosaic.errors import OptionError, ResumeError, TerminatedError
from ai_models_mosaic.forecast.health.bands import Bands, write_bands
from ai_models_mosaic.forecast.options import Options, parse_options
from ai_models_mosaic.options.declarations import declared
from ai_models_mosaic.variants import MINI


def refused(toy, *words, engine=None):
    with pytest.raises(ResumeError) as caught:
        toy(*words, "--resume", engine=engine)
    return str(caught.value)


# Lists of members.


def test_a_loop_over_members_makes_a_file_of_each(tmp_path):
    toy = Toy(f"{tmp_path}/m-{{number}}.grib")
    toy()
    wanted = files(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    for member in "123":
        assert toy("--member-number", member, "--resume").calls == 2
    assert files(tmp_path) == wanted
    for member in "123":
        assert toy("--member-number", member, "--resume").calls == 0


def test_members_of_an_unfinished_loop_stay_apart(tmp_path):
    toy = Toy(f"{tmp_path}/m-{{number:03d}}.grib")
    toy()
    wanted = files(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    toy.stopped("--member-number", "1")
    assert toy("--member-number", "2", "--resume").calls == 2
    assert sorted(files(tmp_path)) == ["m-002.grib"]
    # It goes on where it was stopped.
    assert toy("--member-number", "1", "--resume").calls == 1
    assert toy("--member-number", "3", "--resume").calls == 2
    assert files(tmp_path) == wanted
    assert not list(tmp_path.glob("*.state"))


@pytest.mark.parametrize("path", ["out.grib", "m-{step}.grib"])
def test_other_members_do_not_go_on_in_an_unfinished_file(tmp_path, path):
    toy = Toy(f"{tmp_path}/{path}")
    toy.stopped("--member-number", "1")
    said = refused(toy, "--member-number", "2")
    assert "is another than this one:\n  --member-number: it began with [1], now [2]\nGive the same options" in said
    toy("--member-number", "1", "--resume")


@pytest.mark.parametrize("path", ["out.grib", "m-{step}.grib"])
def test_other_members_do_not_replace_a_complete_file(tmp_path, path):
    toy = Toy(f"{tmp_path}/{path}")
    toy("--member-number", "1")
    before = files(tmp_path)
    said = refused(toy, "--member-number", "2")
    assert "is complete, and of another run than this one:\n  --member-number: it was [1], now [2]\n" in said
    assert files(tmp_path) == before
    assert not list(tmp_path.glob("*.state"))
    # Without --resume it is made anew, as was asked.
    toy("--member-number", "2")
    assert files(tmp_path) != before


def test_lists_of_members_that_share_one_share_its_file(tmp_path):
    toy = Toy(f"{tmp_path}/m-{{number}}.grib")
    toy.stopped("--member-number", "1,2")
    said = refused(toy, "--member-number", "2-3")
    assert "is of an unfinished run that writes the same files:\n  --member-number: it was [1, 2], now [2, 3]\n" in said
    toy("--member-number", "1,2", "--resume")
    said = refused(toy, "--member-number", "2-3")
    assert (
        f"{tmp_path}/m-2.grib is complete, and of another run than this one:\n  --member-number: it was [1, 2]" in said
    )
    toy("--member-number", "3", "--resume")


def test_products_of_other_members_are_not_replaced(tmp_path):
    toy = Toy(f"{tmp_path}/m-{{number}}.grib", more_paths=(f"{tmp_path}/mean.grib",))
    toy("--member-number", "1")
    (tmp_path / "m-1.grib").rename(tmp_path / "mean.grib")
    (tmp_path / "m-1.grib.provenance.json").rename(tmp_path / "mean.grib.provenance.json")
    assert f"{tmp_path}/mean.grib is complete" in refused(toy, "--member-number", "2")


def test_what_is_complete_of_another_initial_time_is_done_with(tmp_path):
    toy = Toy(f"{tmp_path}/out.grib")
    toy()
    replace(toy, initial_time=START + timedelta(days=1))("--resume")


def test_how_a_path_is_typed_does_not_make_another_run(tmp_path):
    Toy(f"{tmp_path}/m-1.grib")("--member-number", "1")
    before = files(tmp_path)
    assert Toy(f"{tmp_path}/m-{{number}}.grib")("--member-number", "1", "--resume").calls == 2
    assert files(tmp_path) == before
    assert "is complete" in refused(Toy(f"{tmp_path}/.//m-1.grib"), "--member-number", "2")


def test_a_complete_run_of_before_an_option_was_there_is_refused_as_any_other(tmp_path):
    toy = Toy(f"{tmp_path}/out.grib")
    toy()
    card = tmp_path / "out.grib.provenance.json"
    said = json.loads(card.read_text())
    for name in ("crossed", "lagged", "noise_factors"):
        del said["options"][name]
    del said["options"]["output"]["calibration"]
    card.write_text(json.dumps(said))
    before = files(tmp_path)
    told = refused(toy, "--seed", "5")
    assert "is complete, and of another run than this one:\n  --seed: it was 0, now 5\nGive the same" in told
    assert files(tmp_path) == before


def test_a_card_of_before_there_was_an_identity_says_too_little_to_refuse(tmp_path):
    (tmp_path / "out.grib").write_bytes(b"GRIB of before")
    (tmp_path / "out.grib.provenance.json").write_text('{"members": [1, 2, 3], "options": {"output": {}}}')
    assert Toy(f"{tmp_path}/out.grib")("--resume").calls == 6


# All else that a run is.


def data(what, digest):
    return (DataFile(what, Path("x"), digest),)


@pytest.mark.parametrize("unfinished", [True, False], ids=["unfinished", "complete"])
@pytest.mark.parametrize(
    ("changed", "engine", "said"),
    [
        ({"input_number": 1}, {}, "input: it {} "),
        ({"steps": 3}, {}, "steps: it {} 2, now 3"),
        ({"metadata": {"expver": "0007"}}, {}, "metadata: it {} {{}}, now {{'expver': '0007'}}"),
        ({}, {"weights": "v" * 64}, f"weights: it {{}} {'w' * 64}, now {'v' * 64}"),
        ({}, {"data": data("static fields", "b")}, "static fields: it {} a, now b"),
        ({}, {"data": data("normalisation statistics", "c")}, "normalisation statistics: it {} None, now c"),
    ],
)
def test_what_a_run_reads_and_makes_may_not_change(tmp_path, unfinished, changed, engine, said):
    toy, first = Toy(f"{tmp_path}/out.grib"), data("static fields", "a")
    if unfinished:
        toy.stopped(engine=LoadedToy(stops_at=1, data=first))
    else:
        toy(engine=LoadedToy(data=first))
    now = LoadedToy(**{"data": first} | engine)
    began = "began with" if unfinished else "was"
    assert f"\n  {said.format(began)}" in refused(replace(toy, **changed), engine=now)
    again = LoadedToy(data=first)
    toy("--resume", engine=again)
    assert again.calls == (5 if unfinished else 0)


# Every option.

OPTIONS = {one.flag: one for _, one in declared(Options)}

FOUR = ("--num-ensemble-members", "4", "--members-per-batch", "1")

STANDS_FOR = {
    "--variant": ({"variant": replace(MINI, name="other")}, {}),
    "--members-per-batch": ({}, {}),
    "--checkpoint": ({}, {"weights": "v" * 64}),
    "--onnx-model": ({}, {"weights": "v" * 64}),
    "--input-grid": ({"input_number": 1}, {}),
    "--precision": ({}, {"precision": "float16"}),
}
"""What is another where something is compared in the place of an option."""


def typed(flag):
    """An option with a value that is not its default, and what must stand beside it in either run."""
    value, _ = EXAMPLES[flag]
    words = [] if value is None else value.split(" ")
    return ([flag], words) if OPTIONS[flag].is_switch else ([flag, *words[:1]], words[1:])


def test_options_are_known_by_flags_that_are_all_different():
    flags = [one.flag for _, one in declared(Options)]
    assert len(flags) == len(set(flags))
    assert flags == list(OPTIONS)


@pytest.mark.parametrize("flag", [flag for flag, one in OPTIONS.items() if one.resume.refused])
def test_what_is_not_resumed_is_refused_with_resume(flag):
    changed, beside = typed(flag)
    with pytest.raises(OptionError, match="leave --resume out; --extend adds members to what is complete"):
        parse_options([*changed, *beside, "--resume"])


@pytest.mark.parametrize("unfinished", [True, False], ids=["unfinished", "complete"])
@pytest.mark.parametrize("flag", [flag for flag, one in OPTIONS.items() if not one.resume.refused])
def test_every_option_is_refused_by_name_where_it_changed_unless_its_declaration_says_otherwise(
    tmp_path, monkeypatch, flag, unfinished
):
    monkeypatch.chdir(tmp_path)
    write_bands(Path("b.json"), Bands.default(Probe(GRID, FIELDS)), {"variant": MINI.name})
    toy, resume = Toy(f"{tmp_path}/out.grib"), OPTIONS[flag].resume
    changed, beside = typed(flag)
    now = parse_options([*FOUR, *beside, *changed, "--resume"])
    if flag == "--onnx-model":
        first = replace(now, onnx_model=Path("other.onnx"), resume=False)
    else:
        first = parse_options([*FOUR, *([] if flag == "--engine" else beside)])
    assert first != replace(now, resume=False) or flag == "--resume"
    engine = LoadedToy(stops_at=1) if unfinished else LoadedToy()
    with pytest.raises(TerminatedError) if unfinished else nullcontext():
        toy.run(first, engine)
    more, kinds = STANDS_FOR.get(flag, ({}, {}))
    again = LoadedToy(**kinds)
    if not resume.compared and resume.told_by is None:
        replace(toy, **more).run(now, again)
        assert again.calls == (7 if unfinished else 0)
        return
    with pytest.raises(ResumeError) as caught:
        replace(toy, **more).run(now, again)
    assert f"\n  {resume.told_by or flag}: it {'began with' if unfinished else 'was'} " in str(caught.value)
    assert again.calls == 0
