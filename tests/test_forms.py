"""The table of which form of the network runs when."""

import re
from pathlib import Path

import ai_models_mosaic.model


def test_the_tests_that_the_table_names_are_there():
    named = re.findall(r"``(test_\w+)``", ai_models_mosaic.model.__doc__)
    defined = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) >= 10
    assert set(named) <= defined
