"""Watches what torch computes, so that tests can prove what is never held in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Records the shape of every tensor that an operation returns, and the new bytes behind it.

    Views add no bytes, nor do tensors of the meta device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.new_bytes = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        known = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.shapes.append(tuple(leaf.shape))
                if not leaf.is_meta and _storage(leaf) not in known:
                    self.new_bytes += leaf.untyped_storage().nbytes()
        return made

    @property
    def largest(self) -> int:
        """Elements of the largest tensor."""
        return max(torch.Size(shape).numel() for shape in self.shapes)


def _storage(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_meta else tensor.untyped_storage().data_ptr()
