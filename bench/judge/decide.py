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

How much is enough stands at the end. Effects are log ratios. `sd` is the standard deviation of a block's log ratio; two
launches that each scatter by s give sd = s·√2 and a little more from the requests. Formulas: noncentral t for power;
Lan and DeMets (1983) with Pocock's spending for looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

import numpy as np
from scipy import optimize, special

from bench.phrases import counted

# Two blocks leave nothing to leave out.
MIN_BLOCKS = 3
# Trimming the best and the worst block needs three more to stand on.
MIN_TRIMMED = 5
# A spread this small in log units is rounding, not noise.
EXACT = 1e-12
# Where a group-sequential plan looks, in blocks.
LOOKS = (5, 8, 12, 16)
# What to assume before a pilot: launches that scatter by 2 %, medians of about 60 requests.
TYPICAL_SD = 0.032


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
            decision,
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{counted(n, 'block')}: a verdict needs at least {MIN_BLOCKS}",
        )
    decider = deciding_block(d, limit, alpha, decision.verdict)
    if decider is not None:
        block = blocks[decider]
        return replace(
            decision,
            verdict=Verdict.INCONCLUSIVE,
            deciding_block=block,
            reason=f"block {block + 1} decides: without it the {decision.verdict} does not hold",
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


@cache
def t_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t."""
    return float(special.stdtrit(df, probability))


@cache
def noncentrality(blocks: int, alpha: float, power: float) -> float:
    """How many standard errors beyond its limit a mean must truly lie to be found with this power."""
    critical = t_quantile(1 - alpha, blocks - 1)

    def missing(shift: float) -> float:
        return float(1 - special.nctdtr(blocks - 1, shift, critical)) - power

    # Far beyond the answer the distribution function is no longer computed; close above it, it is.
    upper = critical + 2
    while missing(upper) < 0:
        upper *= 1.25
    return float(optimize.brentq(missing, 0.0, upper))


def detectable(blocks: int, sd: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The relative slowdown found with this power, 0.1 for 10 %; the margin itself where there is no noise."""
    gap = noncentrality(blocks, alpha, power) * sd / math.sqrt(blocks)
    return math.expm1(math.log1p(margin) + gap) if gap < 100 else math.inf


@cache
def spent_alpha(looks: Sequence[int], alpha: float = 0.05) -> tuple[float, ...]:
    """One-sided level to use at each look so that all together cost `alpha`; looks in blocks, ascending.

    Lan and DeMets with Pocock's spending alpha·ln(1 + (e−1)·t), solved by carrying the density of the not yet stopped
    score forward on a grid (Armitage, McPherson and Rowe 1969).
    """
    times = np.asarray(looks, dtype=float) / looks[-1]
    spend = np.diff(alpha * np.log1p((math.e - 1) * times), prepend=0.0)
    grid = np.linspace(-9.0, 9.0, 1501)
    step = grid[1] - grid[0]
    levels: list[float] = []
    density = np.zeros(0)
    before = 0.0
    for time, share in zip(times, spend, strict=True):
        if not levels:
            score = np.exp(-(grid**2) / (2 * time)) / math.sqrt(2 * math.pi * time)
        else:
            spread = time - before
            kernel = np.exp(-((grid[:, None] - grid[None, :]) ** 2) / (2 * spread)) / math.sqrt(2 * math.pi * spread)
            score = kernel @ density * step
        tail = (np.cumsum(score[::-1])[::-1] - score / 2) * step
        bound = float(np.interp(share, tail[::-1], grid[::-1]))
        levels.append(float(special.ndtr(-bound / math.sqrt(time))))
        density, before = score * np.clip((bound - grid) / step + 0.5, 0.0, 1.0), float(time)
    return tuple(levels)


def looks_until(blocks: int) -> tuple[int, ...]:
    """The looks of a group-sequential plan of at most that many blocks, its last block included."""
    return (*(look for look in LOOKS if look < blocks), blocks)


def level_at(blocks: int, planned: int, alpha: float = 0.05) -> float:
    """The one-sided level for an analysis after so many of the planned blocks of a group-sequential plan."""
    looks = looks_until(planned)
    if blocks >= planned:
        return spent_alpha(looks, alpha)[-1]
    # A plan that was cut short between two looks has its last look where it ended.
    schedule = tuple(sorted({*looks, blocks}))
    return spent_alpha(schedule, alpha)[schedule.index(blocks)]


def describe(blocks: int, sd: float = TYPICAL_SD, margin: float = 0.05, alpha: float = 0.05) -> str:
    """What a plan will be able to find, as a sentence."""
    if blocks < 3:
        return f"{counted(blocks, 'block')}: no verdict is possible; 3 are the least, 5 a sensible start"
    found = detectable(blocks, sd, margin, alpha)
    return (
        f"{blocks} blocks: a {found:.0%} slowdown is found with 80 % "
        f"(margin {margin:.0%}, blocks scattering by {sd:.1%})"
    )
