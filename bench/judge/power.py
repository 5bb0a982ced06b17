"""How much is enough: blocks, requests per launch, looks, and what a plan will be able to see.

Effects are log ratios. `sd` is the standard deviation of a block's log ratio; two launches that each scatter by s give
sd = s·√2 and a little more from the requests. Formulas: noncentral t for power; Kalibera and Jones (2013) for the
split between launches and requests; Lan and DeMets (1983) with Pocock's spending for looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import optimize, special

# Where a group-sequential plan looks, in blocks.
LOOKS = (5, 8, 12, 16)
# What to assume before a pilot: launches that scatter by 2 %, medians of about 60 requests.
TYPICAL_SD = 0.032
MAX_BLOCKS = 1000


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


def power(blocks: int, sd: float, gap: float, alpha: float = 0.05) -> float:
    """Chance that an effect lying `gap` (log units) beyond the margin is found; 0 below two blocks."""
    if blocks < 2:
        return 0.0
    if sd == 0:
        return float(gap > 0)
    return float(1 - special.nctdtr(blocks - 1, gap * math.sqrt(blocks) / sd, t_quantile(1 - alpha, blocks - 1)))


def detectable(blocks: int, sd: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The relative slowdown found with this power, 0.1 for 10 %; the margin itself where there is no noise."""
    gap = noncentrality(blocks, alpha, power) * sd / math.sqrt(blocks)
    return math.expm1(math.log1p(margin) + gap) if gap < 100 else math.inf


def needed_blocks(sd: float, gap: float, alpha: float = 0.05, target: float = 0.8) -> int | None:
    """Fewest blocks with which an effect `gap` beyond the margin is found; None beyond a thousand."""
    if gap <= 0:
        return None
    low, high = 3, MAX_BLOCKS
    if power(high, sd, gap, alpha) < target:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, sd, gap, alpha) >= target else (middle + 1, high)
    return low


def requests_per_launch(launch_s: float, request_s: float, launch_sd: float, request_sd: float) -> int:
    """Requests that buy the most precision per second: √(launch cost/request cost · request variance/launch variance).

    `request_sd` is the SD of the launch's log quantile times √requests: what a single request would contribute.
    """
    if launch_sd <= 0 or request_s <= 0:
        raise ValueError("a launch's scatter and a request's cost must be positive")
    return max(1, math.ceil(math.sqrt(launch_s / request_s) * request_sd / launch_sd))


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
        return f"{blocks} block{'s' * (blocks > 1)}: no verdict is possible; 3 are the least, 5 a sensible start"
    found = detectable(blocks, sd, margin, alpha)
    return (
        f"{blocks} blocks: a {found:.0%} slowdown is found with 80 % "
        f"(margin {margin:.0%}, blocks scattering by {sd:.1%})"
    )
