"""Was a launch steady, and from which request on? Segments of level, then a test for trend.

Each latency is divided by the median of its length bucket, so that a mix of lengths is no trend; the logs go through a
running median of 5. Levels are found by optimal partition with an L2 cost and a penalty of 9 ln N in units of the
robust noise (Barrett et al. 2017 take 15 ln N on raw data). The steady part begins with the first segment from which on
all medians lie within 3 % of the last; if that is past the middle, the launch is not steady. Then Kendall's tau
(p < .01) and the slope of Theil and Sen over medians of 10 look for a drift that has no steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

if TYPE_CHECKING:
    from bench.analyse.run import Launch, Run

Class = Literal["flat", "warm-up", "slowdown", "not steady", "too short"]
Values = np.ndarray[Any, np.dtype[np.float64]]

SHORTEST = 40
RUNNING = 5
SEGMENT = 5
PENALTY = 9.0
# A running median of 5 scatters less than the raw values by about this factor.
SMOOTHED = 0.6
TOLERANCE = math.log(1.03)
TREND_WINDOW = 10
TREND_P = 0.01
# Seen this often, a shape has paid its one-time cost: the first time compiles, the second may still tune.
COVERED = 2


@dataclass(frozen=True, slots=True)
class Steadiness:
    """What a launch's latencies look like over its requests.

    `first` is the index of the first steady request, `first_low` and `first_high` where it may also lie; null where
    there is no steady part. `change` is last level / first level − 1; `drift` the relative change by trend over the
    steady part; `uncovered` the prompt lengths seen less than twice.
    """

    kind: Class
    first: int | None
    first_low: int | None
    first_high: int | None
    change: float | None
    drift: float | None
    n: int
    uncovered: tuple[int, ...] = ()


def classify(latencies_ms: Sequence[float], buckets: Sequence[int | None] | None = None) -> Steadiness:
    """The class of one launch's latencies in the order in which they were sent."""
    values = np.asarray(latencies_ms, dtype=np.float64)
    lengths: list[int | None] = [None] * len(values) if buckets is None else list(buckets)
    uncovered = tuple(sorted({b for b in lengths if b is not None and lengths.count(b) < COVERED}))
    known = np.isfinite(values) & (values > 0)
    values, lengths = values[known], [b for b, good in zip(lengths, known, strict=True) if good]
    if len(values) < SHORTEST:
        return Steadiness("too short", None, None, None, None, None, len(values), uncovered)
    level = np.log(values) - _bucket_levels(np.log(values), lengths)
    smooth = _running_median(level)
    bounds = segments(smooth, noise_of(level))
    medians = [float(np.median(smooth[start:end])) for start, end in bounds]
    index = _first_steady(medians)
    first = bounds[index][0]
    change = math.exp(medians[-1] - medians[0]) - 1
    if first > len(values) / 2:
        kind: Class = "slowdown" if medians[-1] - medians[0] > TOLERANCE else "not steady"
        return Steadiness(kind, None, None, None, change, None, len(values), uncovered)
    slope = _trend(level[first:])
    if slope is not None:
        kind = "slowdown" if slope > 0 else "not steady"
        return Steadiness(kind, None, None, None, change, math.exp(slope) - 1, len(values), uncovered)
    if index == 0:
        return Steadiness("flat", 0, 0, 0, change, 0.0, len(values), uncovered)
    kind = "warm-up" if medians[0] > medians[-1] else "slowdown"
    low, high = _edge(smooth, bounds[index - 1], bounds[index])
    return Steadiness(kind, first, low, high, change, 0.0, len(values), uncovered)


def of_launch(launch: Launch) -> Steadiness:
    """The class of a launch by the TTFT of its answered workload requests, the first one included."""
    return of_requests(launch.requests())


def of_requests(table: pa.Table) -> Steadiness:
    """The same from a launch's requests with their durations."""
    requests = table.to_pandas()
    asked = requests[requests["stage"].isin(["first", "measured"]) & requests["ok"]].sort_values("sent_ns")
    buckets = [None if pd.isna(bucket) else int(bucket) for bucket in asked["bucket"]]
    return classify(asked["ttft_ms"].astype(float).to_list(), buckets)


