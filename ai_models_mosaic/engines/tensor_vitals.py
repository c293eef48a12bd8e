"""Vital signs of states that are tensors, where they lie: what `vitals.Probe.measure` does, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arrays import AnyArray, Float32
from .vitals import Probe


class TensorProbe:
    """Measures states on one device.

    Parameters
    ----------
    probe : Probe
        What is measured.
    device : torch.device
        Where the states lie.
    """

    def __init__(self, probe: Probe, device: torch.device) -> None:
        def there(array: AnyArray) -> Tensor:
            return torch.from_numpy(array).to(device)

        self._power_channels, self._mean_channels = there(probe.power_channels), there(probe.mean_channels)
        self._area, self._groups, self._column = there(probe.area), there(probe.groups), there(probe.column)

    def __call__(self, states: Float32[Tensor, "member lon lat channel"]) -> Float32[Tensor, "member number"]:
        """Their vital signs, as `Probe` lays them out; nothing waits for the device."""
        fields = states.index_select(-1, self._power_channels).double()
        squared = torch.fft.rfft(fields, dim=1).abs().square()
        power = torch.einsum("mwlf,l->mfw", squared, self._area) @ self._groups
        zonal = states.index_select(-1, self._mean_channels).mean(dim=1, dtype=torch.float64)
        means = torch.einsum("mlc,l->mc", zonal, self._area) @ self._column
        extremes = [states.amin(dim=(1, 2)), states.amax(dim=(1, 2))]
        return torch.cat([power.flatten(1).float(), means.float(), *extremes], dim=1)
