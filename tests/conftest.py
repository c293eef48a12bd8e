from pathlib import Path

import pytest
from running import Runner


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Runner:
    caplog.set_level("INFO")
    return Runner(tmp_path, monkeypatch, capsys)
