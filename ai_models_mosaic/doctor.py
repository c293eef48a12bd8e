"""What would go wrong with a forecast on this machine, before it does."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from .assets import check_assets, locate
from .channels import CHANNELS
from .errors import InputError, MosaicError
from .services import SOURCES, find_account
from .variants import Variant

OK, WARNING, FAILURE = "ok", "warning", "FAILURE"

GRIB_MESSAGE_BYTES = 2.0
"""Bytes per value of the output."""

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
class Plan:
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


def examine(plan: Plan) -> Iterator[Finding]:
    """Make all checks, the cheap ones first.

    Parameters
    ----------
    plan : Plan
        The forecast that is meant to run.

    Yields
    ------
    Finding
        One or more per check; a check that breaks is a finding too.
    """
    checks: tuple[Callable[[Plan], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _disk,
        _weights,
        _device,
        _backends,
        _onnx,
        _accounts,
    )
    for check in checks:
        try:
            yield from check(plan)
        except MosaicError as error:
            yield Finding(FAILURE, check.__name__.strip("_"), str(error))


def _python(_: Plan) -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield Finding(OK if good else FAILURE, "Python", found if good else f"{found}; expected 3.10, 3.11 or 3.12")


def _packages(_: Plan) -> Iterator[Finding]:
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


def _disk(plan: Plan) -> Iterator[Finding]:
    fields = plan.members * (plan.steps + 1) * len(CHANNELS)
    needed = fields * plan.variant.architecture.grid.size * GRIB_MESSAGE_BYTES
    if not os.access(plan.output, os.W_OK):
        yield Finding(FAILURE, "output", f"{plan.output} is not a folder that can be written to")
        return
    free = shutil.disk_usage(plan.output).free
    detail = f"{needed / 1e9:.2g} GB for {fields} fields, {free / 1e9:.3g} GB free in {plan.output}"
    yield Finding(OK if free > needed else FAILURE, "disk", detail)


def _weights(plan: Plan) -> Iterator[Finding]:
    """Load the weights as a run does, and see what memory they and the members take."""
    import torch

    from .engines.torch import load_engine

    assets = locate(plan.variant, plan.assets)
    check_assets(plan.variant, assets, full=True)
    engine = load_engine(plan.variant, assets, torch.device("cpu"), "float32")
    yield Finding(OK, "assets", f"variant {plan.variant.name} from {assets.checkpoint}")
    if engine.untrained:
        yield Finding(WARNING, "weights", "untrained: forecasts made with them mean nothing")
    architecture = plan.variant.architecture
    states = plan.members * architecture.history * architecture.grid.size * architecture.channels * 4
    needed, here = engine.memory_bytes(1) + states, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"about {needed / 1e9:.2g} GB for {plan.members} members on the CPU, {here / 1e9:.3g} GB in this machine"
    yield Finding(OK if needed < here else FAILURE, "memory", detail)


def _device(_: Plan) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        yield Finding(OK, "GPU", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")
    else:
        reason = "this PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch sees none"
        yield Finding(WARNING, "GPU", f"none ({reason}); forecasts run on the CPU, {torch.get_num_threads()} threads")


def _backends(plan: Plan) -> Iterator[Finding]:
    """Every attention backend that a run might choose against the reference, on this machine's device."""
    import torch

    from .model.attention import PORTABLE
    from .model.attention_choice import UnfitBackendError, candidates, try_backend

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


def _accounts(_: Plan) -> Iterator[Finding]:
    """Whether there are accounts to ask the services with; neither is a key shown nor a server asked."""
    for source in SOURCES:
        try:
            service = find_account(source)
        except InputError as error:
            yield Finding(WARNING, f"account {source}", " ".join(str(error).split()))
        else:
            place, account = service.url or "a local client", service.origin or "no account, as none is needed"
            yield Finding(OK, f"account {source}", f"{place} with {account}")


def _onnx(_: Plan) -> Iterator[Finding]:
    """Providers of ONNX Runtime in a session: what it says is available need not work."""
    if find_spec("onnxruntime") is None:
        yield Finding(OK, "ONNX Runtime", "not installed, and not needed")
        return
    import onnxruntime

    available = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(IDENTITY_MODEL, providers=available)
    found, absent = session.get_providers(), sorted(set(available) - set(session.get_providers()))
    detail = f"{onnxruntime.__version__}, a session runs on {', '.join(found)}"
    yield Finding(
        WARNING if absent else OK, "ONNX Runtime", detail + (f", not on {', '.join(absent)}" if absent else "")
    )
