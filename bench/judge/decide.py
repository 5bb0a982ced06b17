"""The decision: from one number per block to PASS, FAIL or INCONCLUSIVE.

A block launches both variants once, in random order. Its number d = ln(candidate / baseline), turned so that positive
is worse. What a session does to a machine (heat, neighbours, page cache) it does to both launches of a block, and d is
spared. What differs from launch to launch is the noise that the interval below is made of. So the t interval of d over
blocks keeps its error rate where an interval over requests does not.

    FAIL           the lower bound lies beyond the margin: worse than allowed, with one-sided error alpha
    PASS           the upper bound lies within the margin: not worse than allowed, with one-sided error alpha
    INCONCLUSIVE   neither, or too few blocks, or one block decides

One block decides when the others, judged at 2 alpha, no longer give the verdict. Twice, because one block fewer is less
evidence even where nothing is wrong: at alpha itself the check would cost 24 points of power at five blocks; at twice
alpha it costs less than five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import special

from bench.judge.power import detectable, t_quantile

# Two blocks leave nothing to leave out.
MIN_BLOCKS = 3
# Trimming the best and the worst block needs three more to stand on.
MIN_TRIMMED = 5
# A spread this small in log units is rounding, not noise.
EXACT = 1e-12


class Verdict(StrEnum):
    """What a gate says about one metric, or about all."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its bounds, in log units, positive is worse."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on one metric, with all that it rests on. Effects are log ratios, positive is worse.

    `reason` is empty where the interval's place beside the limit says it all.
    `p_worse` is the one-sided p-value of "no worse than the margin", `p_change` the two-sided one of "no change".
    `mde` is the relative slowdown that this many blocks of this noise would find with 80 %.
    """

    verdict: Verdict
    reason: str
    blocks: int
    interval: Interval | None = None
    trimmed: Interval | None = None
    sd: float | None = None
    p_worse: float | None = None
    p_change: float | None = None
    mde: float | None = None
    deciding_block: int | None = None


def decide(differences: Mapping[int, float], limit: float, alpha: float = 0.05) -> Decision:
    """Judge one metric: block to log ratio, positive is worse; `limit` is the margin in the same units."""
    blocks = list(differences)
    d = np.array([differences[block] for block in blocks], dtype=float)
    n = len(d)
    if n < 2:
        count = "no block has" if n == 0 else "only one block has"
        interval = Interval(float(d[0]), -math.inf, math.inf) if n else None
        return Decision(Verdict.INCONCLUSIVE, f"{count} both launches: no noise to judge by", n, interval)

    mean, sd = float(d.mean()), float(d.std(ddof=1))
    interval = t_interval(mean, sd, n, alpha)
    decision = Decision(
        verdict=_side(interval, limit),
        reason="",
        blocks=n,
        interval=interval,
        trimmed=trimmed_interval(d, alpha) if n >= MIN_TRIMMED else None,
        sd=sd,
        p_worse=p_above(mean, sd, n, limit),
        p_change=2 * min(p_above(mean, sd, n, 0.0), 1 - p_above(mean, sd, n, 0.0)),
        mde=detectable(n, sd, math.expm1(limit), alpha),
    )
    if n < MIN_BLOCKS:
        return replace(
            decision, verdict=Verdict.INCONCLUSIVE, reason=f"{n} blocks: a verdict needs at least {MIN_BLOCKS}"
        )
    decider = deciding_block(d, limit, alpha, decision.verdict)
    if decider is not None:
        block = blocks[decider]
        return replace(
            decision,
            verdict=Verdict.INCONCLUSIVE,
            deciding_block=block,
            reason=f"block {block} decides: without it the {decision.verdict} does not hold",
        )
    return decision


def t_interval(mean: float, sd: float, n: int, alpha: float) -> Interval:
    """mean ± t(1−alpha, n−1)·sd/√n: two-sided level 1 − 2 alpha, 90 % at alpha 0.05."""
    half = t_quantile(1 - alpha, n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def p_above(mean: float, sd: float, n: int, limit: float) -> float:
    """One-sided p-value of "the true mean is not above the limit"."""
    if sd <= EXACT:
        return 0.5 if abs(mean - limit) <= EXACT else float(mean < limit)
    return float(special.stdtr(n - 1, -(mean - limit) * math.sqrt(n) / sd))


def trimmed_interval(d: np.ndarray, alpha: float) -> Interval:
    """Yuen's t interval with the best and the worst block trimmed: shown beside, never deciding."""
    n, h = len(d), len(d) - 2
    ordered = np.sort(d)
    winsorised = np.concatenate([[ordered[1]], ordered[1:-1], [ordered[-2]]])
    error = winsorised.std(ddof=1) * math.sqrt((n - 1) / (h * (h - 1)))
    half = t_quantile(1 - alpha, h - 1) * float(error)
    mean = float(ordered[1:-1].mean())
    return Interval(mean, mean - half, mean + half)


def deciding_block(d: np.ndarray, limit: float, alpha: float, verdict: Verdict) -> int | None:
    """Index of the block without which the others, at 2 alpha, do not give the verdict; the most influential one."""
    if verdict not in {Verdict.PASS, Verdict.FAIL}:
        return None
    n = len(d)
    means = (d.sum() - d) / (n - 1)
    # Var of the rest: the sum of squares loses the block's own and the shift of the mean that it caused.
    squares = ((d - d.mean()) ** 2).sum() - (d - d.mean()) ** 2 * n / (n - 1)
    sds = np.sqrt(np.maximum(squares, 0.0) / (n - 2))
    half = t_quantile(1 - 2 * alpha, n - 2) * sds / math.sqrt(n - 1)
    # Distance by which each leave-one-out bound still supports the verdict; negative means that it does not.
    support = (means - half) - limit if verdict is Verdict.FAIL else limit - (means + half)
    worst = int(np.argmin(support))
    return worst if support[worst] < -EXACT else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: controls the chance of one false alarm among all of them."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values: controls the share of false findings among the findings."""
    order = np.argsort(p_values)[::-1]
    count = len(p_values)
    scaled = np.asarray(p_values, dtype=float)[order] * count / np.arange(count, 0, -1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def _side(interval: Interval, limit: float) -> Verdict:
    if interval.low > limit:
        return Verdict.FAIL
    return Verdict.PASS if interval.high < limit else Verdict.INCONCLUSIVE
