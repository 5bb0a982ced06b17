from __future__ import annotations

from dataclasses import dataclass

from bench.tune.purse import Purse


@dataclass
class Clock:
    """Says what it is told, seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_no_launch_begins_that_is_not_expected_to_end_within_the_budget() -> None:
    clock = Clock()
    purse = Purse(2.0, clock)
    purse.open(1.0, {"start": 30.0, "a": 30.0})
    assert purse.fits("start") is None
    clock.now = 50.0
    # It is known now how long one takes, and 70 s are left.
    assert purse.fits("a") is None
    clock.now = 80.0
    assert purse.fits("start") == "a launch of start takes about 50 seconds, and 40 are left of this part's 2 minutes"
    assert purse.closed
    # A shorter one is known to fit.
    assert purse.fits("a") is None


def test_a_part_has_its_share_and_the_next_one_what_is_left() -> None:
    clock = Clock()
    purse = Purse(1.0, clock)
    purse.open(0.5, {"start": 20.0})
    assert purse.fits("start") is None
    clock.now = 20.0
    assert purse.fits("start") is not None
    purse.open(1.0)
    assert not purse.closed
    assert purse.fits("start") is None
    assert purse.left(1.0) == 40.0


def test_a_guess_that_does_not_fit_begins_nothing() -> None:
    purse = Purse(0.5, Clock())
    purse.open(1.0, {"start": 60.0})
    assert "takes about 60 seconds, and 30 are left" in str(purse.fits("start"))
