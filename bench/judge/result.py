"""One metric compared: both sides, the ratio with its interval, the verdict where there is a margin, and its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.analyse.metrics import Metric
from bench.errors import UsageError
from bench.judge.decide import Decision, Interval, Verdict
from bench.judge.pairs import Pair


@dataclass(frozen=True, slots=True)
class Result:
    """One metric compared: `a` and `b` are medians over launches, `ratio` is b over a, `bounds` its interval.

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
        return math.exp(self._sign * interval.estimate) if interval else None

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
        """The ratio at which the margin lies."""
        return None if self.margin is None else 1 + self._sign * self.margin

    @property
    def mde(self) -> float | None:
        """The change for the worse, as a share, that these data would have found with 80 %."""
        mde = self.decision.mde
        return mde if mde is None or self._sign > 0 else 1 - 1 / (1 + mde)

    @property
    def _sign(self) -> int:
        return -1 if self.metric.direction == "higher" else 1

    def _ratios(self, interval: Interval | None) -> tuple[float, float] | None:
        if interval is None or not math.isfinite(interval.low):
            return None
        low, high = sorted((self._sign * interval.low, self._sign * interval.high))
        return math.exp(low), math.exp(high)


def limit_of(measure: Metric, margin: float) -> float:
    """A margin as a log ratio, positive is worse: 5 % more where less is better, 5 % less where more is."""
    if measure.direction != "higher":
        return math.log1p(margin)
    if margin >= 1:
        raise UsageError(f"{measure.id} cannot lose {margin:.0%}: its margin lies below 100%")
    return -math.log1p(-margin)


def explain(result: Result) -> str:
    """Where the interval lies beside the margin, in the metric's own direction."""
    assert result.bounds is not None
    assert result.margin is not None
    low, high = result.bounds[0] - 1, result.bounds[1] - 1
    up = result.metric.direction != "higher"
    word = "up" if up else "down"
    least, most = (low, high) if up else (-high, -low)
    match result.verdict:
        case Verdict.FAIL:
            return f"{word} by at least {least:.1%}; {result.margin:.1%} is allowed"
        case Verdict.PASS if most < 0:
            return f"{'down' if up else 'up'} by at least {-most:.1%}, which is better"
        case Verdict.PASS:
            return f"{word} by at most {most:.1%}; {result.margin:.1%} is allowed"
    return f"between {low:+.1%} and {high:+.1%}: the limit of {'+' if up else '-'}{result.margin:.1%} lies in between"
