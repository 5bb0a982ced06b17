"""Shapes of an open load: where each request is due, worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from bench.scenario.model import Arrivals
from bench.scenario.shapes import last_s, offsets_ns


def due(count: int, seed: int = 1, **shape: Any) -> list[float]:
    """Due times in seconds."""
    return [one / 1e9 for one in offsets_ns(Arrivals.model_validate(shape), count, seed)]


def test_a_ramp_sends_what_lies_under_its_line_and_then_keeps_the_last_rate() -> None:
    # From 0 to 4 a second over 8 s: t²/4 are due by t, 16 in all; then one every quarter of a second.
    times = due(21, ramp={"from": 0, "to": 4, "over_s": 8.0})
    assert times[:17] == pytest.approx([2 * number**0.5 for number in range(17)])
    assert times[16:] == pytest.approx([8.0, 8.25, 8.5, 8.75, 9.0])


def test_a_ramp_may_fall_and_one_that_stays_level_is_a_rate() -> None:
    gaps = [later - earlier for earlier, later in pairwise(due(20, ramp={"from": 10, "to": 1, "over_s": 4.0}))]
    assert gaps == sorted(gaps)
    assert due(9, ramp={"from": 3, "to": 3, "over_s": 1.0}) == pytest.approx(due(9, rate=3.0), abs=2e-9)


def test_a_burst_sends_several_at_once() -> None:
    assert due(7, burst={"size": 3, "every_s": 2.5}) == [0.0, 0.0, 0.0, 2.5, 2.5, 2.5, 5.0]


def test_on_and_off_take_turns_and_the_first_after_a_silence_comes_when_it_ends() -> None:
    times = due(6, on_off={"on": 2, "on_s": 1.0, "off_s": 10.0})
    assert times == pytest.approx([0.0, 0.5, 11.0, 11.5, 22.0, 22.5])
    assert due(5, on_off={"on": 2, "off": 1, "on_s": 1.0, "off_s": 2.0}) == pytest.approx([0.0, 0.5, 1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("shape", "mean"),
    [
        # 10 a second at the end of the ramp: after 100 s of on average 5.5 a second, 550 requests.
        ({"ramp": {"from": 1, "to": 10, "over_s": 100.0, "spacing": "poisson"}}, 100 + (20_000 - 550) / 10),
        ({"on_off": {"on": 30, "off": 10, "on_s": 2.0, "off_s": 2.0, "spacing": "poisson"}}, 20_000 / 20),
    ],
)
def test_poisson_spacing_keeps_the_shapes_rate_and_is_drawn_from_the_seed(shape: dict[str, Any], mean: float) -> None:
    times = due(20_000, **shape)
    # The n-th arrival scatters by about √n: 0.7 %.
    assert times[-1] == pytest.approx(mean, rel=0.03)
    assert due(50, **shape) == times[:50]
    assert due(50, seed=2, **shape) != times[:50]
    assert times == sorted(times)


def test_the_last_request_tells_how_long_sending_takes() -> None:
    assert last_s(Arrivals(rate=4.0), 41) == 10.0
    assert last_s(Arrivals(rate=4.0), 0) == 0.0
