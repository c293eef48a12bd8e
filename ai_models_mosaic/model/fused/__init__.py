"""What a step does between its matrix products: norms, rotations, gates, interpolations and sums.

`Passes` has each as one call in plain PyTorch, `KernelPasses` the same calls as one launch each of a Triton kernel of
our own. The network holds one of the two: `PLAIN`, until `choice.choose_passes` has found that the kernels work on the
device and give the same numbers.
"""

from __future__ import annotations

from .launched import KERNELS as KERNELS
from .launched import KernelPasses as KernelPasses
from .plain import PLAIN as PLAIN
from .plain import RMS_NORM_EPS as RMS_NORM_EPS
from .plain import Heads as Heads
from .plain import Passes as Passes
from .plain import Summary as Summary
from .plain import Turns as Turns
from .plain import branch_gates as branch_gates
