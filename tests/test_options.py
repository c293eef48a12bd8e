from operator import attrgetter
from pathlib import Path

import pytest

from ai_models_mosaic.engines.choice import parse_provider
from ai_models_mosaic.engines.onnx import Provider
from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.forecast.deadline import Deadline
from ai_models_mosaic.forecast.ensemble_options import parse_members
from ai_models_mosaic.forecast.growth import Growth
from ai_models_mosaic.forecast.health.options import HealthOptions
from ai_models_mosaic.forecast.listeners import Listeners
from ai_models_mosaic.forecast.noise_factors import parse_noise_factors
from ai_models_mosaic.forecast.options import Options, parse_options, parser
from ai_models_mosaic.forecast.tolerance import Tolerance
from ai_models_mosaic.options.crossing import Crossing
from ai_models_mosaic.options.declarations import declared
from ai_models_mosaic.options.lagging import Lagging
from ai_models_mosaic.options.number_lists import FORMS
from ai_models_mosaic.outputs.calibration import parse_calibration
from ai_models_mosaic.outputs.grib.packing import Bits, Packing
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.products import Product
from ai_models_mosaic.outputs.selection import Selection

MEMBERS = f"--member-number: expected whole numbers from 1 and ranges, such as {FORMS}, got "

CALIBRATION = Path(__file__).parent / "data" / "calibration.json"
NOISE_FACTORS = Path(__file__).parent / "data" / "noise-factors.json"

# A value for every option, and what comes of it.
EXAMPLES = {
    "--state-interval": ("0", {"state_interval_s": 0.0}),
    "--variant": ("hres", {"variant": "hres"}),
    "--num-ensemble-members": ("3", {"ensemble_size": 3, "members": (1, 2, 3)}),
    "--member-number": ("4,2", {"ensemble_size": None, "members": (4, 2)}),
    "--crossed": (
        "3x3 --num-ensemble-members 9",
        {"crossed": Crossing(3, 3), "ensemble_size": 9, "members": tuple(range(1, 10))},
    ),
    "--lagged": (
        "0,-24 --num-ensemble-members 2",
        {"lagged": Lagging((0, -24)), "ensemble_size": 2, "members": (1, 2)},
    ),
    "--seed": ("18446744073709551615", {"seed": 2**64 - 1}),
    "--members-per-batch": ("8", {"members_per_batch": 8}),
    "--cuda-graphs": (None, {"cuda_graphs": True}),
    "--compile": (None, {"compiled": True}),
    "--precision": ("bfloat16", {"precision": "bfloat16"}),
    "--checkpoint": ("a/b.pt", {"checkpoint": Path("a/b.pt")}),
    "--input-grid": ("0.5", {"input_grid_deg": 0.5}),
    "--patience": ("2.5", {"patience_s": 150.0}),
    "--verify-assets": (None, {"verify_assets": True}),
    "--engine": ("onnx --onnx-model m.onnx", {"engine": "onnx", "onnx_model": Path("m.onnx")}),
    "--attention-backend": ("reference", {"attention_backend": "reference"}),
    "--onnx-model": ("m.onnx --engine onnx", {"engine": "onnx", "onnx_model": Path("m.onnx")}),
    "--onnx-provider": (
        "CUDA,device_id=1 --engine onnx --onnx-model m.onnx",
        {
            "engine": "onnx",
            "onnx_model": Path("m.onnx"),
            "onnx_provider": Provider("CUDAExecutionProvider", (("device_id", "1"),)),
        },
    ),
    "--perturbations": ("off", {"perturbations": "off"}),
    "--noise-factor": ("0.5", {"noise_factor": 0.5}),
    "--noise-factor-file": (str(NOISE_FACTORS), {"noise_factors": parse_noise_factors(NOISE_FACTORS)}),
    "--antithetic": (None, {"antithetic": True}),
    "--dates": ("20200101/to/20200108/by/7", {"dates": "20200101/to/20200108/by/7"}),
    "--resume": (None, {"resume": True}),
    "--progress-file": ("a/b.jsonl", {"progress_file": Path("a/b.jsonl")}),
    "--quiet": (None, {"quiet": True}),
    "--extend": ("4", {"ensemble_size": 4, "members": (1, 2, 3, 4), "growth": Growth(extend=4)}),
    "--deadline": (
        "5m --num-ensemble-members=2",
        {"ensemble_size": 2, "members": (1, 2), "growth": Growth(deadline=Deadline("5m"))},
    ),
    "--mc-error": (
        "0.02@probability:2t<273.15 --num-ensemble-members=2",
        {
            "ensemble_size": 2,
            "members": (1, 2),
            "growth": Growth(mc_error=(Tolerance(0.02, "probability:2t<273.15"),)),
        },
    ),
    "--metrics-file": ("a/b.prom", {"listeners": Listeners(metrics_file=Path("a/b.prom"))}),
    "--notify": ("https://host/a", {"listeners": Listeners(notify="https://host/a")}),
    "--log-format": ("json", {"listeners": Listeners(log_format="json")}),
    "--health": ("h.json", {"listeners": Listeners(health=HealthOptions(Path("h.json")))}),
    "--health-bands": (
        "b.json --health=h.json",
        {"listeners": Listeners(health=HealthOptions(Path("h.json"), Path("b.json")))},
    ),
    "--health-exit": ("--health=h.json", {"listeners": Listeners(health=HealthOptions(Path("h.json"), exits=True))}),
    "--output-params": ("2t,z500", {"output": OutputOptions(selection=Selection(params=("2t", "z500")))}),
    "--output-levels": ("500/850", {"output": OutputOptions(selection=Selection(levels=(500, 850)))}),
    "--output-steps": ("24/to/72/by/24", {"output": OutputOptions(selection=Selection(steps=(24, 48, 72)))}),
    "--output-area": ("75/-15/30/45", {"output": OutputOptions(selection=Selection(area=(75, -15, 30, 45)))}),
    "--products": ("mean", {"output": OutputOptions(products=(Product("mean"),))}),
    "--no-members": (
        "--products=mean",
        {"output": OutputOptions(products=(Product("mean"),), members=False)},
    ),
    "--products-path": (
        "p.grib --products=mean",
        {"output": OutputOptions(products=(Product("mean"),), products_path="p.grib")},
    ),
    "--clip-humidity": ("--zarr=a.zarr", {"output": OutputOptions(clip_humidity=True, zarr="a.zarr")}),
    "--calibration": (
        f"{CALIBRATION} --num-ensemble-members 3",
        {
            "ensemble_size": 3,
            "members": (1, 2, 3),
            "output": OutputOptions(calibration=parse_calibration(CALIBRATION)),
        },
    ),
    "--zarr": ("a.zarr", {"output": OutputOptions(zarr="a.zarr")}),
    "--netcdf": ("a.nc", {"output": OutputOptions(netcdf="a.nc")}),
    "--no-grib": ("--zarr=a.zarr", {"output": OutputOptions(grib=False, zarr="a.zarr")}),
    "--packing": ("ccsds", {"output": OutputOptions(packing=Packing("ccsds"))}),
    "--bits-per-value": ("14,z=18", {"output": OutputOptions(packing=Packing(bits=Bits(14, (("z", 18),))))}),
    "--output-workers": ("0", {"output": OutputOptions(workers=0)}),
}

