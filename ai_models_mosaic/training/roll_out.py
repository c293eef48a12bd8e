"""Several steps of the network, for training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from ..model.network import MosaicNetwork


class RollOut(nn.Module):
    """Several steps of the network, with gradients through the last of them.

    Parameters
    ----------
    network : MosaicNetwork
        Makes a step.
    precision : torch.dtype
        Of its matrix products.
    recompute : bool
        Compute activations a second time instead of keeping those of all steps.
    """

    def __init__(self, network: MosaicNetwork, precision: torch.dtype, *, recompute: bool = True) -> None:
        super().__init__()
        self.network = network
        self.precision = precision
        self.recompute = recompute

    def forward(self, states: Tensor, progress: Tensor, noise: Tensor, free: int = 0) -> Tensor:
        """Every next state after the free ones.

        Parameters
        ----------
        states : Tensor (batch, history, lon, lat, channel)
            Normalised, oldest first.
        progress : Tensor (step, batch, 2)
            As `MosaicNetwork.forward` takes them.
        noise : Tensor (step, batch, noise)
            ε of every step.
        free : int
            Steps at the start that gradients do not go through.

        Returns
        -------
        Tensor (step - free, batch, lon, lat, channel)
        """
        predictions = []
        again = self.recompute and len(noise) - free > 1
        for step, (clock, drawn) in enumerate(zip(progress, noise, strict=True)):
            predicted = self._step(states, clock, drawn, again=again and step >= free)
            if step < free:
                # Not without gradients from the start: that would be other code, to be compiled for itself.
                predicted = predicted.detach()
            else:
                predictions.append(predicted)
            states = torch.cat([states[:, 1:], predicted[:, None]], dim=1)
        return torch.stack(predictions)

    def _step(self, states: Tensor, progress: Tensor, noise: Tensor, *, again: bool) -> Tensor:
        with torch.autocast(states.device.type, self.precision, enabled=self.precision != torch.float32):
            if again:
                return recompute(self.network, states, progress, noise, use_reentrant=False)
            return self.network(states, progress, noise)
