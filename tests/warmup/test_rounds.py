"""The online rule stops on evidence, and gives up on time."""

from __future__ import annotations

from bench.warmup.rounds import Settled


def test_it_goes_on_while_windows_differ() -> None:
    rule = Settled(4, 0.03, 60)
    assert rule([100, 90, 80, 70]) is None
    assert rule([100, 90, 80, 70, 60, 55, 52, 50]) is None


def test_it_stops_when_two_windows_agree_and_says_what_it_saw() -> None:
    rule = Settled(4, 0.03, 60)
    rule([100, 90, 80, 70])
    reason = rule([100, 90, 80, 70, 50, 51, 50, 49, 50, 50, 51, 49])
    assert reason is not None
    assert reason.startswith("steady: medians of two windows of 4 differ by 0.0%")


def test_what_came_before_the_first_window_is_part_of_none() -> None:
    rule = Settled(2, 0.03, 60)
    assert rule([900, 900, 50, 50]) is None
    reason = rule([900, 900, 50, 50, 50, 50])
    assert reason is not None
    assert "steady" in reason


def test_one_outlier_in_a_window_does_not_keep_it_going() -> None:
    rule = Settled(5, 0.03, 60)
    rule([50, 50, 51, 50, 900])
    assert rule([50, 50, 51, 50, 900, 50, 700, 50, 51, 50]) is not None


def test_it_gives_up_when_the_time_is_up_and_does_not_call_that_steady() -> None:
    now = [0.0]
    rule = Settled(2, 0.03, 10, clock=lambda: now[0])
    rule([100, 50])
    now[0] = 11.0
    reason = rule([100, 50, 20, 10])
    assert reason == "gave up: not steady after 10 s"
