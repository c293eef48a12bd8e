"""How many threads, and how they wait, in processes of our own: by what they may use and how much there is to do.

Threads that spin while they wait for each other take the processor from those that they wait for, where other work, or
a quota, leaves less than one processor for each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from ..model.flops import step_flops
from ..variants import Architecture

LOG = logging.getLogger(__name__)

OPERATIONS_PER_THREAD = 1e9
"""Of a member-step: two threads that wait passively pay with the 2.6e9 of `mini`; with more nothing was measured."""

ASKED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Where a user says how many threads there are to be."""

HOW_TO_WAIT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Where a user says how they wait."""

CGROUPS = Path("/sys/fs/cgroup")


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP sleep while they wait, unless the user says how; of use before it is loaded only.

    Parameters
    ----------
    environment : mutable mapping of str to str
        Of the process.
    """
    if not any(name in environment for name in HOW_TO_WAIT):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def best_threads(
    architecture: Architecture, most: int, environment: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> int | None:
    """The number of threads of the CPU where nobody gave one; None if the environment does.

    Parameters
    ----------
    architecture : Architecture
        Of the network.
    most : int
        As many as the engine would take: one per core that the process may run on.
    environment : mapping of str to str
        Of the process.
    root : Path
        Where the system's files are.

    Returns
    -------
    int or None
        At least 1.
    """
    if any(environment.get(name) for name in ASKED):
        return None
    worth = int(step_flops(architecture).total // OPERATIONS_PER_THREAD)
    # A part of a processor is none: what has less than one to run on keeps the others waiting.
    return int(max(1, min(most, worth, quota(root))))


def cores() -> int:
    """Processors that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = Path("/")) -> float:
    """How many processors' time the control groups of this process leave it, at most; infinity without a limit.

    Parameters
    ----------
    root : Path
        Where the system's files are.

    Returns
    -------
    float
        Above 0.
    """
    return min((limit for folder in _folders(root) if (limit := _limit(folder)) is not None), default=float("inf"))


def _folders(root: Path) -> Iterator[Path]:
    """Where limits may stand: the group of the process and all above it, of both versions of control groups.

    In a container the path is often that of the host, and the group itself is mounted in place of the root.

    Yields
    ------
    Path
        Which may not be there.
    """
    mounted = root / CGROUPS.relative_to("/")
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            tops = [mounted, mounted / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [mounted / controllers, mounted / "cpu"]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for top in tops:
            yield from (top / part for part in (inner, *inner.parents) if ".." not in part.parts)


def _limit(folder: Path) -> float | None:
    """Processors by the limit of one group; None if it has none."""
    try:
        if (folder / "cpu.max").exists():
            allowed, period = (folder / "cpu.max").read_text().split()
        else:
            allowed, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        limit = float(allowed) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        # Also "max" and -1, which are none.
        return None
    return limit if limit > 0 else None
