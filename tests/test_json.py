import pytest

from ai_models_mosaic.files import MOST_NESTED, parse_json


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 101 + "1" + "]" * 101], ids=len)
def test_what_is_nested_too_deeply_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"^expected at most 100 containers in one another, got more$"):
        parse_json(text)


def test_what_is_nested_as_deeply_as_may_be_is_read():
    found, depth = parse_json(b"[" * MOST_NESTED + b"]" * MOST_NESTED), 0
    while found:
        found, depth = found[0], depth + 1
    assert depth == MOST_NESTED - 1


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", '{"a": 1} 2', "1" * 5000], ids=len)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - in the words of several libraries
        parse_json(text)


def test_what_is_not_finite_is_refused_where_that_is_asked_for():
    assert parse_json('[1, "a", null, Infinity]') == [1, "a", None, float("inf")]
    with pytest.raises(ValueError, match=r"^expected finite numbers, got Infinity$"):
        parse_json("[Infinity]", finite=True)
