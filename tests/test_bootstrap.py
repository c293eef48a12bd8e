"""Intervals by drawing blocks of dates."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.verification.bootstrap import Bootstrap

START = datetime(2020, 1, 1)


def dates(count: int, hours: int = 24) -> list[datetime]:
    return [START + timedelta(hours=hours * index) for index in range(count)]


def test_the_first_row_is_the_sample_itself_and_every_draw_has_as_many_dates():
    counts = Bootstrap(200).counts(17, 5)
    assert counts.shape == (201, 17)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 17).all()


def test_every_date_is_as_likely_as_any_other():
    counts = Bootstrap(20_000).counts(10, 4)
    np.testing.assert_allclose(counts[1:].mean(axis=0), 1.0, atol=0.03)


def test_dates_are_drawn_with_their_neighbours():
    counts = Bootstrap(2000).counts(20, 5)[1:]
    together = np.corrcoef(counts[:, 3], counts[:, 4])[0, 1]
    apart = np.corrcoef(counts[:, 3], counts[:, 13])[0, 1]
    assert together > 0.6
    assert apart < 0.1


def test_draws_are_the_same_again_and_others_with_another_seed():
    first, again, other = (Bootstrap(50, seed=seed).counts(12, 3) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_block_is_as_long_as_the_longest_lead_but_at_most_a_quarter_of_the_dates():
    assert Bootstrap().block_of(dates(70), 240) == 10
    assert Bootstrap().block_of(dates(70, hours=120), 240) == 2
    assert Bootstrap().block_of(dates(20), 240) == 5
    assert Bootstrap().block_of(dates(1), 240) == 1
    assert Bootstrap(block_length=7).block_of(dates(20), 240) == 7


def test_the_interval_of_a_mean_of_independent_dates_is_that_of_the_textbook():
    values = np.random.default_rng(0).normal(size=400)
    bootstrap = Bootstrap(4000, block_length=1)
    value, low, high = bootstrap.interval((bootstrap.counts(400, 1) @ values) / 400)
    half = 1.96 * values.std() / 20
    assert value == pytest.approx(values.mean())
    assert (high - value, value - low) == pytest.approx((half, half), rel=0.12)


def test_blocks_widen_the_interval_of_dates_that_are_alike():
    generator = np.random.default_rng(1)
    values = np.repeat(generator.normal(size=40), 10)
    bootstrap = Bootstrap(2000)
    widths = []
    for block in (1, 20):
        _, low, high = bootstrap.interval(bootstrap.counts(400, block) @ values / 400)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_a_single_date_has_no_interval():
    bootstrap = Bootstrap(100)
    counts = bootstrap.counts(1, 1)
    value, low, high = bootstrap.interval(counts @ np.array([[3.0]]))
    assert value.tolist() == [3.0]
    assert np.isnan([low, high]).all()


def test_draws_that_lack_a_number_do_not_spoil_those_that_have_it():
    replicated = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan], [4.0, np.nan]])
    value, low, high = Bootstrap(3, confidence=0.5).interval(replicated)
    np.testing.assert_allclose(value, [1.0, np.nan])
    np.testing.assert_allclose([low[0], high[0]], [2.5, 3.5])
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicates": -1}, "expected bootstrap replicates of 0 or more, got -1"),
        ({"block_length": 0}, "expected a block length of at least 1 date, got 0"),
        ({"confidence": 1.0}, "expected a confidence between 0 and 1, got 1"),
        ({"seed": -1}, r"expected a seed from 0 to 2\*\*64 - 1, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str):
    with pytest.raises(OptionError, match=message):
        Bootstrap(**arguments)  # type: ignore[arg-type]


def test_blocks_longer_than_all_dates_are_refused():
    with pytest.raises(OptionError, match="expected blocks of at most all 5 dates, got 6"):
        Bootstrap(block_length=6).block_of(dates(5), 24)
