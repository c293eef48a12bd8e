"""What would go wrong with a forecast on this machine, before it does."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from ..channels import CHANNELS
from ..checkpoints.files import check_assets, locate
from ..engines.threads import best_threads
from ..errors import InputError, MosaicError
from ..forecast.progress import duration
from ..inputs.services import SOURCES, check_reachable, find_account
from ..variants import Variant
from ..wording.numbers import counted
from .surroundings import check_eccodes, check_user

OK, WARNING, FAILURE = "ok", "warning", "FAILURE"

FLOAT32_BYTES = 4

GRIB_MESSAGE_BYTES = 2.0
"""Bytes per value of the output."""

SHARE_OF_PRODUCTS = 0.5
"""Rate of a step over that of a product of large matrices: measured on CPUs were 0.8 at full size, 0.3 of mini."""

PRODUCT_SIZE = 1024
"""Rows and columns of the matrices of that product."""

IDENTITY_MODEL = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a0208014202100d"
)
"""An ONNX model that hands its input on: only a session tells which providers there really are."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    level : str
        `OK`, `WARNING` (a forecast may still run) or `FAILURE`.
    what : str
        What was looked at.
    detail : str
        What was found, and what to do about it.
    """

    level: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.level:8} {self.what}: {self.detail}"


@dataclass(frozen=True)
class IntendedForecast:
    """The forecast that is meant to run.

    Parameters
    ----------
    variant : Variant
        What to run.
    assets : Path
        Folder with its files.
    members : int
        Size of the ensemble.
    steps : int
        Steps to write.
    output : Path
        Folder of the output.
    """

    variant: Variant
    assets: Path
    members: int
    steps: int
    output: Path


def examine(plan: IntendedForecast) -> Iterator[Finding]:
    """Make all checks, the cheap ones first.

    Parameters
    ----------
    plan : IntendedForecast
        The forecast that is meant to run.

    Yields
    ------
    Finding
        One or more per check; a check that breaks is a finding too.
    """
    checks: tuple[Callable[[IntendedForecast], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _user,
        _grib,
        _disk,
        _weights,
        _memory,
        _device,
        _time,
        _backends,
        _onnx,
        _accounts,
    )
    for check in checks:
        try:
            yield from check(plan)
        except MosaicError as error:
            yield Finding(FAILURE, check.__name__.strip("_"), str(error))
        except Exception as error:
            yield Finding(FAILURE, check.__name__.strip("_"), f"the check broke: {type(error).__name__}: {error}")


def _python(_: IntendedForecast) -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield Finding(OK if good else FAILURE, "Python", found if good else f"{found}; expected 3.10, 3.11 or 3.12")


def _packages(_: IntendedForecast) -> Iterator[Finding]:
    """Whether what is installed is what this package asks for."""
    from packaging.requirements import Requirement

    for text in requires("ai-models-mosaic") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Finding(FAILURE, wanted.name, f"not installed; expected {wanted.specifier or 'any version'}")
            continue
        good = wanted.specifier.contains(found, prereleases=True)
        yield Finding(OK if good else FAILURE, wanted.name, found if good else f"{found}; expected {wanted.specifier}")


def _user(_: IntendedForecast) -> Iterator[Finding]:
    check_user()
    yield Finding(OK, "user", getpass.getuser())


def _grib(_: IntendedForecast) -> Iterator[Finding]:
    check_eccodes()
    yield Finding(OK, "GRIB", "ecCodes reads what it writes")


def _disk(plan: IntendedForecast) -> Iterator[Finding]:
    fields = plan.members * (plan.steps + 1) * len(CHANNELS)
    needed = fields * plan.variant.architecture.grid.size * GRIB_MESSAGE_BYTES
    if not os.access(plan.output, os.W_OK):
        yield Finding(FAILURE, "output", f"{plan.output} is not a folder that can be written to")
        return
    free = shutil.disk_usage(plan.output).free
    detail = f"{needed / 1e9:.2g} GB for {fields} fields, {free / 1e9:.3g} GB free in {plan.output}"
    yield Finding(OK if free > needed else FAILURE, "disk", detail)


def _weights(plan: IntendedForecast) -> Iterator[Finding]:
    """Load the weights as a run does."""
    import torch

    from ..engines.torch import load_engine

    assets = locate(plan.variant, plan.assets)
    check_assets(plan.variant, assets, full=True)
    engine = load_engine(plan.variant, assets, torch.device("cpu"), "float32")
    yield Finding(OK, "assets", f"variant {plan.variant.name} from {assets.checkpoint}")
    if engine.untrained:
        yield Finding(WARNING, "weights", "untrained: forecasts made with them mean nothing")


def _memory(plan: IntendedForecast) -> Iterator[Finding]:
    """What memory weights and members take; told by the shapes, so that no weights need be there."""
    from ..engines.torch import ACTIVATION_COPIES, CPU_FACTOR
    from ..model.flops import weight_count

    architecture = plan.variant.architecture
    stage = architecture.stages[0]
    states = plan.members * architecture.history * architecture.grid.size * architecture.channels
    step = CPU_FACTOR * ACTIVATION_COPIES["float32"] * stage.pixels * stage.width
    needed = (states + step + weight_count(architecture)) * FLOAT32_BYTES
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    members = counted(plan.members, "member")
    detail = f"about {needed / 1e9:.2g} GB for {members} on the CPU, {here / 1e9:.3g} GB in this machine"
    yield Finding(OK if needed < here else FAILURE, "memory", detail)


def _time(plan: IntendedForecast) -> Iterator[Finding]:
    """How long the forecast might take, by its operations and the rate of a product of matrices on this machine."""
    from ..model.flops import step_flops

    rate, device = _rate_of_products()
    each = step_flops(plan.variant.architecture).total / (rate * SHARE_OF_PRODUCTS)
    whole = f"{counted(plan.members, 'member')} × {counted(plan.steps, 'step')}"
    detail = (
        f"roughly {duration(each)} per member and step on the {device}, {duration(each * plan.members * plan.steps)}"
    )
    yield Finding(OK, "time", f"{detail} for {whole}, reckoned from {rate / 1e9:.0f} GFLOP/s in products of matrices")


def _rate_of_products() -> tuple[float, str]:
    """Operations per second, and where."""
    import torch

    on_gpu = torch.cuda.is_available()
    kind = {"device": "cuda", "dtype": torch.float16} if on_gpu else {"dtype": torch.float32}
    matrix = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE, **kind)
    taken = []
    for _ in range(4):
        begun = time.perf_counter()
        # Reading a value of it waits until it is there.
        (matrix @ matrix)[0, 0].item()
        taken.append(time.perf_counter() - begun)
    return 2 * PRODUCT_SIZE**3 / min(taken), "GPU" if on_gpu else "CPU"


def _device(plan: IntendedForecast) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        yield Finding(OK, "GPU", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")
    else:
        reason = "this PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch sees none"
        most = torch.get_num_threads()
        threads = counted(best_threads(plan.variant.architecture, most) or most, "thread")
        yield Finding(WARNING, "GPU", f"none ({reason}); forecasts run on the CPU, {threads}")


def _backends(plan: IntendedForecast) -> Iterator[Finding]:
    """Every attention backend that a run might choose against the reference, on this machine's device."""
    import torch

    from ..model.attention import PORTABLE
    from ..model.attention.choice import UnfitBackendError, candidates, try_backend

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    for name in candidates(plan.variant.architecture, device, dtype):
        try:
            found = try_backend(name, plan.variant.architecture, device, dtype)
        except UnfitBackendError as error:
            yield Finding(FAILURE if name in PORTABLE else WARNING, f"attention backend {name}", str(error))
        else:
            detail = f"differs from the reference by {found:.0e} on {device.type}"
            yield Finding(OK, f"attention backend {name}", detail)


