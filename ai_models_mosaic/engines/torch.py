"""The PyTorch engine, on a CUDA GPU or the CPU."""

from __future__ import annotations

from pathlib import Path

import torch

from ..arrays import Float32Array
from ..assets import Assets, read_static_fields, read_statistics
from ..checkpoint import Statistics, build_network, read_checkpoint
from ..errors import OptionError
from ..model.attention_choice import AUTO, UnfitBackendError, choose_backend
from ..model.network import MosaicNetwork
from ..variants import Variant

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precision of the matrix products; norms, softmax and residual sums stay in float32."""

ACTIVATION_COPIES = 20
"""Fields of the finest stage alive at the peak of a step; measured on the full size, in float32."""


def choose_device(*, only_gpu: bool, local_rank: int = 0) -> torch.device:
    """A CUDA GPU where there is one, else the CPU.

    Parameters
    ----------
    only_gpu : bool
        Refuse the CPU.
    local_rank : int
        Of the processes on this machine, which take its GPUs in turn.

    Raises
    ------
    OptionError
        If a GPU was demanded and there is none.
    """
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return torch.device("cuda", local_rank % count) if count > 1 else torch.device("cuda")
    if only_gpu:
        raise OptionError(
            f"--only-gpu: expected a CUDA GPU, found none that PyTorch {torch.__version__} can use; "
            "check nvidia-smi and that this PyTorch was built for CUDA, or leave the option out to run on the CPU"
        )
    return torch.device("cpu")


def load_engine(
    variant: Variant, assets: Assets, device: torch.device, precision: str, backend: str = AUTO
) -> TorchEngine:
    """The engine of a variant, with the weights mapped from their file.

    Parameters
    ----------
    variant : Variant
        What to run.
    assets : Assets
        Its files.
    device : torch.device
        Where to run.
    precision : str
        A name in `PRECISIONS`.
    backend : str
        A name in `attention_choice.NAMES`.

    Raises
    ------
    CheckpointError
        If a file is unsafe, incomplete or of another variant.
    OptionError
        If the attention backend is unfit for device or precision.
    """
    try:
        backend = choose_backend(backend, variant.architecture, device, PRECISIONS[precision])
    except UnfitBackendError as error:
        raise OptionError(f"--attention-backend: {error}; give auto or sdpa, or leave the option out") from error
    checkpoint = read_checkpoint(assets.checkpoint)
    statistics = read_statistics(variant, assets, checkpoint)
    network = build_network(variant.architecture, checkpoint, read_static_fields(variant, assets, checkpoint))
    network.use_backend(backend)
    return TorchEngine(
        network, statistics, device, precision, checkpoint=checkpoint.path, untrained=checkpoint.untrained
    )


class TorchEngine:
    """One step of normalised states by the network.

    Parameters
    ----------
    network : MosaicNetwork
        With its weights.
    statistics : Statistics
        Normalisation per channel.
    device : torch.device
        Where to run.
    precision : str
        A name in `PRECISIONS`.
    checkpoint : Path or None
        Where the weights came from.
    untrained : bool
        The weights are random and say so.
    """

    origin = None

    def __init__(
        self,
        network: MosaicNetwork,
        statistics: Statistics,
        device: torch.device,
        precision: str = "float32",
        *,
        checkpoint: Path | None = None,
        untrained: bool = False,
    ) -> None:
        self.network = network.to(device)
        self.checkpoint = checkpoint
        self.untrained = untrained
        self.device = device
        self.precision = precision
        self._mean, self._std = (
            torch.from_numpy(values).float().to(device) for values in (statistics.mean, statistics.std)
        )

    @property
    def noise_width(self) -> int:
        """Width of ε."""
        return self.network.architecture.noise_width

    @property
    def description(self) -> str:
        """Device, precision and attention backend, for people."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f" ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else ""
        return f"{name}{threads}, {self.precision}, attention backend {self.network.backend}"

    def step(self, history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        """Advance a batch of members by one step; see `Engine.step`."""
        half = self.precision != "float32"
        with torch.inference_mode(), torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=half):
            states = torch.from_numpy(history).to(self.device)
            predicted = self.network(
                (states - self._mean) / self._std,
                torch.tensor(progress, dtype=torch.float32, device=self.device),
                torch.from_numpy(noise).to(self.device),
            )
            return (predicted * self._std + self._mean).cpu().numpy()

    def memory_bytes(self, members: int) -> int:
        """Estimated peak memory of one step of so many members, weights included."""
        stage = self.network.architecture.stages[0]
        held = {tensor.data_ptr(): tensor for tensor in self.network.state_dict().values()}
        weights = sum(tensor.numel() * tensor.element_size() for tensor in held.values())
        return weights + members * ACTIVATION_COPIES * stage.pixels * stage.width * 4
