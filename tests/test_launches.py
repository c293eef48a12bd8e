"""Counting of kernels that no GPU is there for."""

from __future__ import annotations

import torch

from ai_models_mosaic.model.launches import Launch, counting, launch


class Kernel:
    """Stands where a Triton kernel does: takes a grid in brackets, then its arguments."""

    __name__ = "copy"

    def __getitem__(self, grid):
        """What a launch with this grid calls."""
        return lambda source, target, **_: target.copy_(source)


def copied(source):
    """A tensor copied by the kernel."""
    target = torch.empty_like(source)
    launch(Kernel(), (1,), source, target, reads=(source,), writes=(target, 4), operations=7.0, num_warps=4)
    return target


def test_a_launch_on_meta_is_counted_and_not_made():
    with counting() as launches:
        copied(torch.empty(3, dtype=torch.float16, device="meta"))
    assert launches == [Launch("copy", 6, 10, 7.0)]


def test_a_launch_runs_and_is_counted_only_within():
    source = torch.arange(3.0)
    with counting() as launches:
        assert torch.equal(copied(source), source)
    copied(source)
    assert launches == [Launch("copy", 12, 16, 7.0)]
