"""The ONNX Runtime engine: a step by an exported graph, without PyTorch.

The file says by itself what it is: its `GraphDescription` is read from its metadata, which `onnx_export` wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Float32Array
from ..checkpoints.files import DataFile
from ..checkpoints.held_file import held_bytes
from ..checkpoints.integrity import digest_of_bytes
from ..errors import CheckpointError, ForecastError, OptionError
from ..variants import Variant
from ..wording.excerpts import first_line
from .onnx_data import MOST_GRAPH_BYTES, ExternalData, read_external_data
from .onnx_description import INPUTS, OUTPUT, GraphDescription
from .providers import ANYWHERE, Provider
from .states import StepsOnHost

LOG = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
PREFERRED = ("CUDAExecutionProvider", "ROCMExecutionProvider", "MIGraphXExecutionProvider", "DmlExecutionProvider")
"""Providers of a GPU, in the order in which they are chosen where ONNX Runtime was built with several."""

DEVICE_OF_PROVIDER = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
"""Where arrays are bound; all other providers take and give those of the CPU."""

ACTIVATION_COPIES = 14
"""Fields of the finest stage that a step takes at its peak, per member: 14 at full size on the CPU."""

INSTALL = "pip install 'ai-models-mosaic[onnx]' (or onnxruntime-gpu in place of onnxruntime, for NVIDIA GPUs)"


def check_installed() -> None:
    """Say what to install where ONNX Runtime is absent.

    Raises
    ------
    OptionError
        If it is.
    """
    if find_spec("onnxruntime") is None:
        raise OptionError(f"--engine onnx needs ONNX Runtime, which is not installed: {INSTALL}, or leave it out")


def load_engine(
    variant: Variant,
    path: Path,
    *,
    provider: Provider = ANYWHERE,
    only_gpu: bool = False,
    threads: int | None = None,
    deterministic: bool = False,
    precision: str = "auto",
) -> OnnxEngine:
    """The engine of an exported graph.

    Parameters
    ----------
    variant : Variant
        What to run.
    path : Path
        The ``.onnx`` file; its external data lie beside it.
    provider : Provider
        Where to run.
    only_gpu : bool
        Refuse the CPU, also as what a GPU's provider falls back to.
    threads : int or None
        Of the CPU; None leaves the choice to ONNX Runtime.
    deterministic : bool
        Ask for deterministic kernels.
    precision : str
        ``auto``, or what the file must be in.

    Returns
    -------
    OnnxEngine
        With an open session.

    Raises
    ------
    OptionError
        If ONNX Runtime or the provider is absent, or the file of another variant or precision.
    CheckpointError
        If the file is absent, damaged, or not an export of this package.
    """
    check_installed()
    if not path.is_file():
        raise CheckpointError(f"--onnx-model {path}: there is no such file; ai-models-mosaic export-onnx makes one")
    engine = OnnxEngine(path, provider, only_gpu=only_gpu, threads=threads, deterministic=deterministic)
    engine.card.check(path, variant)
    engine.refuse_other_shapes()
    if precision not in ("auto", engine.card.precision):
        raise OptionError(
            f"--precision {precision}: {path} was exported in {engine.card.precision}; leave the option out, or export "
            "again with it"
        )
    return engine


class OnnxEngine(StepsOnHost):
    """One step of physical states by ONNX Runtime.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.
    provider : Provider
        Where to run.
    only_gpu, threads, deterministic
        As in `load_engine`.

    Raises
    ------
    OptionError
        If the provider is absent, or is not what the session runs on.
    CheckpointError
        If the file is damaged, or not an export of this package.
    """

    def __init__(
        self,
        path: Path,
        provider: Provider = ANYWHERE,
        *,
        only_gpu: bool = False,
        threads: int | None = None,
        deterministic: bool = False,
    ) -> None:
        wanted = choose_provider(provider, only_gpu=only_gpu)
        self.checkpoint = path
        self._threads = threads
        settings = _settings(threads, deterministic=deterministic)
        # What is hashed is what runs, whatever becomes of the files afterwards.
        graph = held_bytes(path, MOST_GRAPH_BYTES)
        self._digest = digest_of_bytes(graph)
        # Beside the session, which computes with the external data where they lie.
        self._session, self._external = _open(path, graph, wanted, dict(provider.options), settings)
        self._size = len(graph) + self._external.size
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        _check_provider(wanted, self.providers, asked=provider.name is not None, only_gpu=only_gpu)
        self.card = GraphDescription.from_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        self._device = DEVICE_OF_PROVIDER.get(self.providers[0], "cpu")
        options = self._session.get_provider_options().get(self.providers[0], {})
        self._device_id = int(options.get("device_id", 0)) if self._device != "cpu" else 0

    def refuse_other_shapes(self) -> None:
        """Refuse a graph that takes or gives other arrays than its metadata say.

        Raises
        ------
        CheckpointError
            If it does.
        """
        card = self.card
        grid, states = (len(card.longitude_deg), len(card.latitude_deg)), (INPUTS[0], OUTPUT)
        wanted = {
            INPUTS[0]: (card.batch, len(card.lags_hours), *grid),
            INPUTS[1]: (2,),
            INPUTS[2]: (card.batch, card.noise_width),
            OUTPUT: (card.batch, *grid),
        }
        found = {each.name: tuple(each.shape) for each in (*self._session.get_inputs(), *self._session.get_outputs())}
        # Lengths that are open have names, or none.
        fixed = {name: tuple(n if isinstance(n, int) else None for n in shape) for name, shape in found.items()}
        channels = {fixed.get(name, ())[-1:] for name in states}
        without = {name: shape[:-1] if name in states else shape for name, shape in fixed.items()}
        if without != wanted or len(channels) > 1:
            raise CheckpointError(
                f"{self.checkpoint}: expected a graph of {wanted}, as its metadata say, got {found}; export it with "
                "this version"
            )

    @property
    def origin(self) -> Mapping[str, Any]:
        """What the graph says of its weights, and the providers that there were."""
        return {
            "licence": self.card.licence,
            "source": self.card.source,
            "revision": self.card.revision,
            "exported_from_sha256": self.card.weights_sha256,
            "opset": self.card.opset,
            "providers": list(self.providers),
        }

    @property
    def checkpoint_sha256(self) -> str:
        """Digest of the graph."""
        return self._digest

    @property
    def data(self) -> tuple[DataFile, ...]:
        """The graph's external data."""
        return self._external.files

    def best_batch(self, members: int) -> int:
        """Members per batch where nobody said how many: those that the graph takes; see `LoadedEngine.best_batch`."""
        return min(self.card.batch or 1, members)

    @property
    def noise_width(self) -> int:
        """Width of ε."""
        return self.card.noise_width

    @property
    def precision(self) -> str:
        """Precision of the matrix products."""
        return self.card.precision

    @property
    def untrained(self) -> bool:
        """The weights are random and say so."""
        return self.card.untrained

    @property
    def description(self) -> str:
        """Provider that the session really has, precision and version, for people."""
        import onnxruntime

        threads = f" ({self._threads} threads)" if self._threads and self.providers[0] == CPU else ""
        device = f" (device {self._device_id})" if self._device != "cpu" else threads
        return f"{self.providers[0]}{device}, {self.precision}, ONNX Runtime {onnxruntime.__version__}"

    def step(self, history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        """Advance a batch of members by one step; see `StepsOnHost.step`."""
        if self.card.batch in (None, len(history)):
            return self._step(history, progress, noise)
        return self._padded(history, progress, noise, self.card.batch or 1)

    def memory_bytes(self, members: int) -> int:
        """Estimated peak memory of one step of so many members, weights included."""
        return self._size + (self.card.batch or members) * ACTIVATION_COPIES * self.card.member_bytes

    def _padded(
        self, history: Float32Array, progress: tuple[float, float], noise: Float32Array, batch: int
    ) -> Float32Array:
        """Members in batches of the fixed size, the last filled up with copies of its first member."""
        parts = []
        for first in range(0, len(history), batch):
            some = np.arange(first, min(first + batch, len(history)))
            filled = np.concatenate([some, np.full(batch - len(some), first)])
            parts.append(self._step(history[filled], progress, noise[filled])[: len(some)])
        return np.concatenate(parts)

    def _step(self, history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

        arrays = (history, np.array(progress, dtype=np.float32), noise)
        binding = self._session.io_binding()
        # Bound, so that each array is copied to the device once, and none back but the state.
        for name, array in zip(INPUTS, arrays, strict=True):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, self._device_id)
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(OUTPUT, self._device, self._device_id)
        try:
            self._session.run_with_iobinding(binding)
        except InvalidArgument as error:
            raise CheckpointError(
                f"{self.checkpoint} does not take the states of its variant: {first_line(error)}"
            ) from error
        except (Fail, RuntimeException) as error:
            raise ForecastError(
                f"ONNX Runtime could not take a step with {self.checkpoint}: {first_line(error)}"
            ) from error
        return np.array(binding.get_outputs()[0].numpy())


def data_path(path: Path) -> Path:
    """Where the external data of a graph are that `onnx_export` writes."""
    return path.with_name(path.name + ".data")


def choose_provider(asked: Provider, *, only_gpu: bool) -> str:
    """The execution provider to ask ONNX Runtime for.

    Parameters
    ----------
    asked : Provider
        What the user wants.
    only_gpu : bool
        Refuse the CPU.

    Returns
    -------
    str
        A name that ONNX Runtime knows.

    Raises
    ------
    OptionError
        If this ONNX Runtime has none such.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if asked.name is not None and asked.name not in available:
        raise OptionError(
            f"--onnx-provider: expected one of {', '.join(available)}, which this ONNX Runtime "
            f"{onnxruntime.__version__} was built with, got {asked.name}"
        )
    name = asked.name or next((gpu for gpu in PREFERRED if gpu in available), CPU)
    if only_gpu and name == CPU:
        raise OptionError(
            f"--only-gpu: expected a provider for a GPU, got {', '.join(available)} of ONNX Runtime "
            f"{onnxruntime.__version__}; install onnxruntime-gpu in place of onnxruntime, or leave the option out to "
            "run on the CPU"
        )
    return name


def _check_provider(wanted: str, found: tuple[str, ...], *, asked: bool, only_gpu: bool) -> None:
    """Refuse, or at least tell, that a session fell back: ONNX Runtime itself goes on without a word."""
    if found[0] == wanted:
        return
    sentence = f"{wanted} could not be started on this machine, and ONNX Runtime fell back to {found[0]}"
    if asked or only_gpu:
        option = "--only-gpu" if only_gpu else "--onnx-provider"
        raise OptionError(
            f"{option}: {sentence}; its own messages say why, often a CUDA or cuDNN library that is missing or of "
            "another version"
        )
    LOG.warning("%s", sentence)


def _settings(threads: int | None, *, deterministic: bool) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.use_deterministic_compute = deterministic
    # What a step needs at its peak is not kept until the next by an arena that doubles.
    settings.enable_cpu_mem_arena = False
    # A buffer that is planned for a later value is kept until then: that doubled the memory of a step.
    settings.enable_mem_reuse = False
    if threads is not None:
        settings.intra_op_num_threads = threads
    return settings


def _open(path: Path, graph: bytes, provider: str, options: dict[str, str], settings: Any) -> tuple[Any, ExternalData]:
    """A session, and the external data, which must outlive it."""
    import onnxruntime

    providers = [(provider, options)] if provider == CPU else [(provider, options), (CPU, {})]
    try:
        external = read_external_data(path, graph)
        if external.arrays:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in external.arrays.values()]
            settings.add_external_initializers(list(external.arrays), values)
        # Its own fall-back to another provider would be silent.
        session = onnxruntime.InferenceSession(graph, settings, providers=providers, enable_fallback=0)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be run by ONNX Runtime {onnxruntime.__version__} on {provider}: {first_line(error)}"
        ) from error
    session.disable_fallback()
    return session, external
