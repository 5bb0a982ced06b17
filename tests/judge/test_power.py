from __future__ import annotations

import math

import numpy as np
import pytest

from bench.judge.power import (
    describe,
    detectable,
    looks_until,
    needed_blocks,
    power,
    requests_per_launch,
    spent_alpha,
)


@pytest.mark.parametrize(("gap", "blocks"), [(0.047, [3, 5, 9, 16, 30]), (0.091, [3, 3, 4, 6, 9])], ids=["near", "far"])
def test_needed_blocks_by_noise(gap: float, blocks: list[int]) -> None:
    assert [needed_blocks(sd, gap) for sd in (0.02, 0.03, 0.05, 0.07, 0.10)] == blocks


def test_an_effect_within_the_margin_is_never_found() -> None:
    assert needed_blocks(0.03, 0.0) is None
    assert needed_blocks(0.03, -0.1) is None


def test_power_at_the_limit_is_alpha() -> None:
    assert power(8, 0.03, 0.0) == pytest.approx(0.05)


def test_power_agrees_with_simulation() -> None:
    d = np.random.default_rng(3).normal(0.04, 0.05, (20_000, 6))
    low = d.mean(1) - 2.015048 * d.std(1, ddof=1) / math.sqrt(6)
    assert power(6, 0.05, 0.04) == pytest.approx((low > 0).mean(), abs=0.015)


def test_detectable_is_the_inverse_of_power() -> None:
    found = detectable(5, 0.03, 0.05)
    assert power(5, 0.03, math.log(1 + found) - math.log(1.05)) == pytest.approx(0.8)


@pytest.mark.parametrize("blocks", [2, 3, 5, 16, 200, 1000])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.0215, 0.001])
def test_what_is_detectable_is_known_for_every_plan(blocks: int, alpha: float) -> None:
    found = detectable(blocks, 0.001, 0.05, alpha)
    assert power(blocks, 0.001, math.log((1 + found) / 1.05), alpha) == pytest.approx(0.8, abs=1e-6)


def test_requests_per_launch_balances_cost_and_noise() -> None:
    assert requests_per_launch(launch_s=60, request_s=2, launch_sd=0.02, request_sd=0.075) == 21
    assert requests_per_launch(launch_s=60, request_s=2, launch_sd=0.02, request_sd=0.4) == 110
    with pytest.raises(ValueError, match="positive"):
        requests_per_launch(60, 2, 0, 0.1)


def test_one_look_spends_everything() -> None:
    assert spent_alpha((5,)) == pytest.approx((0.05,), rel=0.01)


def test_looks_spend_alpha_and_no_more() -> None:
    looks = (5, 8, 12, 16)
    levels = spent_alpha(looks)
    steps = np.random.default_rng(5).normal(size=(40_000, 16)).cumsum(1)
    from scipy.special import ndtri

    hit = np.zeros(len(steps), dtype=bool)
    for look, level in zip(looks, levels, strict=True):
        hit |= steps[:, look - 1] / math.sqrt(look) > -ndtri(level)
    assert hit.mean() == pytest.approx(0.05, abs=0.004)


def test_a_plan_always_looks_at_its_last_block() -> None:
    assert looks_until(16) == (5, 8, 12, 16)
    assert looks_until(10) == (5, 8, 10)
    assert looks_until(4) == (4,)


def test_the_plan_says_what_it_will_find() -> None:
    assert describe(5) == "5 blocks: a 10% slowdown is found with 80 % (margin 5%, blocks scattering by 3.2%)"
    assert "no verdict" in describe(1)
