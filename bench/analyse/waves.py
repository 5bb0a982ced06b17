"""What a load does to TTFT beside its level: the opening wave, two populations, and first tokens let go together.

Nothing is taken out of any figure here; what is found is shown beside them.

*Opening wave*: in a closed loop the first measured request of every stream leaves at the same moment, into a drained
engine. These requests wait for each other as no later ones do.

*Two populations*: log TTFT is split where the variance between the two parts is largest (Otsu 1979). Were it one
population with a single peak, the middle between the parts' medians would be at least as dense as the thinner peak:
the count there, given both counts, is then Binomial with p ≥ 1/2.

*Let go together*: pairs of first tokens within a millisecond whose requests left far apart, as after a stall. The null
model is that a request's TTFT does not depend on when others were answered: TTFTs are dealt out anew among requests of
one length, which keeps arrivals, rate and spread, and so gives what chance alone brings together at any rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

TOGETHER_NS = 1_000_000
# Requests let go together that left this far apart, as a share of the median TTFT, did not come together by themselves.
APART = 0.2
# More than any of so many deals brought together, and by this factor: what is told apart has a size, too.
DEALS, MORE = 199, 1.5
# A population is at least so many requests, and so large a share of all; the other's TTFT is so many times its own.
FEWEST, SHARE, RATIO = 3, 0.05, 1.5
SURE = 0.01
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Opening:
    """The opening wave against what came after it: how many requests, and median TTFT in ms."""

    requests: int
    ttft_ms: float
    later: int
    later_ms: float


@dataclass(frozen=True, slots=True)
class Modes:
    """Two populations of TTFT: requests and median of each in ms, the faster first."""

    fast: int
    fast_ms: float
    slow: int
    slow_ms: float
    slow_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """First tokens let go together: requests, groups and the largest; `chance` is the most that dealing anew gave."""

    requests: int
    groups: int
    largest: int
    pairs: int
    chance: int
    ttft_ms: float


def answered(requests: pd.DataFrame) -> pd.DataFrame:
    """The measured requests that were answered, in order of sending."""
    kept = requests[requests["measured"] & requests["ok"] & requests["ttft_ms"].notna()]
    return kept.sort_values("sent_ns", kind="stable")


def first_wave(requests: pd.DataFrame) -> pd.Series[bool]:
    """Of the measured requests, each stream's first one; failed ones too, which may be why a wave looks short."""
    measured = requests[requests["measured"]].sort_values("sent_ns", kind="stable")
    return ~measured.duplicated("stream")


def opening(requests: pd.DataFrame) -> Opening | None:
    """The opening wave of a closed loop of several streams; None where there is none, or nothing after it."""
    first = first_wave(requests)
    seen = answered(requests)
    wave = first.reindex(seen.index).to_numpy(dtype=bool)
    if int(first.sum()) < 2 or wave.all() or not wave.any():
        return None
    ttft = seen["ttft_ms"].to_numpy(dtype=np.float64)
    return Opening(int(wave.sum()), float(np.median(ttft[wave])), int((~wave).sum()), float(np.median(ttft[~wave])))


def modes(requests: pd.DataFrame) -> Modes | None:
    """Two populations of TTFT beyond what prompt lengths explain; None where one will do."""
    seen = answered(requests)
    values = seen["ttft_ms"].to_numpy(dtype=np.float64)
    if len(values) < 4 * FEWEST or values.min() <= 0:
        return None
    level = np.log(values) - _levels(np.log(values), seen["bucket"])
    cut = split(level)
    if cut is None:
        return None
    slow = level > cut
    fast_ms, slow_ms = float(np.median(values[~slow])), float(np.median(values[slow]))
    ids = tuple(int(one) for one in seen["request_id"].to_numpy()[slow])
    return Modes(int((~slow).sum()), fast_ms, int(slow.sum()), slow_ms, ids)


def split(level: Floats) -> float | None:
    """Where logs of latencies fall into two populations; None where a single peak explains them."""
    ordered = np.sort(level)
    n = len(ordered)
    least = max(FEWEST, int(np.ceil(SHARE * n)))
    if n < 2 * least:
        return None
    sums = np.cumsum(ordered)
    sizes = np.arange(1, n)
    between = (sums[:-1] / sizes - (sums[-1] - sums[:-1]) / (n - sizes)) ** 2 * sizes * (n - sizes)
    between[: least - 1] = between[n - least :] = -1.0
    at = int(np.argmax(between)) + 1
    low, high = float(np.median(ordered[:at])), float(np.median(ordered[at:]))
    if high - low < np.log(RATIO):
        return None
    # Windows of a third of the distance: around each median, and in the middle between them.
    half = (high - low) / 6
    left, middle, right = (
        int(((ordered > one - half) & (ordered <= one + half)).sum()) for one in (low, (low + high) / 2, high)
    )
    side = min(left, right)
    if float(stats.binom.cdf(middle, middle + side, 0.5)) >= SURE:
        return None
    return float((ordered[at - 1] + ordered[at]) / 2)


def released(requests: pd.DataFrame) -> Released | None:
    """First tokens of different requests let go together, more than chance brings; None where chance will do."""
    seen = answered(requests)
    if len(seen) < 2 * FEWEST:
        return None
    sent, first = (seen[name].to_numpy(dtype=np.int64) for name in ("sent_ns", "first_token_ns"))
    ttft = first - sent
    apart = max(TOGETHER_NS, int(APART * float(np.median(ttft))))
    pairs, members = _together(sent, ttft, apart)
    if len(members) < max(FEWEST, SHARE * len(seen)):
        return None
    groups = np.split(members, np.flatnonzero(np.diff(np.sort(first[members])) >= TOGETHER_NS) + 1)
    largest = max(len(group) for group in groups)
    draw = np.random.default_rng(0)
    buckets = pd.factorize(seen["bucket"], use_na_sentinel=False)[0]
    places = [np.flatnonzero(buckets == code) for code in np.unique(buckets)]
    chance = 0
    for _ in range(DEALS):
        dealt = ttft.copy()
        for place in places:
            dealt[place] = draw.permutation(ttft[place])
        chance = max(chance, _together(sent, dealt, apart)[0])
        if MORE * chance >= pairs:
            return None
    waited = float(np.median(ttft[members])) / 1e6
    return Released(len(members), len(groups), largest, pairs, chance, waited) if largest >= FEWEST else None


def _together(sent: Whole, ttft: Whole, apart: int) -> tuple[int, Whole]:
    """Pairs of first tokens within a millisecond whose requests left further apart than that, and who is in them."""
    first = sent + ttft
    order = np.argsort(first, kind="stable")
    token, left = first[order], sent[order]
    member = np.zeros(len(order), dtype=bool)
    pairs = 0
    for lag in range(1, min(_LONGEST, len(order))):
        near = token[lag:] - token[:-lag] < TOGETHER_NS
        if not near.any():
            break
        found = near & (np.abs(left[lag:] - left[:-lag]) > apart)
        pairs += int(found.sum())
        member[lag:] |= found
        member[:-lag] |= found
    return pairs, order[member]


def _levels(logs: Floats, buckets: pd.Series[float]) -> Floats:
    """The median of each value's own prompt length, less the median of all: lengths are no populations."""
    lengths = buckets.astype(float).fillna(-1.0).to_numpy(dtype=np.float64)
    medians = pd.Series(logs).groupby(lengths).transform("median").to_numpy(dtype=np.float64)
    return np.asarray(medians - float(np.median(logs)), dtype=np.float64)
