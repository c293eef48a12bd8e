"""The PyTorch engine, on a CUDA GPU or the CPU."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..arrays import Float32Array
from ..checkpoints.files import Assets, DataFile, expected_weights, read_companions
from ..checkpoints.format import Checkpoint, Statistics, build_network, read_checkpoint
from ..checkpoints.integrity import Expected, refuse_other
from ..errors import OptionError
from ..model.attention.choice import AUTO, UnfitBackendError, try_backend
from ..model.attention.tuned import lists_from_tilings, tilings_from_lists
from ..model.network import MosaicNetwork
from ..variants import Variant
from .batching import Halving, compare_memory, histories_that_fit
from .copies import SharedMemory, StreamedCopies
from .cuda import GraphedStep
from .form import choose_form
from .tensor_states import Histories, States, TensorStates
from .warm_up import NOTHING, Ahead

# Large arrays on large pages: of small ones, a full-size step touches two million, each a trap into the kernel.
# PyTorch asks when it makes its first array, not when it is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precision of the matrix products; norms, softmax and residual sums stay in float32."""

ACTIVATION_COPIES = {"float32": 13, "float16": 10, "bfloat16": 10}
"""Fields of the finest stage, in float32, that live at the peak of a step, at most: in float32 10.0 were counted on
the full size and 12.6 on mini, in half precision 10.4 on mini."""

GPU_FACTOR = 0.85
"""What a step in half precision takes of that on a GPU: on an H100, with its batch in two parts and before its kernels
were what they are, it was 0.67 to 0.83."""

CPU_FACTOR = 1.5
"""What a process takes on the CPU over its tensors; measured on the full size, in float32."""


