"""The processes of one run, as torchrun or SLURM launched them, and what they say to each other.

Members are shared out over the ranks; all that they make goes to rank 0, which alone reads the
input, writes the output and keeps the state. Fields are in host memory, so the messages go by
gloo, whatever the device.
"""

from __future__ import annotations

import os
import pickle
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import numpy as np

from ..arrays import Float32Array
from ..errors import LostRankError, MosaicError, OptionError

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another that is silent, but there."""

PORTS = range(20_000, 30_000)
"""Where rank 0 listens in a SLURM job that says nothing else; one per job."""


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is.

    Parameters
    ----------
    rank, size : int
        Of the whole run.
    local_rank : int
        On this machine: chooses the GPU.
    address : str
        Host of rank 0.
    port : int
        Where it listens.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """What torchrun, or SLURM's ``srun``, says of this process; one process alone if neither does.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Raises
    ------
    OptionError
        If they contradict each other, or do not name the host of rank 0.
    """
    if "TORCHELASTIC_RUN_ID" in environment or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
        address = environment.get("MASTER_ADDR", "")
    # Not SLURM_NTASKS: the script of a batch job has it too, and runs once.
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "MASTER_PORT")
        address = environment.get("MASTER_ADDR") or _first_host(environment.get("SLURM_STEP_NODELIST", ""))
        job = int(environment.get("SLURM_JOB_ID", "0"))
        environment = {"MASTER_PORT": str(PORTS[job % len(PORTS)]), **environment}
    else:
        return Launch()
    try:
        rank, size, local_rank, port = (
            int(environment.get(name, "0" if name == "LOCAL_RANK" else "")) for name in names
        )
    except ValueError:
        given = ", ".join(f"{name}={environment.get(name)}" for name in names)
        raise OptionError(f"expected numbers from the launcher of several processes, got {given}") from None
    if not 0 <= rank < size or not address:
        raise OptionError(
            f"expected a rank below the number of processes, and the host of rank 0, from the launcher; "
            f"got rank {rank} of {size} at {address or 'no host'} (MASTER_ADDR names it)"
        )
    return Launch(rank, size, local_rank, address, port)


def _first_host(nodes: str) -> str:
    """The first of SLURM's ``node[01-04,07],other``."""
    match = re.match(r"([^\[,]*)(?:\[(\w+))?([^,\[\]]*)", nodes)
    if match and not match[2]:
        return match[1]
    try:
        asked = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)  # noqa: S603, S607
        return asked.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"{match[1]}{match[2]}" if match else ""


