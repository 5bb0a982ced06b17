from __future__ import annotations

import numpy as np
import pytest

from bench.judge.history import series, steps


def sessions(logs: np.ndarray) -> list[tuple[str, str, float]]:
    return [(f"run-{index}", "2026-01-01", 100 * float(np.exp(x))) for index, x in enumerate(logs)]


def noise(count: int, seed: int = 0, sd: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, count)


def test_a_lasting_step_is_found_where_it_began() -> None:
    logs = noise(30)
    logs[18:] += 0.1
    (change,) = series("ttft.p50", "v", sessions(logs)).changes
    assert change.session == "run-18"
    assert change.ratio == pytest.approx(1.105, abs=0.03)
    assert change.worse


def test_up_is_better_for_throughput() -> None:
    logs = noise(30)
    logs[18:] += 0.1
    (change,) = series("output_throughput", "v", sessions(logs)).changes
    assert not change.worse


@pytest.mark.parametrize("count", [12, 30, 60])
def test_one_bad_day_is_no_change(count: int) -> None:
    logs = noise(count)
    logs[count // 2] += 0.5
    assert steps(logs) == []


def test_a_level_series_stays_quiet() -> None:
    alarms = sum(bool(steps(noise(30, seed))) for seed in range(200))
    assert alarms <= 6


def test_a_small_step_is_not_told() -> None:
    logs = noise(40, sd=0.001)
    logs[20:] += 0.01
    assert steps(logs) == []


def test_two_steps_are_two_changes() -> None:
    logs = noise(45)
    logs[15:] += 0.1
    logs[30:] -= 0.2
    assert [at for at, _, _ in steps(logs)] == [15, 30]


def test_few_sessions_say_how_many_are_needed() -> None:
    assert "6 are needed" in str(series("ttft.p50", "v", sessions(noise(4))))
    assert "no lasting change" in str(series("ttft.p50", "v", sessions(noise(20))))


def test_constant_series_and_exact_steps() -> None:
    assert steps(np.zeros(20)) == []
    assert [at for at, _, _ in steps(np.array([0.0] * 10 + [0.1] * 10))] == [10]
