"""Where ONNX Runtime is to run a graph, as options and engines say it without the engine itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Provider:
    """Where a user wants the graph to run.

    Parameters
    ----------
    name : str or None
        Name of an execution provider of ONNX Runtime; None: a GPU where it has a provider for one, else the CPU.
    options : tuple of (str, str)
        Handed to the provider as they are, such as ``device_id``.
    """

    name: str | None = None
    options: tuple[tuple[str, str], ...] = ()


ANYWHERE = Provider()
