"""Estimates: a value with its interval, and the refusal to give one that the sample cannot carry.

Quantiles have order-statistic intervals. For n independent values the number below the q-quantile is Binomial(n, q), so
a pair of order statistics brackets it with a known probability whatever the distribution (David & Nagaraja, Order
Statistics, 7.1). Means over launches have t intervals. Ratios of sums over documents have jackknife intervals: the
document, not the token, is the unit that repeats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.phrases import counted

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval from `n` of what repeats (requests, launches, blocks, documents).

    Ends are null where the sample cannot carry them, infinite where no end exists; `reason` says why in words.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    @classmethod
    def null(cls, reason: str) -> Estimate:
        """Nothing, and why."""
        return cls(None, reason=reason)

    def exp(self) -> Estimate:
        """The same on the scale of which this is the logarithm; what overflows becomes infinite."""
        value, low, high = (None if at is None else float(np.exp(at)) for at in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high)


def needed(q: float, alpha: float = 0.05) -> int:
    """The smallest sample that carries quantile q: from there on its maximum is above (for q < 0.5: its minimum below)
    the quantile with probability 1 − alpha/2. 36 for p90, 72 for p95, 368 for p99; 6 for the median."""
    tail = max(q, 1 - q)
    return math.ceil(math.log(alpha / 2) / math.log(tail))


def ranks(n: int, q: float, alpha: float = 0.05) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics around quantile q with coverage 1 − alpha; None if n is too small."""
    low, high = int(stats.binom.ppf(alpha / 2, n, q)), int(stats.binom.ppf(1 - alpha / 2, n, q)) + 1
    return (low, high) if low >= 1 and high <= n else None


def quantile(values: Iterable[float] | Values, q: float, alpha: float = 0.05) -> Estimate:
    """The q-quantile (linear interpolation, as numpy's default) and its 1 − alpha interval. Not-finite values are
    left out. Below `needed(q)` values there is no interval, and but for the median no value either."""
    kept = finite(values)
    n = len(kept)
    if n == 0:
        return Estimate.null("no values")
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
        return Estimate.null("no values")
    if len(kept) >= needed(0.5, alpha):
        return quantile(kept, 0.5, alpha)
    if len(kept) == 1:
        return Estimate(float(kept[0]), None, None, 1, "one launch: no interval")
    words = f"range of {counted(len(kept), 'launch')}, not an interval"
    return Estimate(float(np.median(kept)), float(kept.min()), float(kept.max()), len(kept), words)


def mean(values: Iterable[float] | Values) -> Estimate:
    """The mean over blocks with its 95 % t interval; none for one block. Not-finite values are left out."""
    kept = finite(values)
    if not len(kept):
        return Estimate(None)
    if len(kept) < 2:
        return Estimate(float(kept[0]), n=1)
    half = float(stats.t.ppf(0.975, len(kept) - 1)) * float(kept.std(ddof=1)) / math.sqrt(len(kept))
    return Estimate(float(kept.mean()), float(kept.mean()) - half, float(kept.mean()) + half, len(kept))


def ratio_of_sums(sums: Sequence[float], weights: Sequence[float]) -> Estimate:
    """Σ sums / Σ weights over documents, with a 95 % jackknife interval: t · √((n−1)/n · Σ(θ₋ᵢ − θ̄)²).

    One document has no interval. B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, ch. 3.
    """
    total, weight = np.asarray(sums, float), np.asarray(weights, float)
    count = len(total)
    if count == 0 or weight.sum() == 0:
        return Estimate.null("no documents")
    value = float(total.sum() / weight.sum())
    if count == 1:
        return Estimate(value, n=1)
    without = (total.sum() - total) / (weight.sum() - weight)
    spread = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, count - 1)) * spread
    return Estimate(value, value - half, value + half, count)


def finite(values: Iterable[float] | Values) -> Values:
    """The finite ones, as an array."""
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    return array[np.isfinite(array)]
