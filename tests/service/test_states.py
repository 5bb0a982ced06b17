"""ok, warning, alarm: one value at the border rings nobody, three in a row do, and worse is worse either way round."""

from __future__ import annotations

import pytest

from bench.service.states import Judge, judges
from bench.service.watchlist import Bound, Limits

LIMIT = Bound(warning=100, alarm=200)


def states(judge: Judge, *values: float | None) -> list[str]:
    found: list[str] = []
    for value in values:
        judge.take(value)
        found.append(judge.state)
    return found


def test_three_worse_values_in_a_row_raise_and_one_that_is_not_begins_anew() -> None:
    assert states(Judge(LIMIT), 150, 150, 90, 150, 150, 150) == ["ok"] * 5 + ["warning"]


def test_an_alarm_is_reached_at_once_from_ok() -> None:
    assert states(Judge(LIMIT), 300, 300, 300)[-1] == "alarm"


def test_it_clears_after_five_values_well_inside_the_limit() -> None:
    judge = Judge(LIMIT, state="alarm")
    assert states(judge, *[199] * 10)[-1] == "alarm"
    assert states(judge, *[150] * 5)[-1] == "warning"
    assert states(judge, *[97] * 10)[-1] == "warning"
    assert states(judge, *[90] * 5) == ["warning"] * 4 + ["ok"]


def test_a_value_that_swings_about_the_limit_does_not_flap() -> None:
    changes = 0
    judge = Judge(LIMIT)
    for number in range(1000):
        changes += judge.take(102 if number % 4 else 98)
    assert changes <= 2


def test_a_figure_that_is_worse_when_it_falls() -> None:
    judge = Judge(Bound(warning=30, alarm=15), falling=True)
    assert states(judge, 29, 29, 29)[-1] == "warning"
    assert states(judge, 10, 10, 10)[-1] == "alarm"
    assert states(judge, *[40] * 5)[-1] == "ok"


def test_availability_changes_at_once_and_can_come_back_to_one() -> None:
    judge = judges(Limits(availability=Bound(warning=0.95, alarm=0.8)))["availability"]
    assert states(judge, 1.0, 0.9, 0.7, 0.9, 1.0) == ["ok", "warning", "alarm", "warning", "ok"]


@pytest.mark.parametrize("bound", [None, LIMIT])
def test_what_has_no_limit_or_no_value_is_not_judged(bound: Bound | None) -> None:
    assert states(Judge(bound), None, 500 if bound is None else None) == ["unknown", "unknown"]