def by_launch(run: Run) -> pd.DataFrame:
    """One row per launch: launch, variant, block, kind, first, first_low, first_high, change, drift, n, uncovered."""
    rows = []
    for launch in run.all:
        if launch.record.status in ("ok", "invalid"):
            seen = of_launch(launch)
            head = {"launch": launch.id, "variant": launch.record.variant, "block": launch.record.block}
            rows.append(head | {name: getattr(seen, name) for name in Steadiness.__slots__})
    return pd.DataFrame(rows, columns=["launch", "variant", "block", *Steadiness.__slots__])


def curve(launch: Launch) -> pd.DataFrame:
    """A launch's TTFT over its requests, warm-up too: index, stage, label, ttft_ms, and `relative` to its bucket."""
    requests = launch.requests().to_pandas().sort_values("sent_ns")
    known = requests[requests["ttft_ms"].notna()]
    steady = known[known["measured"]].groupby("bucket", dropna=False)["ttft_ms"].median()
    base = known["bucket"].map(steady).fillna(known.loc[known["measured"], "ttft_ms"].median())
    drawn: pd.DataFrame = known[["stage", "label", "bucket", "ttft_ms"]].reset_index(drop=True)
    drawn["index"], drawn["relative"] = range(len(known)), (known["ttft_ms"] / base).to_numpy()
    return drawn


def noise_of(values: Values) -> float:
    """The noise that is left after a running median: the robust spread of first differences, smoothed.

    Constant latencies have none; a hundredth of the tolerance keeps every wiggle from being a level.
    """
    steps = np.diff(values)
    spread = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)
    return max(SMOOTHED * spread, TOLERANCE / 100)


def segments(values: Values, noise: float) -> list[tuple[int, int]]:
    """The optimal partition into levels as (start, end): least squared error plus a penalty per segment."""
    n = len(values)
    penalty = PENALTY * math.log(n) * noise**2
    sums, squares = np.concatenate([[0.0], np.cumsum(values)]), np.concatenate([[0.0], np.cumsum(values**2)])
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    before = np.zeros(n + 1, dtype=int)
    for end in range(SEGMENT, n + 1):
        starts = np.arange(0, end - SEGMENT + 1)
        length = end - starts
        cost = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / length
        total = best[starts] + cost + penalty
        pick = int(np.argmin(total))
        best[end], before[end] = total[pick], starts[pick]
    bounds = []
    end = n
    while end > 0:
        bounds.append((int(before[end]), end))
        end = int(before[end])
    return bounds[::-1]


def _first_steady(medians: Sequence[float]) -> int:
    """The first segment from which on every median lies within the tolerance of the last."""
    index = len(medians) - 1
    while index > 0 and abs(medians[index - 1] - medians[-1]) <= TOLERANCE:
        index -= 1
    return index


def _bucket_levels(logs: Values, lengths: Sequence[int | None]) -> Values:
    """The median of each value's own bucket; buckets too small to have one share the median of all."""
    whole = float(np.median(logs))
    names = np.array([-1 if b is None else b for b in lengths])
    levels = np.full(len(logs), whole)
    for name in set(names.tolist()):
        mine = names == name
        if mine.sum() >= COVERED:
            levels[mine] = np.median(logs[mine])
    return levels


def _running_median(values: Values) -> Values:
    half = RUNNING // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, RUNNING)
    return np.asarray(np.nanmedian(windows, axis=1), dtype=np.float64)


def _trend(values: Values) -> float | None:
    """The drift over all values, in logs, where Kendall's test is sure of one that matters; else None."""
    count = len(values) // TREND_WINDOW
    if count < 4:
        return None
    medians = np.median(values[: count * TREND_WINDOW].reshape(count, TREND_WINDOW), axis=1)
    index = np.arange(count)
    tau = stats.kendalltau(index, medians)
    slope = float(stats.theilslopes(medians, index).slope) * count
    return slope if float(tau.pvalue) < TREND_P and abs(slope) > TOLERANCE else None


def _edge(values: Values, before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    """Where the boundary between two segments may also lie: wherever moving it costs less than one penalty's share."""
    left, right = float(np.median(values[slice(*before)])), float(np.median(values[slice(*after)]))
    noise = max(float(np.std(values[slice(*after)])), TOLERANCE / 100)
    start, stop = before[0] + 1, after[1]
    costs = np.array(
        [
            float(((values[before[0] : cut] - left) ** 2).sum() + ((values[cut : after[1]] - right) ** 2).sum())
            for cut in range(start, stop)
        ]
    )
    near = np.flatnonzero(costs - costs.min() <= 4 * noise**2)
    return start + int(near[0]), start + int(near[-1])
