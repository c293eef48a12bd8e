"""Compile this project's kernels for GPUs that need not be there: registers, shared memory and spills.

``python benchmarks/kernel_resources.py [--json FILE]`` needs the package triton, whose wheel brings ptxas and
cuobjdump, and must not run under TRITON_INTERPRET.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ai_models_mosaic.model.attention import kernel as attention_kernels
from ai_models_mosaic.model.attention.constants import (
    attend_constants,
    join_constants,
    means_constants,
    select_constants,
)
from ai_models_mosaic.model.attention.tilings import StageShape, default_tiling
from ai_models_mosaic.variants import VARIANTS, Stage, Variant

ARCHITECTURES = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one program may have, by compute capability."""

PRECISIONS = {"float16": "*fp16", "bfloat16": "*bf16"}

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes.

    Parameters
    ----------
    capability : int
        80 for sm_80, …
    stage, kernel, precision : str
        What it was compiled for.
    tiles : str
        How it is cut.
    warps : int
        Of a program.
    registers : int
        Per thread.
    shared_bytes : int
        Per program.
    spilled_bytes : int
        Stack per thread, which is where registers spill to.
    """

    capability: int
    stage: str
    kernel: str
    precision: str
    tiles: str
    warps: int
    registers: int
    shared_bytes: int
    spilled_bytes: int

    @property
    def fits(self) -> bool:
        """No spills, and no more shared memory than there is."""
        return self.spilled_bytes == 0 and self.shared_bytes <= ARCHITECTURES[self.capability]


def source(function: triton.JITFunction, fixed: dict[str, object], types: dict[str, str], aligned: str) -> ASTSource:
    """A kernel with the types of a call; what `aligned` matches is a multiple of 16, bytes or elements."""
    names = function.arg_names
    types = {name: types.get(name, "i32") for name in names} | dict.fromkeys(fixed, "constexpr")
    multiples = [index for index, name in enumerate(names) if re.fullmatch(aligned, name)]
    if "constants" in signature(ASTSource.__init__).parameters:
        # Triton 3.2.
        from triton.backends.compiler import AttrsDescriptor

        properties = {"cls": "AttrsDescriptor", "arg_properties": {"tt.divisibility": multiples, "tt.equal_to": []}}
        types = {name: kind for name, kind in types.items() if kind != "constexpr"}
        return ASTSource(function, types, constants=fixed, attrs=AttrsDescriptor.from_dict(properties))
    constants = {(names.index(name),): value for name, value in fixed.items()}
    return ASTSource(function, types, constants, {(index,): [["tt.divisibility", 16]] for index in multiples})


def compiled(
    capability: int, function: triton.JITFunction, fixed: dict[str, object], types: dict[str, str], aligned: str
) -> tuple[int, int, int]:
    """Registers, bytes of shared memory and spilled bytes."""
    fixed = dict(fixed)
    options = {name: fixed.pop(name) for name in ("num_warps", "num_stages")}
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(source(function, fixed, types, aligned), target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout  # noqa: S603
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", said)}
    return usage["REG"], made.metadata.shared, usage["STACK"] + usage["LOCAL"]


ATTENTION_ALIGNED = r"(query|key|value|out)(_batch|_head|_pixel|_block)?|lists|compressed|local|selected"
"""The heads of a pixel lie end to end, padded to a multiple of 64; gates have strides of their own."""


def attention_of_stage(capability: int, name: str, stage: Stage) -> list[Resources]:
    """The launches of attention."""
    shape = StageShape(stage.local_block, stage.sparse_block, stage.selected_blocks, stage.gqa_ratio, stage.head_width)
    tiles = default_tiling(shape, 2, divmod(capability, 10))
    attend = attend_constants(shape, tiles, exact=False) | {"UPCAST": False}
    select = select_constants(shape.ratio, shape.width, stage.pixels // stage.sparse_block)
    means = means_constants(shape.ratio, shape.width, exact=False)
    floats = dict.fromkeys(("gates", "compressed"), "*fp32") | {"lists": "*i32", "scale_log2": "fp32"}
    streams = ("query", "key", "value", "out")
    cases = [
        (
            "attend",
            precision,
            attend,
            floats | dict.fromkeys(streams, pointer),
            f"{tiles.rows} × {tiles.keys}/{tiles.local_keys}",
        )
        for precision, pointer in PRECISIONS.items()
    ]
    in_float32 = floats | dict.fromkeys(streams, "*fp32")
    cases.append(("select", "float32", select, in_float32, f"{select['ROWS']} × {select['COLUMNS']}"))
    cases.append(("attend_to_means", "float32", means, in_float32, f"{means['ROWS']} × {means['KEYS']}"))
    # Of branches in half precision, that FlashAttention-4 makes.
    joined = floats | dict.fromkeys(("local", "selected", "out"), PRECISIONS["float16"])
    join = join_constants(shape.sparse, shape.width)
    cases.append(("join", "float16", join, joined, str(join["ROWS"])))
    return [
        Resources(
            capability,
            name,
            kernel,
            precision,
            cut,
            fixed["num_warps"],
            *compiled(capability, getattr(attention_kernels, kernel), fixed, types, ATTENTION_ALIGNED),
        )
        for kernel, precision, fixed, types, cut in cases
    ]


def measure(variant: Variant) -> list[Resources]:
    """All kernels that a variant runs, by architecture."""
    stages = (*variant.architecture.stages, variant.architecture.bottleneck)
    return [
        one
        for capability in ARCHITECTURES
        for number, stage in enumerate(stages)
        for one in attention_of_stage(capability, f"{variant.name} {number}", stage)
    ]


def passes(variant: Variant, precisions: tuple[str, ...], raw: Path | None) -> int:
    """The same of the kernels between the products."""
    import pass_resources

    resources = pass_resources.measure(variant, tuple(ARCHITECTURES), precisions)
    pass_resources.show(resources)
    if raw is not None:
        raw.write_text(json.dumps(resources, indent=1) + "\n")
    room = [one["shared_bytes"] <= ARCHITECTURES[one["capability"]] for one in resources]
    return int(not all(room) or any(one["spilled_bytes"] for one in resources))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=VARIANTS, default="era5")
    parser.add_argument("--json", type=Path, help="where raw figures go")
    parser.add_argument("--passes", action="store_true", help="the kernels between the products, not the attention's")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the passes alone; all of them if not given")
    options = parser.parse_args()
    if options.passes:
        precisions = (options.precision,) if options.precision else tuple(PRECISIONS)
        return passes(VARIANTS[options.variant], precisions, options.json)
    found = measure(VARIANTS[options.variant])
    print("| chip | stage | kernel | precision | tiles | warps | registers | shared memory | spilled |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one in found:
        print(
            f"| sm_{one.capability} | {one.stage} | {one.kernel} | {one.precision} | {one.tiles} "
            f"| {one.warps} | {one.registers} | {one.shared_bytes / 1024:.0f} KiB | {one.spilled_bytes} B |"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return int(not all(one.fits for one in found))


if __name__ == "__main__":
    sys.exit(main())
