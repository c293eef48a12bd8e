"""Names for the types of NumPy arrays, and for shapes in signatures; units are in the docstrings.

``Float32[Tensor, "member pixel width"]`` is a float32 tensor of three dimensions. A name that occurs twice in a
signature is one number there; ``*rows`` are any dimensions, and ``{size}`` is the argument of that name.
One vocabulary serves all: member, history, lon, lat, channel, point (of the grid), pixel (of the mesh), block,
head (query_head where the two differ), neighbour, width, noise.

jaxtyping checks these shapes where it is loaded first, as in the tests. Elsewhere they are notes for whoever reads,
and for type checkers: nothing is imported, and nothing checked.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Float32
    from typing import Annotated as Float64
    from typing import Annotated as Int
    from typing import Annotated as Int64
    from typing import Annotated as Shaped
else:
    from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Shaped

__all__ = [
    "AnyArray",
    "Bool",
    "BoolArray",
    "Float",
    "Float32",
    "Float32Array",
    "Float64",
    "FloatArray",
    "Int",
    "Int64",
    "IntArray",
    "Shaped",
    "TimeArray",
    "WordArray",
]

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]
TimeArray = npt.NDArray[np.datetime64]
AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
WordArray = npt.NDArray[np.uint64]