def choose_device(*, only_gpu: bool, local_rank: int = 0, name: str | None = None) -> torch.device:
    """The device that is named, else a CUDA GPU where there is one, else the CPU.

    Parameters
    ----------
    only_gpu : bool
        Refuse the CPU.
    local_rank : int
        Of the processes on this machine, which take its GPUs in turn.
    name : str or None
        ``cpu``, ``cuda`` or ``cuda:1``.

    Returns
    -------
    torch.device
        With an index where the machine has several GPUs.

    Raises
    ------
    OptionError
        If a GPU was demanded and there is none, or there is no such device.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name is not None and not (re.fullmatch(r"cuda(:\d+)?", name) and _has_gpu(int(name[5:] or 0))):
        raise OptionError(
            f"device: expected cpu, or one of the {torch.cuda.device_count()} CUDA GPUs that PyTorch "
            f"{torch.__version__} finds, such as cuda:0, got {name!r}"
        )
    if name is not None:
        return torch.device(name)
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return torch.device("cuda", local_rank % count) if count > 1 else torch.device("cuda")
    if only_gpu:
        raise OptionError(
            f"--only-gpu: expected a CUDA GPU, found none that PyTorch {torch.__version__} can use; "
            "check nvidia-smi and that this PyTorch was built for CUDA, or leave the option out to run on the CPU"
        )
    return torch.device("cpu")


def _has_gpu(index: int) -> bool:
    return torch.cuda.is_available() and index < torch.cuda.device_count()


def load_engine(
    variant: Variant,
    assets: Assets,
    device: torch.device,
    precision: str,
    backend: str = AUTO,
    *,
    graphs: bool = False,
    compiled: bool = False,
    ahead: Ahead = NOTHING,
) -> TorchEngine:
    """The engine of a variant, with the weights as they are in their file now.

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
    graphs : bool
        Record the step as CUDA graphs, on a GPU.
    compiled : bool
        Compile the blocks at the first step.
    ahead : Ahead
        What was begun before.

    Returns
    -------
    TorchEngine
        With its weights on the device, in `precision`.

    Raises
    ------
    CheckpointError
        If a file is unsafe, incomplete or of another variant.
    OptionError
        If the attention backend is unfit for device or precision, or graphs are asked for on the CPU.
    """
    if graphs and device.type != "cuda":
        raise OptionError("--cuda-graphs: expected an NVIDIA GPU, and the forecast runs on the CPU; leave it out")
    kernels = ahead.kernels
    if kernels is None:
        form = choose_form(backend, variant.architecture, device, PRECISIONS[precision])
    else:
        form = kernels.form()
    checkpoint = read_checkpoint(assets.checkpoint, ahead.weights)
    companions = read_companions(variant, assets, checkpoint)
    network = build_network(variant.architecture, checkpoint, companions.static_fields)
    form.use_in(network)
    engine = TorchEngine(
        network,
        companions.statistics,
        device,
        precision,
        checkpoint=checkpoint.path,
        digest=_checked_digest(checkpoint, expected_weights(variant, assets)),
        data=companions.files,
        untrained=checkpoint.untrained,
        graphs=graphs,
        compiled=compiled,
    )
    if kernels is not None:
        kernels.wait()
    return engine


def _checked_digest(checkpoint: Checkpoint, wanted: Expected | None) -> Callable[[], str]:
    """What gives the digest of the weights in use, or refuses them: their file may be another since it was checked."""

    def digest() -> str:
        found = checkpoint.sha256
        refuse_other(checkpoint.path, wanted, found)
        return found

    return digest


class TorchEngine:
    """Steps by the network: on the device, and from and to physical units.

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
    digest : callable or None
        Gives the SHA-256 of that file.
    data : tuple of DataFile
        The other files that were read.
    untrained : bool
        The weights are random and say so.
    graphs : bool
        Record the step as CUDA graphs, on a GPU.
    compiled : bool
        Compile the blocks at the first step.
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
        digest: Callable[[], str] | None = None,
        data: tuple[DataFile, ...] = (),
        untrained: bool = False,
        graphs: bool = False,
        compiled: bool = False,
    ) -> None:
        self.network = network.to(device)
        self.network.prepare(PRECISIONS[precision])
        self._compiled = compiled
        if compiled:
            self.network.compile_blocks()
        self.checkpoint = checkpoint
        self.data = data
        self.untrained = untrained
        self.device = device
        self.precision = precision
        self._mean, self._std = (
            torch.from_numpy(values).float().to(device) for values in (statistics.mean, statistics.std)
        )
        self.climate = statistics.mean, statistics.std
        self._digest = digest
        self._known = self._compared = False
        self._graphs = graphs and device.type == "cuda"
        self._graphed = GraphedStep(self._copied) if self._graphs else None
        self.halving = Halving(torch.cuda.OutOfMemoryError, torch.cuda.empty_cache)

    @property
    def noise_width(self) -> int:
        """Width of ε."""
        return self.network.architecture.noise_width

    @property
    def description(self) -> str:
        """Device, precision and attention backend, for people."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f" ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else ""
        # Members' bytes depend on it, so that it is recorded and compared with the rest.
        more = ", kernels between the products" if self.network.passes.by_kernels else ""
        more += ", CUDA graphs" if self._graphs else ""
        more += ", compiled" if self._compiled else ""
        return f"{name}{threads}, {self.precision}, attention backend {self.network.backend}{more}"

    @property
    def tilings(self) -> dict[str, list[int]]:
        """See `LoadedEngine.tilings`."""
        return lists_from_tilings(self.network.tilings)

    def use_tilings(self, tilings: Mapping[str, Sequence[int]]) -> None:
        """See `LoadedEngine.use_tilings`.

        Raises
        ------
        OptionError
            If the kernel does not run here when it is cut so.
        """
        if self.network.backend != "triton" or dict(tilings) == self.tilings:
            return
        try:
            wanted = tilings_from_lists(tilings)
            try_backend("triton", self.network.architecture, self.device, PRECISIONS[self.precision], wanted)
        except (ValueError, UnfitBackendError) as error:
            raise OptionError(f"tiles of attention: {error}") from error
        self.network.use_tilings(wanted)
        if self._graphed is not None:
            self._graphed.forget()

    @property
    def checkpoint_sha256(self) -> str | None:
        """Digest of the file of the weights."""
        return self._digest() if self._digest is not None else None

    def begin(self, histories: Mapping[int, Float32Array]) -> TensorStates:
        """See `engines.Engine.begin`."""
        copies = SharedMemory() if self.device.type == "cpu" else StreamedCopies(self.device)
        return TensorStates(self, histories, copies)

    def step(self, history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        """Advance a batch of members by one step, from and to the memory of the host; see `StepsOnHost.step`.

        Returns
        -------
        float32 array (member, lon, lat, channel)
            Physical units.

        Raises
        ------
        ForecastError
            If the memory of the GPU does not suffice for one member.
        CheckpointError
            If the weights are not what they should be; said before the first step.
        """
        states = self.begin(dict(enumerate(history)))
        return states.advance(range(len(history)), progress, noise)().values.copy()

    @property
    def shares_starts(self) -> bool:
        """See `DeviceStep.shares_starts`: what is recorded takes the same inputs every time."""
        return not self._graphs

    def start(self, states: Histories, clock: Tensor) -> Tensor:
        """See `DeviceStep.start`."""
        return self.network.start((states - self._mean) / self._std, clock)

    def advance(self, states: Histories, clock: Tensor, noise: Tensor, started: Tensor | None = None) -> States:
        """The next states of members that are computed together; all on the device, of physical units.

        Parameters
        ----------
        states : Tensor (member, history, lon, lat, channel)
            Oldest state first; they are used up.
        clock : Tensor (2,)
            Day and year progress of the newest state.
        noise : Tensor (member, noise)
            ε of every member.
        started : Tensor (member, pixel, width) or None
            As `start` gives it, for every member; it is used up.

        Returns
        -------
        Tensor (member, lon, lat, channel)

        Raises
        ------
        CheckpointError
            If the weights are not what they should be; said before the first step.
        """
        if not self._known:
            self._known = self.checkpoint_sha256 is not None or self._digest is None
        if self._graphed is not None:
            made = self._graphed(states, clock, noise)
        else:
            made = self._plain(states, clock, noise, started)
        if self.device.type == "cuda" and not self._compared:
            self._compared = True
            measured = torch.cuda.max_memory_allocated(self.device)
            compare_memory(self.memory_bytes(len(states)), measured, len(states))
        return made

    def room(self, members: int, state_bytes: int, history: int) -> int:
        """See `DeviceStep.room`."""
        step = self.memory_bytes(members) - self._weights_bytes()
        return histories_that_fit(self._free_bytes(), step, history * state_bytes)

    def memory_bytes(self, members: int) -> int:
        """Estimated peak memory of one step of so many members, weights included."""
        stage = self.network.architecture.stages[0]
        factor = GPU_FACTOR if self.precision != "float32" else 1
        if self.device.type == "cpu":
            factor = CPU_FACTOR
        elif self._graphs:
            # A graph keeps to itself what the step needs, beside the first that ran without.
            factor *= 2
        copies = ACTIVATION_COPIES[self.precision] * factor
        return self._weights_bytes() + int(members * copies * stage.pixels * stage.width * 4)

    def best_batch(self, members: int) -> int:
        """Members per batch where nobody said how many, of so many: always one; see `LoadedEngine.best_batch`."""
        # Several together were no faster on a CPU. On a GPU they were by 4 %, but libraries choose their kernels by the
        # number of rows there, and so a member's bytes would depend on how many there are.
        return 1

    def _plain(self, states: Histories, clock: Tensor, noise: Tensor, started: Tensor | None = None) -> States:
        return self.network(states.sub_(self._mean).div_(self._std), clock, noise, started) * self._std + self._mean

    def _copied(self, states: Histories, clock: Tensor, noise: Tensor) -> States:
        """As `_plain`, for states that are used again."""
        return self._plain(states.clone(), clock, noise)

    def _free_bytes(self) -> int:
        """What a step may take on the GPU: what nobody has, and what PyTorch holds and does not use."""
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def _weights_bytes(self) -> int:
        held = {tensor.data_ptr(): tensor for tensor in self.network.state_dict().values()}
        return sum(tensor.numel() * tensor.element_size() for tensor in held.values())
