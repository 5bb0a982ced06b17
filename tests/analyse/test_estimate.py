"""Quantiles: the refusals, the ranks, and the coverage that the intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bench.analyse.estimate import median_of_launches, needed, quantile, ranks

FINITE = st.floats(-1e6, 1e6)
TAILS = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688), (0.1, 36)])
def test_a_tail_needs_this_many_values(q: float, n: int) -> None:
    assert needed(q) == n
    assert ranks(n, q) is not None
    assert ranks(n - 1, q) is None


@given(st.integers(6, 5000), TAILS)
def test_the_ranks_enclose_the_quantile_with_at_least_the_confidence_asked_for(n: int, q: float) -> None:
    enclosing = ranks(n, q)
    if enclosing is None:
        assert n < needed(q)
        return
    low, high = enclosing
    assert 1 <= low < high <= n
    # The true quantile lies in [x(low), x(high)) exactly when low ≤ number below it < high.
    assert binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q) >= 0.95 - 1e-12


@given(st.lists(FINITE, max_size=400), TAILS)
def test_an_estimate_lies_within_its_interval_and_its_sample_or_says_why_not(values: list[float], q: float) -> None:
    estimate = quantile(values, q)
    assert estimate.n == len(values)
    if len(values) < needed(q):
        assert estimate.low is None
        assert estimate.high is None
        assert estimate.reason
        assert estimate.value is None or q == 0.5
    else:
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert min(values) <= estimate.low <= estimate.value <= estimate.high <= max(values)


@given(st.lists(FINITE, min_size=80, max_size=200), st.floats(0.5, 2.0), st.floats(-100, 100))
def test_quantiles_follow_the_unit_they_are_given_in(values: list[float], scale: float, shift: float) -> None:
    before, after = quantile(values, 0.95), quantile(np.array(values) * scale + shift, 0.95)
    assert before.value is not None
    assert after.value == pytest.approx(before.value * scale + shift, rel=1e-9, abs=1e-6)


def test_the_interval_covers_the_true_quantile_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    true = float(np.log(20))  # p95 of the unit exponential
    estimates = [quantile(draw.exponential(size=100), 0.95) for _ in range(2000)]
    covered = sum(e.low is not None and e.high is not None and e.low <= true <= e.high for e in estimates)
    # At least 95 % by construction; five standard errors of a binomial below that would be a fault.
    assert covered / 2000 > 0.95 - 5 * np.sqrt(0.05 * 0.95 / 2000)


def test_values_that_are_not_numbers_are_left_out_and_not_counted() -> None:
    assert quantile([float("nan"), float("inf"), *[3.0] * 6], 0.5).n == 6


def test_few_launches_give_a_range_that_is_called_one() -> None:
    estimate = median_of_launches([3.0, 1.0, 2.0])
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 1.0, 3.0)
    assert estimate.reason == "range of 3 launches, not an interval"
    assert median_of_launches(range(1, 7)).reason is None
    one = median_of_launches([5.0])
    assert (one.value, one.low, one.reason) == (5.0, None, "one launch: no interval")
    assert median_of_launches([]).value is None
