"""The classifier's error rates on made-up launches: what it calls flat is flat, what drifts is found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analyse.run import Run
from bench.analyse.steady import by_launch, classify, curve, segments
from tests.runs import Behaviour, synthetic_run

N, REPEATS = 200, 80
INDEX = np.arange(N)


def noise(draw: np.random.Generator) -> Any:
    """Log-normal, with one request in thirty half as slow again."""
    values = draw.lognormal(0, 0.03, N)
    tail = draw.random(N) < 0.03
    values[tail] *= 1 + draw.exponential(0.5, int(tail.sum()))
    return values


def rates(shape: Any) -> tuple[dict[str, float], list[int]]:
    draw = np.random.default_rng(3)
    kinds: Counter[str] = Counter()
    firsts = []
    for _ in range(REPEATS):
        found = classify(list(100 * shape * noise(draw)))
        kinds[found.kind] += 1
        if found.first is not None:
            firsts.append(found.first)
    return {kind: count / REPEATS for kind, count in kinds.items()}, firsts


def test_flat_launches_are_called_flat() -> None:
    kinds, _ = rates(np.ones(N))
    assert kinds["flat"] >= 0.95


@pytest.mark.parametrize("length", [30, 60])
def test_a_step_of_warm_up_is_cut_where_it_ends(length: int) -> None:
    kinds, firsts = rates(np.where(length > INDEX, 1.3, 1.0))
    assert kinds["warm-up"] >= 0.95
    assert np.mean(firsts) == pytest.approx(length, abs=2)


def test_a_fading_warm_up_is_a_warm_up() -> None:
    kinds, firsts = rates(1 + 2 * np.exp(-INDEX / 8))
    assert kinds["warm-up"] >= 0.95
    assert 20 < np.mean(firsts) < 50


def test_a_late_throttle_is_always_found() -> None:
    kinds, firsts = rates(np.where(INDEX < 150, 1.0, 1.15))
    assert kinds == {"slowdown": 1.0}
    assert firsts == []


def test_an_early_throttle_is_a_slowdown_too() -> None:
    kinds, _ = rates(np.where(INDEX < 60, 1.0, 1.15))
    assert kinds["slowdown"] >= 0.98


def test_a_slow_drift_is_found() -> None:
    kinds, _ = rates(1 + 0.1 * INDEX / N)
    assert kinds["slowdown"] >= 0.67


def test_the_uncertainty_of_the_first_steady_request_contains_it() -> None:
    draw = np.random.default_rng(4)
    found = classify(list(100 * np.where(INDEX < 40, 1.25, 1.0) * noise(draw)))
    assert found.first_low is not None
    assert found.first_high is not None
    assert found.first_low <= 40 <= found.first_high
    assert found.change == pytest.approx(-0.2, abs=0.03)


def test_forty_requests_are_the_least_that_say_anything() -> None:
    assert classify([100.0] * 39).kind == "too short"
    assert classify([100.0] * 40).kind == "flat"


def test_mixed_prompt_lengths_are_no_trend() -> None:
    draw = np.random.default_rng(1)
    buckets = [15, 128, 512] * 40
    latencies = [bucket * draw.lognormal(0, 0.03) for bucket in buckets]
    assert classify(latencies, buckets).kind == "flat"
    # The same requests, long ones last: still flat within each length.
    order = sorted(range(120), key=lambda index: buckets[index])
    found = classify([latencies[index] for index in order], [buckets[index] for index in order])
    assert found.kind == "flat"


def test_lengths_seen_once_are_reported_as_uncovered() -> None:
    found = classify([100.0] * 41, [15] * 40 + [512])
    assert found.uncovered == (512,)


def test_failed_requests_are_no_latencies() -> None:
    assert classify([100.0] * 40 + [float("nan")] * 5).n == 40


def test_segments_cover_every_value_once() -> None:
    bounds = segments(np.concatenate([np.zeros(30), np.ones(30)]), 0.01)
    assert bounds == [(0, 30), (30, 60)]


def test_every_launch_of_a_run_has_a_class_and_a_curve(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path, {"a": Behaviour(first=100.0, jitter=0.02)}, blocks=2, requests=60, warmups=3)
    run = Run.open(folder)
    table = by_launch(run)
    assert table["kind"].to_list() == ["flat", "flat"]
    drawn = curve(run.all[0])
    assert drawn["stage"].to_list()[:4] == ["warmup", "warmup", "warmup", "first"]
    assert drawn.loc[drawn["stage"] == "measured", "relative"].median() == pytest.approx(1.0, abs=0.01)