def _accounts(_: IntendedForecast) -> Iterator[Finding]:
    """Whether there are accounts to ask the services with, and whether these answer; no key is shown."""
    for source in SOURCES:
        try:
            service = find_account(source)
            check_reachable(service, pauses_s=())
        except InputError as error:
            yield Finding(WARNING, f"account {source}", " ".join(str(error).split()))
        else:
            place, account = service.url or "a local client", service.origin or "no account, as none is needed"
            yield Finding(OK, f"account {source}", f"{place} with {account}")


def _onnx(_: IntendedForecast) -> Iterator[Finding]:
    """Providers of ONNX Runtime in a session: what it says is available need not work."""
    if find_spec("onnxruntime") is None:
        yield Finding(OK, "ONNX Runtime", "not installed, and not needed")
        return
    import onnxruntime

    from ..engines.onnx import CPU, DEVICE_OF_PROVIDER, PREFERRED

    # Others are of no use to a forecast, such as that which asks a service of Azure.
    useful = {*PREFERRED, *DEVICE_OF_PROVIDER, CPU}
    available = [name for name in onnxruntime.get_available_providers() if name in useful]
    session = onnxruntime.InferenceSession(IDENTITY_MODEL, providers=available)
    found, absent = session.get_providers(), sorted(set(available) - set(session.get_providers()))
    detail = f"{onnxruntime.__version__}, a session runs on {', '.join(found)}"
    yield Finding(
        WARNING if absent else OK, "ONNX Runtime", detail + (f", not on {', '.join(absent)}" if absent else "")
    )
