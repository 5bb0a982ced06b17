"""What is found beside a level, on loads whose truth is known; and that chance alone sets nothing off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.analyse.waves import modes, opening, released, split

MS = 1_000_000


def load(sent_ms: Any, ttft_ms: Any, **columns: Any) -> pd.DataFrame:
    sent = (np.asarray(sent_ms, dtype=float) * MS).astype(np.int64)
    ttft = (np.asarray(ttft_ms, dtype=float) * MS).astype(np.int64)
    made = pd.DataFrame({"request_id": range(len(sent)), "sent_ns": sent, "first_token_ns": sent + ttft})
    made = made.assign(ttft_ms=ttft / MS, measured=True, ok=True, bucket=128, stream=0)
    return made.assign(**columns)


def poisson(rate: float, count: int, seed: int) -> Any:
    return np.cumsum(np.random.default_rng(seed).exponential(1000 / rate, count))


def test_the_opening_wave_is_each_streams_first_request() -> None:
    # Four streams that start together wait 400 ms and 100 ms ever after.
    sent = np.concatenate([np.zeros(4), np.repeat(np.arange(1, 10), 4) * 500.0])
    ttft = np.where(sent == 0, 400.0, 100.0)
    seen = opening(load(sent, ttft, stream=np.tile(range(4), 10)))
    assert seen is not None
    assert (seen.requests, seen.ttft_ms, seen.later, seen.later_ms) == (4, 400.0, 36, 100.0)
    assert opening(load(sent, ttft)) is None


def test_ten_slow_requests_of_a_hundred_are_a_population_that_a_median_does_not_show() -> None:
    draw = np.random.default_rng(1)
    ttft = np.concatenate([draw.uniform(40_000, 58_000, 10), draw.uniform(600, 1400, 90)])
    found = modes(load(np.arange(100) * 10.0, ttft))
    assert found is not None
    assert (found.fast, found.slow, found.slow_ids) == (90, 10, tuple(range(10)))


def test_two_prompt_lengths_are_not_two_populations() -> None:
    draw = np.random.default_rng(2)
    bucket = np.tile([16, 2048], 50)
    ttft = np.where(bucket == 16, 20.0, 400.0) * draw.normal(1, 0.05, 100)
    assert modes(load(np.arange(100) * 500.0, ttft, bucket=bucket)) is None
    assert modes(load(np.arange(100) * 500.0, ttft)) is not None


@pytest.mark.parametrize("shape", ["normal", "lognormal", "exponential", "uniform", "gamma"])
@pytest.mark.parametrize("count", [20, 100, 1000])
def test_one_population_however_skewed_is_hardly_ever_taken_for_two(shape: str, count: int) -> None:
    draw = np.random.default_rng(3)
    how: dict[str, Any] = {
        "normal": lambda: draw.normal(100, 10, count),
        "lognormal": lambda: draw.lognormal(4, 1, count),
        "exponential": lambda: draw.exponential(100, count) + 5,
        "uniform": lambda: draw.uniform(50, 500, count),
        "gamma": lambda: draw.gamma(2, 50, count) + 5,
    }
    found = sum(split(np.log(how[shape]())) is not None for _ in range(200))
    assert found <= 8


def test_a_stall_that_lets_several_go_at_once_is_found() -> None:
    # 20 a second; between 2 and 3 s nothing is answered, then everything that waited.
    sent = np.arange(100) * 50.0
    draw = np.random.default_rng(4)
    ttft = draw.normal(30, 3, 100)
    stalled = (sent >= 2000) & (sent < 3000)
    ttft[stalled] = 3000 - sent[stalled] + draw.uniform(0, 0.3, stalled.sum())
    found = released(load(sent, ttft))
    assert found is not None
    assert (found.groups, found.largest) == (1, 20)
    assert found.pairs > 2 * found.chance


def test_a_server_that_answers_on_the_tick_of_a_timer_is_found() -> None:
    sent = poisson(200, 400, 5)
    first = np.ceil((sent + 5) / 50) * 50
    found = released(load(sent, first - sent))
    assert found is not None
    assert found.requests > 350


@pytest.mark.parametrize("rate", [20, 200, 2000, 10_000])
def test_chance_at_any_rate_sets_nothing_off(rate: float) -> None:
    found = 0
    for seed in range(10):
        draw = np.random.default_rng(seed)
        found += released(load(poisson(rate, 300, seed), draw.gamma(4, 15, 300) + 10)) is not None
    assert found == 0


def test_bursts_that_are_answered_alike_explain_themselves() -> None:
    sent = np.repeat(np.arange(20) * 500.0, 8)
    ttft = 50 + np.random.default_rng(6).uniform(0, 0.2, 160)
    assert released(load(sent, ttft)) is None
