"""One metric compared: both sides, the ratio with its interval, the verdict where there is a margin, and its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.analyse.metrics import Metric
from bench.errors import UsageError
from bench.judge.comparable import Pair
from bench.judge.decide import Decision, Interval, Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """One metric compared: `a` and `b` are medians over launches, `ratio` is b over a, `bounds` its interval.

    A metric that is compared by difference has `shift` and `shifts` instead, b − a and its interval.

    `verdict` is None where there is no margin; `p_adjusted` is then Benjamini and Hochberg's, else Holm's.
    """

    metric: Metric
    a: float | None
    b: float | None
    decision: Decision
    pairs: tuple[Pair, ...] = ()
    margin: float | None = None
    verdict: Verdict | None = None
    reason: str = ""
    p_adjusted: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Geometric mean of the blocks' ratios."""
        interval = self.decision.interval
        return math.exp(self._sign * interval.estimate) if interval and not self.metric.by_difference else None

    @property
    def shift(self) -> float | None:
        """Mean of the blocks' differences, of a metric that is compared so."""
        interval = self.decision.interval
        return self._sign * interval.estimate if interval and self.metric.by_difference else None

    @property
    def shifts(self) -> tuple[float, float] | None:
        """The difference's interval."""
        return self._ends(self.decision.interval) if self.metric.by_difference else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ratio's interval."""
        return self._ratios(self.decision.interval)

    @property
    def trimmed(self) -> tuple[float, float] | None:
        """The same without the best and the worst block."""
        return self._ratios(self.decision.trimmed)

    @property
    def limit(self) -> float | None:
        """The ratio, or the difference, at which the margin lies."""
        if self.margin is None:
            return None
        return self._sign * self.margin + (0 if self.metric.by_difference else 1)

    @property
    def mde(self) -> float | None:
        """The change for the worse, as a share, that these data would have found with 80 %."""
        mde = self.decision.mde
        if mde is not None and self.metric.by_difference:
            return math.log1p(mde)
        return mde if mde is None or self._sign > 0 else 1 - 1 / (1 + mde)

    @property
    def _sign(self) -> int:
        return -1 if self.metric.direction == "higher" else 1

    def _ratios(self, interval: Interval | None) -> tuple[float, float] | None:
        ends = None if self.metric.by_difference else self._ends(interval)
        return None if ends is None else (math.exp(ends[0]), math.exp(ends[1]))

    def _ends(self, interval: Interval | None) -> tuple[float, float] | None:
        if interval is None or not math.isfinite(interval.low):
            return None
        low, high = sorted((self._sign * interval.low, self._sign * interval.high))
        return low, high


def limit_of(measure: Metric, margin: float) -> float:
    """A margin as a log ratio, positive is worse: 5 % more where less is better, 5 % less where more is.

    Of a metric that is compared by difference it is the share itself: 5 % are five percentage points.
    """
    if measure.by_difference:
        return margin
    if measure.direction != "higher":
        return math.log1p(margin)
    if margin >= 1:
        raise UsageError(f"{measure.id} cannot lose {margin:.0%}: its margin lies below 100%")
    return -math.log1p(-margin)


def explain(result: Result) -> str:
    """Where the interval lies beside the margin, in the metric's own direction."""
    assert result.margin is not None
    low, high = _changes(result)
    up = result.metric.direction != "higher"
    word = "up" if up else "down"
    least, most = (low, high) if up else (-high, -low)
    allowed = amount(result, result.margin)
    match result.verdict:
        case Verdict.FAIL:
            return f"{word} by at least {amount(result, least)}; {allowed} is allowed"
        case Verdict.PASS if most < 0:
            return f"{'down' if up else 'up'} by at least {amount(result, -most)}, which is better"
        case Verdict.PASS:
            return f"{word} by at most {amount(result, most)}; {allowed} is allowed"
    between = f"between {amount(result, low, '+')} and {amount(result, high, '+')}"
    return f"{between}: the limit of {'+' if up else '-'}{allowed} lies in between"


def amount(result: Result, share: float, sign: str = "") -> str:
    """A change of a result's metric in words: per cent, or percentage points where it is compared by difference."""
    if not result.metric.by_difference:
        return f"{share:{sign}.1%}"
    return f"{100 * share:{sign}.1f} points"


def _changes(result: Result) -> tuple[float, float]:
    """The interval as changes: of the ratio from one, or of the difference from zero."""
    if result.metric.by_difference:
        assert result.shifts is not None
        return result.shifts
    assert result.bounds is not None
    return result.bounds[0] - 1, result.bounds[1] - 1
