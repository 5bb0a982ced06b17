"""Everybody else's part in a launch's processor time, against truths written into the counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bench.analyse.neighbours import Neighbours, neighbours
from bench.analyse.series import Samples
from bench.record.tables import from_rows

S = 1_000_000_000
Rate = Callable[[float], float]
SECONDLY = tuple(map(float, range(31)))


def steady(rate: float) -> Rate:
    """Seconds used by the time t, at so many processors."""
    return lambda t: rate * t


def during(start: float, end: float, rate: float) -> Rate:
    return lambda t: rate * min(max(0.0, t - start), end - start)


def launch(
    *,
    engine: Rate,
    foreign: Rate,
    wait: Rate | None = None,
    at: Sequence[float] = SECONDLY,
    processors: int = 2,
    tick: float = 0.0,
) -> Samples:
    """Readings of a machine on which an engine, the harness (0.02 of a processor) and others ran."""

    def ticked(values: list[float]) -> list[float]:
        return [value // tick * tick for value in values] if tick else values

    ours, others = [[of(t) for t in at] for of in (engine, foreign)]
    harness, sampler = [[rate * t for t in at] for rate in (0.02, 0.005)]
    fields = {
        "cpu_s": ticked(ours),
        "harness_cpu_s": ticked(harness),
        "sampler_cpu_s": sampler,
        "machine_busy_s": ticked([sum(parts) for parts in zip(ours, others, harness, sampler, strict=True)]),
        "machine_processors": [float(processors)] * len(at),
        "account_skew_s": [0.0] * len(at),
        "processes": [1.0] * len(at),
    }
    if wait is not None:
        fields |= {"run_s": ours, "wait_s": [wait(t) for t in at]}
    rows = [
        {"t_ns": round(t * S), "probe": "tree", "field": name, "value": value, "reason": None}
        for name, values in fields.items()
        for t, value in zip(at, values, strict=True)
    ]
    return Samples(from_rows("samples", rows))


def found(samples: Samples, start: float, end: float) -> Neighbours:
    seen = neighbours(samples, round(start * S), round(end * S))
    assert isinstance(seen, Neighbours), seen
    return seen


@pytest.mark.parametrize("share", [0.0, 0.02, 0.25, 0.5, 0.97])
def test_a_steady_neighbour_has_the_share_that_it_has(share: float) -> None:
    seen = found(launch(engine=steady(0.03), foreign=steady(2 * share)), 5.3, 25.9).share
    assert seen.value == pytest.approx(share, abs=1e-6)
    assert seen.low <= share <= seen.high
    assert seen.high - seen.low < 0.05 + 0.1 * share


@pytest.mark.parametrize("phase", np.linspace(0.0, 0.009, 5))
def test_on_an_idle_machine_ticks_of_a_hundredth_make_no_neighbour(phase: float) -> None:
    """Two seconds, as short as a launch gets: within 2 % of nobody, and the bounds know of it."""
    at = [0.0, 0.5 + phase, 1.5 + phase, 2.5 + phase, 3.1]
    seen = found(launch(engine=steady(0.9731), foreign=steady(0.0), at=at, tick=0.01), 0.6, 3.0).share
    assert seen.value < 0.02
    assert seen.low == 0.0


def test_a_launch_shorter_than_the_time_between_two_readings_has_bounds_and_not_just_a_dash() -> None:
    samples = launch(engine=steady(1.0), foreign=steady(0.9), at=[0.0, 1.0, 2.0])
    seen = found(samples, 0.2, 0.7).share
    assert seen.value == pytest.approx(0.45, abs=0.01)
    assert seen.low == 0.0, "all of it may have run in the half second beside the window"
    assert seen.high > 0.85


def test_readings_at_the_windows_very_ends_make_a_short_launch_certain() -> None:
    samples = launch(engine=steady(1.0), foreign=steady(0.9), at=[0.0, 0.19, 0.71, 1.0, 2.0])
    seen = found(samples, 0.2, 0.7).share
    assert seen.value == pytest.approx(0.45, abs=0.01)
    assert 0.38 < seen.low < seen.high < 0.53, "ticks of a hundredth of a second are 2 % of a second on two processors"


@pytest.mark.parametrize("start", [0.0, 3.0, 3.5, 10.2, 16.0])
def test_a_burst_of_two_seconds_is_found_where_it_was(start: float) -> None:
    seen = found(launch(engine=steady(0.9), foreign=during(4 + start, 6 + start, 1.0)), 4.0, 24.0)
    assert seen.share.value == pytest.approx(2 / 40, abs=0.001)
    assert seen.worst.value == pytest.approx(0.5, abs=0.03)
    assert seen.worst_at_s == pytest.approx(start, abs=1.01)


def test_readings_that_end_before_the_window_leave_open_what_came_after() -> None:
    seen = found(launch(engine=steady(1.0), foreign=steady(0.0), at=[0.0, 1.0, 2.0, 3.0]), 1.0, 5.0).share
    assert seen.value == pytest.approx(0.0)
    assert seen.high == pytest.approx(0.5, abs=0.05)


def test_an_engine_with_too_many_threads_waits_for_itself_and_for_no_neighbour() -> None:
    """Six threads on two processors: four wait all the time."""
    alone = found(launch(engine=steady(1.97), foreign=steady(0.0), wait=steady(4.0), tick=0.01), 2.0, 22.0)
    assert alone.contention is not None
    assert alone.contention.value < 0.003
    assert alone.contention.low == 0.0
    beside = found(launch(engine=steady(1.4), foreign=steady(0.57), wait=steady(4.6)), 2.0, 22.0).contention
    assert beside is not None
    assert beside.value == pytest.approx(0.57 / 6.0, abs=0.001), "no more than the neighbour can have caused"


def test_two_threads_that_share_two_processors_with_two_others_wait_half_their_time() -> None:
    seen = found(launch(engine=steady(0.985), foreign=steady(0.985), wait=steady(0.985)), 2.0, 22.0)
    assert seen.contention is not None
    assert seen.contention.value == pytest.approx(0.5, abs=0.001)
    assert seen.share.value == pytest.approx(0.4925, abs=0.001)
    assert seen.crowded(0.2) == pytest.approx(1.0)


def test_a_neighbour_on_a_processor_of_its_own_is_seen_and_costs_no_wait() -> None:
    seen = found(launch(engine=steady(0.97), foreign=steady(1.0), wait=steady(0.001)), 2.0, 22.0)
    assert seen.contention is not None
    assert seen.share.value == pytest.approx(0.5, abs=0.001)
    assert seen.contention.high < 0.002


def test_the_part_of_the_window_that_was_crowded_is_told() -> None:
    burst = during(10.0, 12.0, 0.9)
    seen = found(launch(engine=steady(1.0), foreign=burst, wait=burst), 4.0, 24.0)
    assert seen.crowded(0.2) == pytest.approx(0.1)


def test_a_kernel_that_does_not_keep_waiting_times_leaves_contention_open() -> None:
    assert found(launch(engine=steady(1.0), foreign=steady(1.0)), 2.0, 22.0).contention is None


def test_accounts_that_were_read_apart_widen_the_bounds() -> None:
    apart = launch(engine=steady(1.0), foreign=steady(0.0))
    sharp = found(apart, 2.5, 12.5).share
    rows = [
        {"t_ns": round(t * S), "probe": "tree", "field": name, "value": float(value), "reason": None}
        for name in ("cpu_s", "harness_cpu_s", "sampler_cpu_s", "machine_busy_s", "machine_processors", "processes")
        for t, value in zip(apart.of("tree", name).t_ns / S, apart.of("tree", name).value, strict=True)
    ] + [
        {"t_ns": round(t * S), "probe": "tree", "field": "account_skew_s", "value": 0.3, "reason": None}
        for t in apart.of("tree", "cpu_s").t_ns / S
    ]
    blurred = found(Samples(from_rows("samples", rows)), 2.5, 12.5).share
    assert blurred.high - blurred.low > sharp.high - sharp.low + 0.02


def test_an_older_record_with_two_clocks_is_read_over_one_span() -> None:
    """Host every half second from 0.1 s on, the tree every second from 0.4 s on: an idle machine stays one."""
    engine, rows = 0.95, []
    for t in np.arange(0.1, 12.0, 0.5):
        parts = {"cpu_busy_s": engine * t, "cpu_idle_s": (2 - engine) * t, "cpu_iowait_s": 0.0, "cpu_steal_s": 0.0}
        rows += [
            {"t_ns": round(t * S), "probe": "host", "field": name, "value": float(v), "reason": None}
            for name, v in parts.items()
        ]
    for t in np.arange(0.4, 12.0, 1.0):
        value = float(engine * t)
        rows.append({"t_ns": round(t * S), "probe": "tree", "field": "cpu_s", "value": value, "reason": None})
    seen = found(Samples(from_rows("samples", rows)), 3.0, 5.0).share
    assert seen.value == pytest.approx(0.0, abs=1e-6)


def test_without_readings_it_says_what_is_missing() -> None:
    assert neighbours(Samples(from_rows("samples", [])), 0, S) == "processor time of the engine was not recorded"
    once = launch(engine=steady(1.0), foreign=steady(0.0), at=[1.0, 1.0])
    assert neighbours(once, 2 * S, 3 * S) == "processor time was read less than twice while the engine ran"


def test_bounds_enclose_the_truth_wherever_the_window_lies() -> None:
    """Bursts of every length and place between readings, seen through ticks."""
    draw = np.random.default_rng(3)
    missed = 0
    for _ in range(60):
        start, length, rate = draw.uniform(0, 8), draw.uniform(0.05, 3.0), draw.uniform(0.2, 1.9)
        begin = draw.uniform(2.0, 5.0)
        end = begin + draw.uniform(0.3, 4.0)
        burst = during(start, start + length, rate)
        at = np.sort(np.concatenate([[0.0], np.arange(0.4, 11.0, 1.0) + draw.uniform(-0.2, 0.2, 11), [12.0]]))
        seen = found(launch(engine=steady(0.1), foreign=burst, at=at.tolist(), tick=0.01), begin, end).share
        overlap = max(0.0, min(end, start + length) - max(begin, start))
        truth = rate * overlap / (2 * (end - begin))
        assert seen.low <= seen.value <= seen.high
        missed += not seen.low - 0.002 <= truth <= seen.high + 0.002
    assert missed <= 3, "the ticks' part of the bounds is one of two standard deviations"
