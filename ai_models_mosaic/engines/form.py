"""How a network computes on a device: what was tried there, and is used for a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import OptionError
from ..model.attention.choice import UnfitBackendError, choose_backend, choose_tilings
from ..model.attention.tilings import Tiling
from ..model.fused import Passes
from ..model.fused.choice import choose_passes
from ..model.network import MosaicNetwork
from ..variants import Architecture


@dataclass(frozen=True)
class Form:
    """One of the ways in which a network can compute; see the table of `model`.

    Parameters
    ----------
    backend : str
        Of the attention.
    passes : Passes
        What is done between the products.
    tilings : mapping of str to Tiling or None
        How the kernel of the attention cuts its work; None of another backend.
    """

    backend: str
    passes: Passes
    tilings: Mapping[str, Tiling] | None = None

    def use_in(self, network: MosaicNetwork) -> None:
        """Have a network compute so; before it is prepared."""
        network.use_backend(self.backend)
        network.use_passes(self.passes)
        if self.tilings is not None:
            network.use_tilings(self.tilings)


def choose_form(asked: str, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> Form:
    """The best form that works on a device.

    Parameters
    ----------
    asked : str
        The attention backend, a name in `attention.choice.NAMES`.
    architecture : Architecture
        What is to run.
    device : torch.device
        Where.
    dtype : torch.dtype
        Of its products.

    Returns
    -------
    Form
        Tried on the device.

    Raises
    ------
    OptionError
        If the attention backend is unfit for device or precision.
    """
    try:
        backend = choose_backend(asked, architecture, device, dtype)
    except UnfitBackendError as error:
        raise OptionError(f"--attention-backend: {error}; give auto or sdpa, or leave the option out") from error
    tilings = choose_tilings(architecture, device, dtype) if backend == "triton" else None
    return Form(backend, choose_passes(architecture, device, dtype), tilings)
