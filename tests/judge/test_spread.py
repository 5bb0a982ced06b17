"""How much boards differ: the estimates find what was put in, and the intervals cover it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.judge.spread import drifts, spread


def _boards(
    draw: np.random.Generator, between: float, within: float, boards: int, launches: int
) -> dict[str, list[float]]:
    levels = draw.normal(math.log(100), between, boards)
    return {f"board-{n}": draw.normal(level, within, launches).tolist() for n, level in enumerate(levels)}


def test_the_worked_example_of_the_analysis_of_variance() -> None:
    # Three boards, two launches each: board means 2, 4 and 9, squares within 2 + 2 + 2 with 3 degrees of freedom.
    found = spread({"a": [1.0, 3.0], "b": [3.0, 5.0], "c": [8.0, 10.0]})

    assert found.within == pytest.approx(math.sqrt(2))
    assert found.typical.value == pytest.approx(5.0)
    # Mean square between: 2·13 = 26, so σ_b² = (26 − 2)/2 = 12.
    assert found.between.value == pytest.approx(math.sqrt(12))
    # t of 2 degrees of freedom: 4.3027; the standard error of the mean of means is √(13/3).
    assert found.typical.high == pytest.approx(5 + 4.302653 * math.sqrt(13 / 3), rel=1e-5)
    assert found.another is not None
    assert found.another[1] == pytest.approx(5 + 4.302653 * math.sqrt(13) * math.sqrt(4 / 3), rel=1e-5)


def test_the_interval_of_the_spread_between_boards_covers_what_was_put_in() -> None:
    draw = np.random.default_rng(7)
    between, covered, rounds = 0.05, 0, 400
    for _ in range(rounds):
        found = spread(_boards(draw, between, 0.03, 8, 5)).between
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= between <= found.high

    # Tukey's and Williams' interval: close to 95 %, never far below.
    assert 0.925 <= covered / rounds <= 0.985


def test_the_typical_board_is_covered_where_boards_differ_more_than_launches() -> None:
    draw = np.random.default_rng(11)
    rounds = 400
    covered = 0
    for _ in range(rounds):
        found = spread(_boards(draw, 0.05, 0.01, 6, 20)).typical
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= math.log(100) <= found.high

    # A pool of the 120 launches would cover in about a third of the rounds.
    assert 0.92 <= covered / rounds <= 0.98


def test_boards_that_are_alike_have_an_interval_that_begins_at_zero() -> None:
    found = spread(_boards(np.random.default_rng(3), 0.0, 0.05, 6, 4))

    assert found.between.low == 0.0
    assert found.between.high is not None
    assert 0 < found.between.high < 0.1


def test_too_few_boards_or_launches_give_no_spread_and_say_why() -> None:
    assert spread({"a": [1.0, 2.0], "b": [1.0, 2.0]}).between.reason == "2 boards; 3 are needed"
    alone = spread({"a": [1.0], "b": [2.0], "c": [4.0]})
    assert alone.within is None
    assert alone.between.value is None
    assert alone.between.reason is not None
    assert "cannot be told" in alone.between.reason
    assert spread({"a": [1.0, 2.0]}).typical.low is None
    assert spread({}).typical.reason == "no board has a value"


def test_boards_with_unequally_many_launches_count_as_one_each() -> None:
    found = spread({"a": [1.0] * 100 + [1.2] * 100, "b": [2.0, 2.2], "c": [3.0, 3.2]})

    assert found.typical.value == pytest.approx(2.1)


def test_a_board_that_stands_apart_is_named_and_noise_is_not() -> None:
    draw = np.random.default_rng(5)
    boards = _boards(draw, 0.01, 0.005, 8, 5)
    boards["slow"] = [value + 0.3 for value in boards["board-0"]]

    assert spread(boards).outliers == ("slow",)
    alarms = sum(bool(spread(_boards(draw, 0.0, 0.05, 8, 5)).outliers) for _ in range(100))
    assert alarms <= 5


def test_among_few_boards_none_is_called_an_outlier() -> None:
    assert spread({"a": [1.0, 1.01], "b": [1.0, 1.01], "c": [9.0, 9.01]}).outliers == ()


def test_a_board_that_drifts_is_named_with_its_slope_per_hour() -> None:
    draw = np.random.default_rng(9)
    hours = np.linspace(0, 2, 12)
    still = {f"board-{n}": list(zip(hours, draw.normal(0, 0.01, 12), strict=True)) for n in range(7)}
    warm = list(zip(hours, 0.1 * hours + draw.normal(0, 0.01, 12), strict=True))

    found = drifts({**still, "warm": warm})

    assert list(found) == ["warm"]
    assert found["warm"].value == pytest.approx(0.1, abs=0.02)
