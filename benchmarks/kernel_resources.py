"""Compile the attention kernel for GPUs that need not be there: registers, shared memory and spills.

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
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ai_models_mosaic.model.attention.kernel import attend_to_lists
from ai_models_mosaic.model.attention.triton import constants
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
    stage, branch, precision : str
        What it was compiled for.
    rows, keys, warps : int
        Its tiling.
    registers : int
        Per thread.
    shared_bytes : int
        Per program.
    spilled_bytes : int
        Stack per thread, which is where registers spill to.
    """

    capability: int
    stage: str
    branch: str
    precision: str
    rows: int
    keys: int
    warps: int
    registers: int
    shared_bytes: int
    spilled_bytes: int

    @property
    def fits(self) -> bool:
        """No spills, and no more shared memory than there is."""
        return self.spilled_bytes == 0 and self.shared_bytes <= ARCHITECTURES[self.capability]


def source(fixed: dict[str, object], precision: str) -> ASTSource:
    """The kernel with the types of a call, strides being multiples of 16 elements."""
    names = attend_to_lists.arg_names
    pointers = dict.fromkeys(("query", "key", "value"), PRECISIONS[precision]) | {"lists": "*i32"}
    pointers |= dict.fromkeys(("gate", "compressed", "compressed_gate", "out"), "*fp32")
    types = {name: pointers.get(name, "fp32" if name == "scale_log2" else "i32") for name in names}
    types |= dict.fromkeys(fixed, "constexpr")
    aligned = [name for name in names if re.fullmatch(r"(query|key|value|out)(_\w+)?|lists|compressed", name)]
    return ASTSource(
        fn=attend_to_lists,
        signature=types,
        constexprs={(names.index(name),): value for name, value in fixed.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )


def compiled(capability: int, fixed: dict[str, object], precision: str) -> tuple[int, int, int]:
    """Registers, bytes of shared memory and spilled bytes."""
    fixed = dict(fixed)
    options = {name: fixed.pop(name) for name in ("num_warps", "num_stages")}
    made = triton.compile(
        source(fixed | {"UPCAST": False}, precision), target=GPUTarget("cuda", capability, 32), options=options
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout  # noqa: S603
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", said)}
    return usage["REG"], made.metadata.shared, usage["STACK"] + usage["LOCAL"]


def of_stage(capability: int, name: str, stage: Stage, precision: str, *, listed: bool) -> Resources:
    size = stage.sparse_block if listed else stage.local_block
    fixed = constants(size, stage.gqa_ratio, stage.head_width, 2, listed=listed)
    registers, shared, spilled = compiled(capability, fixed, precision)
    branch = "selected" if listed else "local"
    tiling = (fixed["ROWS"], fixed["KEYS"], fixed["num_warps"])
    return Resources(capability, name, branch, precision, *tiling, registers, shared, spilled)


def measure(variant: Variant) -> list[Resources]:
    """All kernels that a variant runs, by architecture."""
    stages = (*variant.architecture.stages, variant.architecture.bottleneck)
    return [
        of_stage(capability, f"{variant.name} {number}", stage, precision, listed=listed)
        for capability in ARCHITECTURES
        for number, stage in enumerate(stages)
        for listed in (False, True)
        for precision in PRECISIONS
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
    print("| chip | stage | branch | precision | rows × keys | warps | registers | shared memory | spilled |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one in found:
        print(
            f"| sm_{one.capability} | {one.stage} | {one.branch} | {one.precision} | {one.rows} × {one.keys} "
            f"| {one.warps} | {one.registers} | {one.shared_bytes / 1024:.0f} KiB | {one.spilled_bytes} B |"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return int(not all(one.fits for one in found))


if __name__ == "__main__":
    sys.exit(main())
