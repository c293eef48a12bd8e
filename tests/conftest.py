from collections.abc import Iterator
from pathlib import Path

import pytest
from fetching import FILES, Machine
from hub_standin import Hub, hub_with
from running import Runner


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user() -> Iterator[None]:
    """Tests neither read nor fill the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_MODELS_MOSAIC_CACHE", "off")
        yield


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Runner:
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
