"""The processes that train together, as torchrun or SLURM started them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from ..errors import OptionError
from ..forecast.ranks import find_launch, process_group


@dataclass(frozen=True)
class Processes:
    """One process among its fellows.

    Parameters
    ----------
    rank, count : int
        Number of this process, from 0, and how many there are.
    device : torch.device
        Its own.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Its samples of a batch.

        Raises
        ------
        OptionError
            If the batch does not divide: shares of other sizes would not weigh alike.
        """
        if batch % self.count:
            raise OptionError(f"expected a batch that {self.count} processes divide, got {batch}")
        each = batch // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over all processes."""
        value = value.detach().clone()
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count
        return value

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the others that ``torchrun`` or ``srun`` started, found as those of a forecast are; alone without.

    Raises
    ------
    OptionError
        If the launcher's variables contradict each other.
    LostRankError
        If the processes do not find each other.
    """
    launch = find_launch()
    device = torch.device("cuda", launch.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group = process_group(launch, "nccl" if device.type == "cuda" else "gloo") if launch.size > 1 else nullcontext()
    with group:
        yield Processes(launch.rank, launch.size, device)
