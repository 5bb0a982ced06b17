"""Has the first token become slower? A test that may look for ever: conformal ranks, bets on them, an e-detector.

Each value's rank among all values so far is uniform as long as they are exchangeable, whatever their distribution
(Vovk, Nouretdinov, Gammerman, "Testing exchangeability on-line", ICML 2003). Bets εp^(ε−1) on small ranks, with
several ε at once, win when values come to lie high. Of each bet's gains the Shiryaev–Roberts sum R ← (1 + R)·gain is
taken; their mean is an e-detector, and the mean time until it reaches c without a change is at least c (Vovk et al.,
"Retrain or not retrain: conformal test martingales for change-point detection", COPA 2021; Shin, Ramdas, Rinaldo,
"E-detectors: a nonparametric framework for sequential change detection", 2024). Values that follow one another closely
are not exchangeable: what it says is advice.

The values so far are kept as counts on a logarithmic grid, so that memory stays bounded; ties are broken by chance, and
the guarantee holds for the grid's values exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Values nearer to one another than this share of themselves are ties.
GRID = 0.005
BETS = (0.1, 0.2, 0.35, 0.5, 0.7)
# Fewer values than this are no baseline: ranks are coarse, and nothing is told.
LEAST = 100
HOURS = 1000.0


@dataclass(slots=True)
class Detector:
    """What has been seen of one stream. `threshold` is the mean number of values between false alarms, at least."""

    threshold: float
    counts: dict[int, int] = field(default_factory=dict)
    seen: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(BETS))
    told: int = 0

    @property
    def evidence(self) -> float:
        """The e-detector's value; at `threshold` a change is told."""
        return sum(self.sums) / len(self.sums)

    @property
    def learning(self) -> bool:
        """Whether there is no baseline yet."""
        return self.seen < LEAST

    def take(self, value: float, chance: float) -> bool:
        """Take one value, above zero, and a number drawn evenly from (0, 1); whether a change is told by it.

        After telling it starts from nothing, with all that it has seen as baseline.
        """
        here = cell(value)
        above = sum(number for at, number in self.counts.items() if at > here)
        same = self.counts.get(here, 0) + 1
        rank = max((above + chance * same) / (self.seen + 1), 1e-12)
        self.counts[here] = same
        self.seen += 1
        if self.seen <= LEAST:
            return False
        self.sums = [(1.0 + total) * bet * rank ** (bet - 1.0) for total, bet in zip(self.sums, BETS, strict=True)]
        if self.evidence < self.threshold:
            return False
        self.sums = [0.0] * len(BETS)
        self.told += 1
        return True

    def kept(self) -> dict[str, Any]:
        """What is written down of it."""
        return {
            "seen": self.seen,
            "sums": self.sums,
            "told": self.told,
            "counts": {str(k): v for k, v in self.counts.items()},
        }

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on from what was written down; what does not fit any more is left aside."""
        sums = [float(one) for one in kept["sums"]]
        counts = {int(at): int(number) for at, number in kept["counts"].items()}
        if len(sums) == len(BETS) and sum(counts.values()) == int(kept["seen"]):
            self.sums, self.counts = sums, counts
            self.seen, self.told = int(kept["seen"]), int(kept["told"])


def cell(value: float) -> int:
    """The place of a value on the logarithmic grid."""
    return math.floor(math.log(value) / math.log1p(GRID))


def patience(interval_s: float, hours: float = HOURS) -> float:
    """The threshold that keeps false alarms at most at one in so many hours."""
    return max(hours * 3600.0 / interval_s, 100.0)
