"""Numbers for people: the digits they carry, and a dash for null."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.numbers import changes, count, decimals, duration, interval, number, quantity


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (97.66, "97.7"), (1234.5, "1\u202f234"), (-3.21, "−3.21"), (0.01234, "0.0123"),
        (None, "–"), (float("nan"), "–"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_a_number_shows_three_digits_or_that_there_is_none(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_column_shares_its_decimals_so_that_points_align() -> None:
    column = [9.87, 102.3, 98.41]
    places = decimals(column)
    assert [number(value, places) for value in column] == ["9.9", "102.3", "98.4"]
    assert decimals([None, 0.0, float("nan")]) == 0


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_float_can_be_written_and_zero_is_never_made_of_null(value: float) -> None:
    assert number(value)
    if not math.isfinite(value):
        assert number(value) == "–"


def test_quantities_have_units_and_long_waits_are_seconds() -> None:
    assert quantity(99.5, "ms") == "99.5 ms"
    assert quantity(64_200, "ms") == "64.2 s"
    assert quantity(0.125, "") == "12.5 %"
    assert quantity(None, "ms") == "–"


def test_intervals_are_left_out_where_there_are_none() -> None:
    assert interval(1.0, 2.0) == "1.00–2.00"
    assert interval(None, 2.0) == ""
    assert interval(1.0, float("nan")) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.85, "850 ms"), (12.07, "12.1 s"), (250, "4 min 10 s"), (7500, "2 h 5 min"), (7200, "2 h"), (180, "3 min"),
     (None, "–")],
)  # fmt: skip
def test_durations_take_the_unit_that_suits(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_words_agree_in_number() -> None:
    assert [count(1, "launch"), count(3, "launch"), count(2, "request")] == ["1 launch", "3 launches", "2 requests"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1.1, 1.3, "+10.0 % to +30.0 %"), (2.54, 3.82, "×2.54 to ×3.82"), (0.8, 4.0, "−20.0 % to ×4.00")],
)
def test_both_ends_of_a_change_are_told_alike(low: float, high: float, text: str) -> None:
    assert changes((low, high)).replace("\u00a0", " ") == text