class Ranks(Protocol):
    """What a run needs of its processes."""

    @property
    def rank(self) -> int:
        """Which of them: from 0."""

    @property
    def size(self) -> int:
        """All of them."""

    def share(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank; what it raises, too, if that is a `MosaicError`."""

    def agree(self, error: MosaicError | None, *, stop: bool = False) -> bool:
        """Wait for all; raise the first error of any rank on every one; whether any wants to stop."""

    def send(self, values: Float32Array | None, to: int) -> None:
        """Hand an array to another rank; None says that there is none."""

    def receive(self, source: int, shape: tuple[int, ...]) -> Float32Array | None:
        """Take an array of a known shape from another rank."""


class SingleRank:
    """One process."""

    rank, size = 0, 1

    def share(self, make: Callable[[], T]) -> T:
        """What it makes."""
        return make()

    def agree(self, error: MosaicError | None, *, stop: bool = False) -> bool:
        """Raise its error, if it has one."""
        if error is not None:
            raise error
        return stop

    def send(self, values: Float32Array | None, to: int) -> None:
        """Nobody to send to."""
        raise ValueError(f"expected no messages from a process alone, got one for rank {to}")

    def receive(self, source: int, shape: tuple[int, ...]) -> Float32Array | None:
        """Nobody to receive from."""
        raise ValueError(f"expected no messages to a process alone, got one of rank {source} for {shape}")


class ConnectedRanks:
    """Processes connected by torch.distributed.

    Parameters
    ----------
    launch : Launch
        Which of them this is.
    """

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size = launch.rank, launch.size

    def share(self, make: Callable[[], T]) -> T:
        """See `Ranks.share`.

        Raises
        ------
        MosaicError
            What rank 0 raised.
        """
        import torch.distributed as dist

        box: list[tuple[T | None, MosaicError | None]] = [(None, None)]
        if self.rank == 0:
            try:
                box = [(make(), None)]
            except MosaicError as error:
                box = [(None, error)]
        with self._lost("rank 0"):
            dist.broadcast_object_list(box, src=0)
        made, failure = box[0]
        if failure is not None:
            raise failure
        return made  # type: ignore[return-value]

    def agree(self, error: MosaicError | None, *, stop: bool = False) -> bool:
        """See `Ranks.agree`.

        Raises
        ------
        MosaicError
            That of the first rank that has one.
        """
        import torch.distributed as dist

        mine = error if error is None or _travels(error) else MosaicError(str(error))
        said: list[tuple[MosaicError | None, bool]] = [(None, False)] * self.size
        with self._lost("one of the others"):
            dist.all_gather_object(said, (mine, stop))
        for found, _ in said:
            if found is not None:
                raise found
        return any(stopping for _, stopping in said)

    def send(self, values: Float32Array | None, to: int) -> None:
        """See `Ranks.send`."""
        import torch
        import torch.distributed as dist

        with self._lost(f"rank {to}"):
            dist.send(torch.tensor([values is not None]), to)
            if values is not None:
                # A copy where the array is read-only, which torch warns of.
                dist.send(torch.from_numpy(np.array(values, order="C", copy=not values.flags.writeable)), to)

    def receive(self, source: int, shape: tuple[int, ...]) -> Float32Array | None:
        """See `Ranks.receive`."""
        import torch
        import torch.distributed as dist

        there = torch.zeros(1, dtype=torch.bool)
        values = np.empty(shape, dtype=np.float32)
        with self._lost(f"rank {source}"):
            dist.recv(there, source)
            if there.item():
                dist.recv(torch.from_numpy(values), source)
        return values if there.item() else None

    @contextmanager
    def _lost(self, who: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise LostRankError(
                f"rank {self.rank} of {self.size} lost touch with {who}, which may have died: see its own messages. "
                f"What was complete is kept: run again with --resume, on any number of processes ({reason})"
            ) from error


def on_every_rank(ranks: Ranks, make: Callable[[], T]) -> T:
    """What every rank makes for itself, once all of them have.

    Raises
    ------
    MosaicError
        That of the first rank that fails, on all of them.
    """
    made: list[T] = []
    failure = None
    try:
        made.append(make())
    except MosaicError as error:
        failure = error
    ranks.agree(failure)
    return made[0]


@contextmanager
def connected(launch: Launch) -> Iterator[Ranks]:
    """The processes of this run, once all of them are there.

    Parameters
    ----------
    launch : Launch
        As `find_launch` gives it.

    Raises
    ------
    LostRankError
        If they do not find each other.
    """
    if launch.size == 1:
        yield SingleRank()
        return
    with process_group(launch, "gloo"):
        yield ConnectedRanks(launch)


@contextmanager
def process_group(launch: Launch, backend: str) -> Iterator[None]:
    """The default group of ``torch.distributed``, joined by all processes of a launch and left at the end.

    Parameters
    ----------
    launch : Launch
        As `find_launch` gives it; of more than one process.
    backend : str
        ``gloo`` or ``nccl``.

    Raises
    ------
    LostRankError
        If they do not find each other.
    """
    import torch.distributed as dist

    try:
        dist.init_process_group(
            backend,
            init_method="env://" if "TORCHELASTIC_RUN_ID" in os.environ else f"tcp://{launch.address}:{launch.port}",
            rank=launch.rank,
            world_size=launch.size,
            timeout=PATIENCE,
        )
    except RuntimeError as error:
        raise LostRankError(
            f"rank {launch.rank} of {launch.size} did not find the others by way of "
            f"{launch.address}:{launch.port}: {error}"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _travels(error: MosaicError) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return False
    return True
