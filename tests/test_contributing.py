"""What CONTRIBUTING names is there, under that name."""

import re

import pytest
from running import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "ai_models_mosaic"


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


def is_path(word):
    return re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*(\.(py|md|toml|npz|safetensors)|/)|weights/SHA256SUMS", word) is not None


PATHS = sorted({word for code in quoted(TEXT) for word in code.split() if is_path(word)})


def test_most_of_the_package_is_named():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms - {path.rstrip("/") for path in PATHS} == set()
    assert len(PATHS) > 90


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_contributing_names_is_there(path):
    assert any(list(folder.glob(path.rstrip("/"))) for folder in (ROOT, PACKAGE)), path


def test_the_ten_things_are_in_their_files():
    table = TEXT[TEXT.index("Ten things") : TEXT.index("A command is a module")]
    rows = [row for row in table.splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) == 10
    for row in rows:
        # A name belongs to the file that was named last.
        content = ""
        for word in quoted(row):
            if is_path(word):
                path = next(folder / word for folder in (PACKAGE, ROOT) if (folder / word).exists())
                content = "" if path.is_dir() else path.read_text(encoding="utf-8")
            elif word != "ai_models_mosaic/":
                assert re.search(rf"^(class|def) {word}\b|^{word}\b.* = ", content, re.MULTILINE), (word, row)
