from itertools import pairwise

import pytest

from bench.loadgen.job import Request, Schedule, released, schedule
from bench.scenario.model import Arrivals, Replay


def lone(count: int) -> list[Request]:
    """So many requests that follow no other."""
    return [Request(number, "p", "measured", "/v1/completions", {}) for number in range(count)]


def test_closed_streams_have_no_times() -> None:
    assert schedule(Arrivals(closed=4), lone(10), seed=1) == Schedule(streams=4)
    assert schedule(Arrivals(closed=4, max_in_flight=2), lone(10), seed=1) == Schedule(streams=2)


def test_a_rate_is_evenly_spaced_without_drift() -> None:
    offsets = schedule(Arrivals(rate=3.0), lone(3001), seed=1).offsets_ns
    assert offsets[0] == 0
    assert offsets[3000] == 1000 * 10**9
    assert {later - earlier for earlier, later in pairwise(offsets)} <= {333333333, 333333334}


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    offsets = schedule(Arrivals(poisson=50.0), lone(20_000), seed=7).offsets_ns
    gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    # Standard errors of both are about 0.7 %.
    assert mean == pytest.approx(0.02, rel=0.03)
    assert deviation / mean == pytest.approx(1.0, rel=0.03)


def test_the_seed_alone_decides_and_a_longer_schedule_begins_like_a_shorter_one() -> None:
    short, long = (schedule(Arrivals(poisson=5.0), lone(count), seed=3).offsets_ns for count in (10, 100))
    assert long[:10] == short
    assert schedule(Arrivals(poisson=5.0), lone(10), seed=4).offsets_ns != short


def test_a_cap_on_open_requests_is_passed_on() -> None:
    assert schedule(Arrivals(poisson=5.0, max_in_flight=3), lone(2), seed=1).max_in_flight == 3


def test_a_cap_lets_a_request_go_when_an_earlier_answer_ends() -> None:
    # One at a time: the second is answered late, and those behind it queue.
    assert released([0, 10, 20, 30], [5, 100, 110, 120], cap=1) == [0, 10, 100, 110]
    # Two at a time: the third takes the place of whichever of the first two ends first.
    assert released([0, 0, 0, 0], [50, 30, 80, 90], cap=2) == [0, 0, 30, 50]
    assert released([0, 1, 2], [10, 10, 10], cap=3) == [0, 1, 2]


def test_a_later_turn_takes_no_time_of_its_own() -> None:
    talk = [
        Request(0, "a", "measured", "/", {}),
        Request(1, "a", "measured", "/", {}, turn=1, after=0),
        Request(2, "b", "measured", "/", {}),
    ]
    assert schedule(Arrivals(rate=2.0), talk, seed=1).offsets_ns == (0, 500_000_000)


def test_a_replay_keeps_the_traces_gaps_divided_by_the_speed_from_its_first_request_on() -> None:
    sent = [Request(n, "p", "measured", "/", {}, due_ns=due) for n, due in enumerate((3_000, 5_000, 9_000))]
    assert schedule(Arrivals(replay=Replay(speed=2.0)), sent, seed=1).offsets_ns == (0, 1_000, 3_000)
