"""Quantiles with order-statistic intervals, and the refusal to give one that the sample cannot carry.

For n independent values the number below the q-quantile is Binomial(n, q), so a pair of order statistics brackets it
with a known probability whatever the distribution (David & Nagaraja, Order Statistics, 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from bench.phrases import counted

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, both null where the sample cannot carry them; `reason` says why in words."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


def needed(q: float, alpha: float = 0.05) -> int:
    """The smallest sample that carries quantile q: from there on its maximum is above (for q < 0.5: its minimum below)
    the quantile with probability 1 − alpha/2. 36 for p90, 72 for p95, 368 for p99; 6 for the median."""
    tail = max(q, 1 - q)
    return math.ceil(math.log(alpha / 2) / math.log(tail))


def ranks(n: int, q: float, alpha: float = 0.05) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics around quantile q with coverage 1 − alpha; None if n is too small."""
    low, high = int(binom.ppf(alpha / 2, n, q)), int(binom.ppf(1 - alpha / 2, n, q)) + 1
    return (low, high) if low >= 1 and high <= n else None


def quantile(values: Iterable[float] | Values, q: float, alpha: float = 0.05) -> Estimate:
    """The q-quantile (linear interpolation, as numpy's default) and its 1 − alpha interval. Not-finite values are
    left out. Below `needed(q)` values there is no interval, and but for the median no value either."""
    kept = finite(values)
    n = len(kept)
    if n == 0:
        return Estimate(None, None, None, 0, "no values")
    enclosing = ranks(n, q, alpha)
    if enclosing is None:
        reason = f"p{100 * q:g} needs at least {needed(q, alpha)} values, there are {n}"
        # The middle of a small sample is still its middle; its tail is not there at all.
        return Estimate(float(np.median(kept)) if q == 0.5 else None, None, None, n, reason)
    ordered = np.sort(kept)
    low, high = enclosing
    return Estimate(float(np.quantile(ordered, q)), float(ordered[low - 1]), float(ordered[high - 1]), n)


def median_of_launches(values: Iterable[float] | Values, alpha: float = 0.05) -> Estimate:
    """The median of one value per launch. Below six launches no order-statistic interval exists: low and high are then
    the smallest and the largest value, and `reason` says so."""
    kept = finite(values)
    if len(kept) == 0:
        return Estimate(None, None, None, 0, "no values")
    if len(kept) >= needed(0.5, alpha):
        return quantile(kept, 0.5, alpha)
    if len(kept) == 1:
        return Estimate(float(kept[0]), None, None, 1, "one launch: no interval")
    words = f"range of {counted(len(kept), 'launch')}, not an interval"
    return Estimate(float(np.median(kept)), float(kept.min()), float(kept.max()), len(kept), words)


def finite(values: Iterable[float] | Values) -> Values:
    """The finite ones, as an array."""
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    return array[np.isfinite(array)]