FLAGS = {"--no-members", "--no-grib", "--clip-humidity", "--health-exit"}
"""Options without a value, whose example is another option that they need."""

DEFAULTS = {
    "variant": "auto",
    "ensemble_size": 1,
    "members": (1,),
    "seed": 0,
    "members_per_batch": None,
    "precision": "auto",
    "checkpoint": None,
    "input_grid_deg": None,
    "patience_s": 600.0,
    "verify_assets": False,
    "engine": "torch",
    "attention_backend": "auto",
    "onnx_model": None,
    "onnx_provider": Provider(),
    "perturbations": "on",
    "noise_factor": 1.0,
    "noise_factors": None,
    "antithetic": False,
    "dates": None,
    "resume": False,
    "progress_file": None,
    "quiet": False,
    "cuda_graphs": False,
    "compiled": False,
    "listeners": Listeners(),
    "output": OutputOptions(),
}


def refused(*arguments):
    with pytest.raises(OptionError) as caught:
        parse_options(arguments)
    return str(caught.value)


def documented():
    return {action.option_strings[0]: action for action in parser()._actions}


def test_the_keywords_of_python_have_the_defaults_of_the_command_line():
    assert Options() == parse_options([])
    assert Options(ensemble_size=3) == parse_options(["--num-ensemble-members", "3"])
    assert Options(members=(4, 2)) == parse_options(["--member-number", "4,2"])


def test_without_options_there_is_one_member_of_one():
    assert parse_options([]) == Options(**DEFAULTS)


def test_every_option_is_explained_and_has_an_example_here():
    options = documented()
    assert options.keys() == EXAMPLES.keys()
    for name, action in options.items():
        assert action.option_strings == [name]
        assert len(action.help or "") > 30, f"{name} has no help"
        assert name in parser().format_help()


