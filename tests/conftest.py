import logging
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import jaxtyping
import pytest

# The shapes that signatures name are checked in every call, of these modules and those in them; before any of them,
# and `arrays`, is imported.
CHECKED = ("ai_models_mosaic.model", "ai_models_mosaic.state", "ai_models_mosaic.engines.states")
HOOK = jaxtyping.install_import_hook(CHECKED, "beartype.beartype").hook

from fetching import FILES, Machine  # noqa: E402
from hub_standin import Hub, hub_with  # noqa: E402
from running import Runner, need_runner  # noqa: E402

import ai_models_mosaic.model  # noqa: E402
from ai_models_mosaic.forecast import console  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """Also where the tests were started in the background of a shell, which has what it starts so ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user() -> Iterator[None]:
    """Tests neither read nor fill the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_MODELS_MOSAIC_CACHE", "off")
        yield


@pytest.fixture(autouse=True, scope="module")
def no_quiet_that_lasts() -> Iterator[None]:
    """What a command with --quiet hushes to the end of its process is heard in other modules again."""
    loggers = [logging.getLogger(name) for name in (console.PACKAGE, console.RUNNER)]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Runner:
    need_runner()
    caplog.set_level("INFO")
    return Runner(tmp_path, monkeypatch, capsys)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A stand-in of the hub with the files of era5."""
    with hub_with(dict(FILES)) as started:
        yield started


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    """A machine that reaches the stand-in and nothing else."""
    return Machine(tmp_path, hub)


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are not checked, as outside of the tests: for the checks that the package makes itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def network_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`model.network` without what checks shapes, into which no compiler can look."""
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not HOOK])
    monkeypatch.setattr(ai_models_mosaic, "model", ai_models_mosaic.model)
    checked = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(CHECKED[0])}
    yield import_module("ai_models_mosaic.model.network")
    # Of the rest, which compilers import meanwhile, nothing may be imported twice.
    for name in [name for name in sys.modules if name.startswith(CHECKED[0])]:
        del sys.modules[name]
    sys.modules.update(checked)
