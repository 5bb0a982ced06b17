from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from bench.judge.decide import (
    Verdict,
    benjamini_hochberg,
    decide,
    describe,
    detectable,
    holm,
    looks_until,
    spent_alpha,
    trimmed_interval,
)

LIMIT = math.log(1.05)


def blocks(*ratios: float) -> dict[int, float]:
    return {block: math.log(ratio) for block, ratio in enumerate(ratios)}


def test_a_clear_slowdown_fails() -> None:
    decision = decide(blocks(1.19, 1.21, 1.20, 1.18, 1.22), LIMIT)
    assert decision.verdict is Verdict.FAIL
    assert decision.interval is not None
    assert math.exp(decision.interval.low) == pytest.approx(1.185, abs=0.001)


def test_no_change_passes() -> None:
    decision = decide(blocks(1.01, 0.99, 1.00, 1.02, 0.98), LIMIT)
    assert decision.verdict is Verdict.PASS
    assert decision.reason == ""


def test_noise_wider_than_the_margin_is_inconclusive() -> None:
    decision = decide(blocks(1.15, 0.9, 1.1, 0.95, 1.2), LIMIT)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.deciding_block is None


def test_the_interval_is_the_textbook_one() -> None:
    d = np.log([1.06, 1.02, 1.09, 1.03, 1.07, 1.05])
    interval = decide(dict(enumerate(d)), LIMIT).interval
    expected = stats.ttest_1samp(d, 0).confidence_interval(0.90)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_p_values_are_the_textbook_ones() -> None:
    d = np.log([1.06, 1.02, 1.09, 1.03, 1.07, 1.05])
    decision = decide(dict(enumerate(d)), LIMIT)
    assert decision.p_worse == pytest.approx(stats.ttest_1samp(d, LIMIT, alternative="greater").pvalue)
    assert decision.p_change == pytest.approx(stats.ttest_1samp(d, 0).pvalue)


def test_the_trimmed_interval_drops_the_best_and_the_worst_block() -> None:
    d = np.log([1.06, 1.02, 1.60, 1.03, 0.70, 1.05])
    interval = trimmed_interval(d, 0.05)
    assert interval.estimate == pytest.approx(stats.trim_mean(d, 1 / 6))
    assert interval.high - interval.low < 0.2 * (np.ptp(d))


def test_a_verdict_that_rests_on_one_block_names_it() -> None:
    decision = decide({10: -0.02, 11: -0.004, 12: 0.024, 13: 0.045}, LIMIT)
    assert decision.interval is not None
    assert decision.interval.high < LIMIT
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.deciding_block == 11
    assert decision.reason == "block 12 decides: without it the PASS does not hold"


@pytest.mark.parametrize(("ratios", "says"), [((), "no block"), ((1.3,), "only one block"), ((1.3, 1.3), "at least 3")])
def test_too_few_blocks_say_so(ratios: tuple[float, ...], says: str) -> None:
    decision = decide(blocks(*ratios), LIMIT)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert says in decision.reason


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, Verdict.PASS), (1.04, Verdict.PASS), (1.06, Verdict.FAIL), (0.5, Verdict.PASS)]
)
def test_exact_counters_gate_exactly(ratio: float, verdict: Verdict) -> None:
    decision = decide(blocks(ratio, ratio, ratio), LIMIT)
    assert decision.verdict is verdict
    assert decision.sd == pytest.approx(0, abs=1e-15)


def test_no_difference_at_all_is_no_evidence_of_one() -> None:
    assert decide(blocks(1.0, 1.0, 1.0), LIMIT).p_change == 1.0


def test_holm_and_benjamini_hochberg_match_scipy() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.5]
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


@given(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=20), st.randoms())
def test_the_order_of_blocks_changes_nothing(values: list[float], random: object) -> None:
    there = decide(dict(enumerate(values)), LIMIT)
    back = decide(dict(reversed(list(enumerate(values)))), LIMIT)
    assert there.verdict is back.verdict


@given(st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=12), st.floats(0.0, 0.2))
def test_worse_data_never_get_a_better_verdict(values: list[float], shift: float) -> None:
    rank = {Verdict.PASS: 0, Verdict.INCONCLUSIVE: 1, Verdict.FAIL: 2}
    before = decide(dict(enumerate(values)), LIMIT)
    after = decide({block: value + shift for block, value in enumerate(values)}, LIMIT)
    assert rank[after.verdict] >= rank[before.verdict]


def power(blocks: int, sd: float, gap: float, alpha: float = 0.05) -> float:
    """Chance that an effect lying `gap` (log units) beyond the margin is found: the noncentral t."""
    critical = special.stdtrit(blocks - 1, 1 - alpha)
    return float(1 - special.nctdtr(blocks - 1, gap * math.sqrt(blocks) / sd, critical))


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


def test_one_look_spends_everything() -> None:
    assert spent_alpha((5,)) == pytest.approx((0.05,), rel=0.01)


def test_looks_spend_alpha_and_no_more() -> None:
    looks = (5, 8, 12, 16)
    levels = spent_alpha(looks)
    steps = np.random.default_rng(5).normal(size=(40_000, 16)).cumsum(1)
    hit = np.zeros(len(steps), dtype=bool)
    for look, level in zip(looks, levels, strict=True):
        hit |= steps[:, look - 1] / math.sqrt(look) > -special.ndtri(level)
    assert hit.mean() == pytest.approx(0.05, abs=0.004)


def test_a_plan_always_looks_at_its_last_block() -> None:
    assert looks_until(16) == (5, 8, 12, 16)
    assert looks_until(10) == (5, 8, 10)
    assert looks_until(4) == (4,)


def test_the_plan_says_what_it_will_find() -> None:
    assert describe(5) == "5 blocks: a 10% slowdown is found with 80 % (margin 5%, blocks scattering by 3.2%)"
    assert "no verdict" in describe(1)