@pytest.mark.parametrize("option", documented())
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_every_documented_option_is_accepted_and_changes_what_it_should_and_no_more(option, form):
    typed, changed = EXAMPLES[option]
    form = "{} {}" if option in FLAGS else form
    words = [option] if typed is None else form.format(option, typed).split(" ")
    assert parse_options(words) == Options(**DEFAULTS | changed)


@pytest.mark.parametrize(
    ("option", "choice"),
    [(option, choice) for option, action in documented().items() for choice in action.choices or ()],
)
def test_every_documented_choice_is_accepted(option, choice):
    needed = ["--onnx-model", "m.onnx"] if choice == "onnx" else []
    assert attrgetter(documented()[option].dest)(parse_options([option, choice, *needed])) == choice


def test_help_names_the_default_of_every_option_that_has_one():
    for _, one in declared(Options):
        if not one.is_switch and one.default not in (None, ()):
            assert "(default: " in one.text, one.flag
            assert f"(default: {one.default})" in one.text or one.shown, one.flag


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("1", (1,)),
        ("7,3,5", (7, 3, 5)),
        ("5-8", (5, 6, 7, 8)),
        ("8-5", (8, 7, 6, 5)),
        ("4-4", (4,)),
        ("1,3,5-8", (1, 3, 5, 6, 7, 8)),
        ("10-9,1-2,64", (10, 9, 1, 2, 64)),
        (" 2 , 1 ", (2, 1)),
        ("1000", (1000,)),
        ("007", (7,)),
        ("1/to/3", (1, 2, 3)),
        ("8/to/2/by/3,1", (8, 5, 2, 1)),
        ("4/2", (4, 2)),
    ],
)
def test_members_run_in_the_order_in_which_they_are_listed(text, members):
    assert parse_members(text) == members
    assert parse_options(["--member-number", text]).members == members


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", f"{MEMBERS}'0'"),
        ("0-3", f"{MEMBERS}'0-3'"),
        ("3-0", f"{MEMBERS}'3-0'"),
        ("-3", f"{MEMBERS}'-3'"),
        ("1,,3", f"{MEMBERS}'1,,3'"),
        ("1,", f"{MEMBERS}'1,'"),
        ("3-", f"{MEMBERS}'3-'"),
        ("1-2-3", f"{MEMBERS}'1-2-3'"),
        ("1 2", f"{MEMBERS}'1 2'"),
        ("1.5", f"{MEMBERS}'1.5'"),
        ("all", f"{MEMBERS}'all'"),
        ("1/to/3/by/0", f"{MEMBERS}'1/to/3/by/0'"),
        ("1-99999999999", "--member-number: expected a list of at most 65535 numbers, got '1-99999999999'"),
        ("1/to/9/by/99999999999999999999", f"{MEMBERS}'1/to/9/by/99999999999999999999'"),
        (" ", f"{MEMBERS}' '"),
        ("1,2,1", "--member-number: expected each number once, got 1 twice in '1,2,1'"),
        ("5-8,7", "--member-number: expected each number once, got 7 twice in '5-8,7'"),
        ("4-6,6-4", "--member-number: expected each number once, got 4 twice in '4-6,6-4'"),
    ],
)
def test_a_bad_list_of_members_is_refused(text, message):
    assert refused("--member-number", text) == message


def test_an_empty_list_of_members_is_refused_and_not_taken_for_none():
    assert refused("--member-number", "") == f"{MEMBERS}''"


