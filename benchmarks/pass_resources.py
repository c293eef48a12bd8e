"""Compile the kernels between the products as a step launches them: ``python benchmarks/kernel_resources.py --passes``.

A forward on the device ``meta``, which computes nothing, says what is launched with which types and constants.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ai_models_mosaic.model import layers
from ai_models_mosaic.model.fused import kernel, launched
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import Variant

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    float: "fp32",
    int: "i32",
}


@dataclass(frozen=True)
class KernelLaunch:
    """One kernel, as it is compiled for a launch.

    Parameters
    ----------
    name : str
        Of the kernel.
    types : tuple of str
        Of its arguments, as Triton writes them.
    aligned : tuple of int
        Those that are multiples of 16, in bytes or as numbers.
    constants : tuple of (str, object)
        And Triton's own options.
    """

    name: str
    types: tuple[str, ...]
    aligned: tuple[int, ...]
    constants: tuple[tuple[str, Any], ...]

    @property
    def cut(self) -> str:
        """How the kernel cuts its work, in words."""
        names = {"ROWS", "COLUMNS", "SIZE", "TARGETS", "AT_ONCE", "OUTPUTS"}
        sizes = {name: value for name, value in self.constants if name in names | {"WIDTH", "HIDDEN", "NORMS"}}
        flags = [name for name, value in self.constants if value is True]
        return ", ".join([f"{name} {value}" for name, value in sizes.items()] + flags).lower().replace("_", " ")


def launches_of(variant: Variant, precision: torch.dtype) -> list[KernelLaunch]:
    """What one step launches, each kind once; the attention is left out."""
    architecture = variant.architecture
    with torch.device("meta"):
        network = MosaicNetwork(architecture).requires_grad_(False)
        state = torch.empty(1, architecture.history, *architecture.grid.shape, architecture.channels)
        progress, noise = torch.empty(2), torch.empty(1, architecture.noise_width)
    network.prepare(precision)
    seen: dict[KernelLaunch, None] = {}

    def record(_: Any, grid: Any, *arguments: Any, name: str, reads: Any, writes: Any, **constants: Any) -> None:
        types = tuple(TYPES[each.dtype if isinstance(each, torch.Tensor) else type(each)] for each in arguments)
        aligned = tuple(
            index
            for index, each in enumerate(arguments)
            if isinstance(each, torch.Tensor) or (isinstance(each, int) and each % 16 == 0)
        )
        seen[KernelLaunch(name, types, aligned, tuple(sorted(constants.items())))] = None

    def unattended(*_: Any, out: torch.Tensor, **__: Any) -> torch.Tensor:
        return out

    attention = patch.object(layers, "block_sparse_attention", unattended)
    with patch.object(launched, "launch", record), attention, torch.inference_mode():
        network(state, progress, noise)
    return list(seen)


def source(launch: KernelLaunch) -> tuple[ASTSource, dict[str, Any]]:
    """What Triton compiles, and with which options."""
    function = getattr(kernel, launch.name)
    fixed = dict(launch.constants)
    options = {name: fixed.pop(name) for name in ("num_warps", "num_stages") if name in fixed}
    names = function.arg_names
    types = dict(zip(names, launch.types, strict=False))
    if "constants" in signature(ASTSource.__init__).parameters:
        # Triton 3.2.
        from triton.backends.compiler import AttrsDescriptor

        properties = {"tt.divisibility": list(launch.aligned), "tt.equal_to": []}
        attributes = AttrsDescriptor.from_dict({"cls": "AttrsDescriptor", "arg_properties": properties})
        return ASTSource(function, types, constants=fixed, attrs=attributes), options
    constants = {(names.index(name),): value for name, value in fixed.items()}
    multiples = {(index,): [["tt.divisibility", 16]] for index in launch.aligned}
    return ASTSource(function, types | dict.fromkeys(fixed, "constexpr"), constants, multiples), options


def compiled(capability: int, launch: KernelLaunch) -> dict[str, Any]:
    """What the kernel takes on a chip."""
    ast, options = source(launch)
    made = triton.compile(ast, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout  # noqa: S603
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", said)}
    return {
        "capability": capability,
        "kernel": launch.name,
        "cut": launch.cut,
        "warps": options["num_warps"],
        "registers": usage["REG"],
        "shared_bytes": made.metadata.shared,
        "spilled_bytes": usage["STACK"] + usage["LOCAL"],
    }


def measure(variant: Variant, capabilities: tuple[int, ...], precisions: tuple[str, ...]) -> list[dict[str, Any]]:
    """All kernels between the products of a variant, by architecture and precision."""
    return [
        compiled(capability, launch) | {"precision": precision}
        for capability in capabilities
        for precision in precisions
        for launch in launches_of(variant, getattr(torch, precision))
    ]


def show(resources: list[dict[str, Any]]) -> None:
    """The table."""
    print("| chip | kernel | precision | compiled for | warps | registers | shared memory | spilled |")
    print("|---|---|---|---|---|---|---|---|")
    for one in resources:
        print(
            f"| sm_{one['capability']} | {one['kernel']} | {one['precision']} | {one['cut']} | {one['warps']} "
            f"| {one['registers']} | {one['shared_bytes'] / 1024:.1f} KiB | {one['spilled_bytes']} B |"
        )
