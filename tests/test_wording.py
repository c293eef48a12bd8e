import pytest

from ai_models_mosaic.wording.numbers import counted, size_of


@pytest.mark.parametrize(("number", "words"), [(0, "0 members"), (1, "1 member"), (24, "24 members")])
def test_one_is_singular(number, words):
    assert counted(number, "member") == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (41_300_000, "41 MB"),
        (999_600_000, "1.0 GB"),
        (3.21e9, "3.2 GB"),
        (2e12, "2000.0 GB"),
    ],
)
def test_sizes_have_a_unit_that_leaves_something_to_read(count, words):
    assert size_of(count) == words