@pytest.mark.parametrize(
    ("arguments", "size", "members"),
    [
        (["--num-ensemble-members", "1"], 1, (1,)),
        (["--num-ensemble-members", "50", "--member-number", "50,1"], 50, (50, 1)),
        (["--member-number", "50,1", "--num-ensemble-members", "50"], 50, (50, 1)),
        (["--member-number", "12"], None, (12,)),
    ],
)
def test_the_size_of_the_ensemble_is_what_was_said_and_else_unknown(arguments, size, members):
    options = parse_options(arguments)
    assert (options.ensemble_size, options.members) == (size, members)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-ensemble-members 0", "--num-ensemble-members: expected at least 1, got 0"),
        ("--num-ensemble-members -2", "--num-ensemble-members: expected at least 1, got -2"),
        ("--num-ensemble-members 0 --member-number 1", "--num-ensemble-members: expected at least 1, got 0"),
        (
            "--num-ensemble-members 4 --member-number 2,5",
            "--member-number: expected numbers from 1 to 4 (--num-ensemble-members), got 5",
        ),
        ("--num-ensemble-members 65535", "--num-ensemble-members: expected at most 65534, got 65535"),
        ("--members-per-batch 0", "--members-per-batch: expected at least 1, got 0"),
        ("--seed -1", "--seed: expected 0 to 2**64 - 1, got -1"),
        ("--seed 18446744073709551616", "--seed: expected 0 to 2**64 - 1, got 18446744073709551616"),
        ("--seed x", "argument --seed: invalid int value: 'x'. All options: ai-models-mosaic options"),
        ("--seed", "argument --seed: expected one argument. All options: ai-models-mosaic options"),
        ("--seed 1.5", "argument --seed: invalid int value: '1.5'. All options: ai-models-mosaic options"),
        (
            "--input-grid fine",
            "argument --input-grid: invalid float value: 'fine'. All options: ai-models-mosaic options",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(arguments, message):
    assert refused(*arguments.split()) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--engine onnx",
            "--engine onnx: expected --onnx-model FILE as well, which ai-models-mosaic export-onnx makes of a checkpoint",
        ),
        (
            "--engine onnx --onnx-model a.onnx --checkpoint b.pt",
            "--checkpoint: the engine onnx takes its weights from --onnx-model; export that checkpoint, or give "
            "--engine torch",
        ),
        (
            "--engine onnx --onnx-model a.onnx --attention-backend sdpa",
            "--attention-backend is for --engine torch, and the engine is onnx; leave one out",
        ),
        ("--onnx-model a.onnx", "--onnx-model is for --engine onnx, and the engine is torch; give both"),
        ("--onnx-provider CPU", "--onnx-provider is for --engine onnx, and the engine is torch; give both"),
    ],
)
def test_options_of_one_engine_are_refused_for_the_other(arguments, message):
    assert refused(*arguments.split()) == message


@pytest.mark.parametrize(
    ("text", "provider"),
    [
        ("CPU", Provider("CPUExecutionProvider")),
        ("CPUExecutionProvider", Provider("CPUExecutionProvider")),
        ("CUDA, device_id=1,x=", Provider("CUDAExecutionProvider", (("device_id", "1"), ("x", "")))),
    ],
)
def test_a_provider_has_a_name_and_perhaps_options(text, provider):
    assert parse_provider(text) == provider


@pytest.mark.parametrize("text", ["", ",device_id=1", "CUDA,device_id", "CUDA,=1", "CUDA device_id=1", "CUDA,,"])
def test_a_provider_of_another_form_is_refused(text):
    with pytest.raises(OptionError) as caught:
        parse_provider(text)
    assert str(caught.value) == (
        f"--onnx-provider: expected a name and perhaps options, such as CPU or CUDA,device_id=1, got {text!r}"
    )


@pytest.mark.parametrize("degrees", ["0", "-0.25", "nan", "inf"])
def test_a_grid_to_ask_for_that_is_none_is_refused(degrees):
    assert refused(f"--input-grid={degrees}").startswith("--input-grid: expected ")


@pytest.mark.parametrize(
    ("option", "choice", "expected"),
    [("--variant", "ERA5", ["auto", "era5", "hres", "mini"]), ("--precision", "float64", ["auto", "float16"])],
)
def test_a_choice_that_there_is_not_is_refused_and_the_others_are_named(option, choice, expected):
    message = refused(option, choice)
    assert message.startswith(f"argument {option}: invalid choice: '{choice}' (choose from ")
    assert all(name in message for name in expected)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--nonsense", "unknown option --nonsense: "),
        ("--nonsense 3 --other=4", "unknown options --nonsense 3 --other=4: "),
        ("--seed 1 file.grib", "unknown option file.grib: "),
        ("--var mini", "unknown options --var mini: "),
        ("--member 3", "unknown options --member 3: "),
        ("--num-ensemble-member 3", "unknown options --num-ensemble-member 3: "),
        ("--Seed 3", "unknown options --Seed 3: "),
        ("--help", "unknown option --help: "),
    ],
)
def test_an_option_that_there_is_not_is_refused_by_name_also_when_it_abbreviates_one(arguments, named):
    assert refused(*arguments.split()) == (
        f"{named}neither the runner (ai-models --help) nor the plugin (ai-models-mosaic options) knows it"
    )


def test_one_run_leaves_nothing_to_the_next():
    parse_options(["--seed", "5", "--member-number", "3,2", "--variant", "mini"])
    assert parse_options([]) == Options(**DEFAULTS)


@pytest.mark.parametrize("option", ["--cuda-graphs", "--compile"])
def test_what_pytorch_does_with_a_network_is_for_pytorch(option):
    assert refused("--engine", "onnx", "--onnx-model", "m.onnx", option) == (
        f"{option} is for --engine torch, and the engine is onnx; leave it out"
    )
