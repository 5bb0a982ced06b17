"""A ratio of sums over documents with its interval: the document, not the token, is the unit that repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, or the reason why there is none. `low` and `high` are None for one document."""

    value: float | None
    low: float | None = None
    high: float | None = None
    documents: int = 0
    reason: str | None = None

    @classmethod
    def null(cls, reason: str) -> Estimate:
        """Nothing, and why."""
        return cls(None, reason=reason)

    def exp(self) -> Estimate:
        """The same on the scale of which this is the logarithm; what overflows becomes infinite."""
        value, low, high = (None if at is None else float(np.exp(at)) for at in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.documents, self.reason)


def mean(sums: Sequence[float], weights: Sequence[float]) -> Estimate:
    """Σ sums / Σ weights over documents, with a jackknife interval: t · √((n−1)/n · Σ(θ₋ᵢ − θ̄)²).

    B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, ch. 3.
    """
    total, weight = np.asarray(sums, float), np.asarray(weights, float)
    count = len(total)
    if count == 0 or weight.sum() == 0:
        return Estimate.null("no documents")
    value = float(total.sum() / weight.sum())
    if count == 1:
        return Estimate(value, documents=1)
    without = (total.sum() - total) / (weight.sum() - weight)
    spread = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * spread
    return Estimate(value, value - half, value + half, count)
