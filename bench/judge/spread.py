"""How much boards differ: the board as a random factor, its variance with an interval, and never one pooled figure.

Each board has its launches, on the scale on which the metric is compared (logarithms of durations and rates). With y_ij
of board i: y_ij = μ + b_i + e_ij, b_i ~ N(0, σ_b²) between boards and e_ij ~ N(0, σ_e²) between launches of one board:
the one-way random-effects model (Searle, Casella and McCulloch, Variance Components, 1992, ch. 3). The estimate of σ_b²
is that of the analysis of variance, its interval Tukey's and Williams' (J. S. Williams, Biometrika 49, 1962, 278–281),
whose coverage is at least 1 − 2α and in practice close to 1 − α. Boards with unequally many launches enter by
unweighted means (Thomas and Hultquist, Annals of Statistics 6, 1978, 582–587): the harmonic mean of their counts stands
for n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.analyse.estimate import Estimate
from bench.judge.decide import holm

Values = npt.NDArray[np.float64]
# Fewer boards say nothing about those that are not among them.
ENOUGH_BOARDS = 3
# A modified z-score beyond which a board stands apart (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
APART = 3.5
ENOUGH_FOR_OUTLIERS = 5
ENOUGH_FOR_DRIFT = 6


@dataclass(frozen=True, slots=True)
class Spread:
    """Boards set beside one another, on the comparison scale (natural logarithms, or shares as they are).

    `typical` is the mean of the boards' means with its t interval, `between` σ_b and `within` σ_e; `another` where one
    more board of the kind would lie. `by_board` are the boards' means with their own intervals, from σ_e pooled.
    """

    boards: int
    launches: int
    typical: Estimate
    between: Estimate
    within: float | None
    another: tuple[float, float] | None
    by_board: Mapping[str, Estimate]
    outliers: tuple[str, ...]


def spread(values: Mapping[str, Sequence[float]], alpha: float = 0.05) -> Spread:
    """What boards' launches say of the boards; null with a reason where they are too few."""
    groups = {name: np.asarray(found, dtype=np.float64) for name, found in values.items() if len(found)}
    counts = np.array([len(found) for found in groups.values()], dtype=np.float64)
    means = np.array([found.mean() for found in groups.values()], dtype=np.float64)
    freedom = int(counts.sum()) - len(groups)
    squares = sum(float(((found - found.mean()) ** 2).sum()) for found in groups.values())
    within = math.sqrt(squares / freedom) if freedom > 0 else None
    return Spread(
        boards=len(groups),
        launches=int(counts.sum()),
        typical=_typical(means, alpha),
        between=_between(means, counts, within, freedom, alpha),
        within=within,
        another=_another(means, alpha),
        by_board={name: _board(found, within, freedom, alpha) for name, found in groups.items()},
        outliers=outliers(dict(zip(groups, means.tolist(), strict=True)), within, counts),
    )


def drifts(series: Mapping[str, Sequence[tuple[float, float]]], alpha: float = 0.01) -> dict[str, Estimate]:
    """The boards whose values change with time: slope per hour of (hours, value) by least squares, t interval.

    A board is among them where its slope differs from none after Holm's correction over the boards.
    """
    fitted = {name: _slope(points, alpha) for name, points in series.items()}
    known = {name: found for name, found in fitted.items() if found is not None}
    corrected = holm([p for _, p in known.values()])
    return {name: found[0] for (name, found), p in zip(known.items(), corrected, strict=True) if p < alpha}


def outliers(means: Mapping[str, float], within: float | None, counts: Values) -> tuple[str, ...]:
    """Boards that stand apart: by their distance from the median in units of the median distance, and by more than
    their own launches' noise explains. None among fewer than five."""
    if len(means) < ENOUGH_FOR_OUTLIERS:
        return ()
    found = np.array(list(means.values()))
    distance = np.abs(found - np.median(found))
    noise = 0.0 if within is None else 3 * within / np.sqrt(counts)
    usual = float(np.median(distance))
    apart = (0.6745 * distance > APART * usual) & (distance > noise)
    return tuple(name for name, so in zip(means, apart, strict=True) if so)


def _typical(means: Values, alpha: float) -> Estimate:
    if not len(means):
        return Estimate.null("no board has a value")
    if len(means) < 2:
        return Estimate(float(means.mean()), n=1, reason="one board says nothing about others")
    half = float(stats.t.ppf(1 - alpha / 2, len(means) - 1)) * float(means.std(ddof=1)) / math.sqrt(len(means))
    mean = float(means.mean())
    return Estimate(mean, mean - half, mean + half, len(means))


def _another(means: Values, alpha: float) -> tuple[float, float] | None:
    """Where the mean of one more board would lie: a prediction interval, launches' noise included."""
    if len(means) < ENOUGH_BOARDS:
        return None
    quantile = float(stats.t.ppf(1 - alpha / 2, len(means) - 1))
    half = quantile * float(means.std(ddof=1)) * math.sqrt(1 + 1 / len(means))
    return float(means.mean()) - half, float(means.mean()) + half


def _between(means: Values, counts: Values, within: float | None, freedom: int, alpha: float) -> Estimate:
    if len(means) < ENOUGH_BOARDS:
        return Estimate.null(f"{len(means)} boards; {ENOUGH_BOARDS} are needed")
    if within is None:
        return Estimate.null("no board has two launches: what is the board's and what the launch's cannot be told")
    # The analysis of variance, with the harmonic mean of the counts where they differ.
    n = len(counts) / float((1 / counts).sum())
    a = len(means)
    mean_square = n * float(means.var(ddof=1))
    error = within**2
    variance = max(0.0, (mean_square - error) / n)
    if error == 0:
        # Launches that repeat to the last digit: the boards' means are known, and χ² bounds their variance.
        sums = (a - 1) * float(means.var(ddof=1))
        ends = (sums / float(stats.chi2.ppf(1 - alpha / 2, a - 1)), sums / float(stats.chi2.ppf(alpha / 2, a - 1)))
        return Estimate(math.sqrt(variance), math.sqrt(ends[0]), math.sqrt(ends[1]), a)
    ratio = mean_square / error
    sums = (a - 1) * mean_square / n
    low, high = (
        max(0.0, sums * (1 - float(stats.f.ppf(at, a - 1, freedom)) / ratio) / float(stats.chi2.ppf(at, a - 1)))
        if ratio
        else 0.0
        for at in (1 - alpha / 2, alpha / 2)
    )
    return Estimate(math.sqrt(variance), math.sqrt(low), math.sqrt(high), a)


def _board(found: Values, within: float | None, freedom: int, alpha: float) -> Estimate:
    mean = float(found.mean())
    if within is None:
        return Estimate(mean, n=len(found), reason="no board has two launches")
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * within / math.sqrt(len(found))
    return Estimate(mean, mean - half, mean + half, len(found))


def _slope(points: Sequence[tuple[float, float]], alpha: float) -> tuple[Estimate, float] | None:
    """Slope with its interval, and p of none; None where there are too few points or no time between them."""
    if len(points) < ENOUGH_FOR_DRIFT:
        return None
    x, y = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    if float(np.ptp(x)) == 0 or float(np.ptp(y)) == 0:
        return None
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf(1 - alpha / 2, len(points) - 2)) * float(fit.stderr)
    slope = float(fit.slope)
    return Estimate(slope, slope - half, slope + half, len(points)), float(fit.pvalue)
