import time

from bench.loadgen.clock import Clock, offset_ns

SECOND = 1_000_000_000


def test_the_offset_turns_wall_time_into_monotonic_time() -> None:
    clock = Clock()
    clock.sample()
    before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    clock.sample()
    (converted,) = clock.monotonic([wall], [after])
    assert converted is not None
    assert before - 50_000 <= converted <= after + 50_000
    assert clock.account()["steps"] == 0


def test_the_offset_is_read_repeatably() -> None:
    offsets = [offset_ns() for _ in range(20)]
    assert sorted(offsets)[15] - sorted(offsets)[5] < 20_000


def stepped() -> Clock:
    """Sampled at 1, 2, 3 and 4 s; set back by a second somewhere between 2 and 3 s."""
    return Clock(
        at_ns=[SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND],
        offsets=[100 * SECOND, 100 * SECOND + 40, 99 * SECOND, 99 * SECOND],
    )


def test_a_step_of_the_wall_clock_is_found_and_measured() -> None:
    assert stepped().steps() == [(2 * SECOND, 3 * SECOND, -SECOND - 40)]
    assert stepped().account() == {
        "offset_before_ns": 100 * SECOND,
        "offset_after_ns": 99 * SECOND,
        "steps": 1,
        "stepped_ns": -SECOND - 40,
    }


def test_stamps_on_either_side_of_a_step_keep_their_own_offset() -> None:
    half = SECOND // 2
    assert stepped().monotonic([101 * SECOND + half], [SECOND + half]) == [SECOND + half]
    assert stepped().monotonic([102 * SECOND + half], [3 * SECOND + half]) == [3 * SECOND + half]


def test_a_stamp_from_around_a_step_is_not_guessed() -> None:
    assert stepped().monotonic([102 * SECOND, None], [2 * SECOND + 1, SECOND + 1]) == [None, None]


def test_small_corrections_are_no_steps() -> None:
    assert Clock(at_ns=[1, 2], offsets=[1000, 20_000]).steps() == []
