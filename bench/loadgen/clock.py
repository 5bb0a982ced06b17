"""Kernel receive stamps are CLOCK_REALTIME; everything recorded is CLOCK_MONOTONIC. This is the bridge."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# Both clocks are slewed alike; only a step moves their difference. Reading it is good to well under this.
STEP_NS = 50_000
_TRIES = 5


def offset_ns() -> int:
    """CLOCK_REALTIME − CLOCK_MONOTONIC, from the tightest of a few bracketed readings, ns."""
    brackets = []
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        brackets.append((after - before, real - (before + after) // 2))
    return min(brackets)[1]


@dataclass(slots=True)
class Clock:
    """Offsets sampled before, while and after driving; `at_ns` is monotonic time and ascends."""

    at_ns: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def sample(self) -> None:
        """Read the offset once more."""
        self.offsets.append(offset_ns())
        self.at_ns.append(time.monotonic_ns())

    def steps(self) -> list[tuple[int, int, int]]:
        """Intervals in which the wall clock was stepped: (after, before, by), ns."""
        times, offsets = pairwise(self.at_ns), pairwise(self.offsets)
        return [
            (start, end, new - old)
            for (start, end), (old, new) in zip(times, offsets, strict=True)
            if abs(new - old) > STEP_NS
        ]

    def monotonic(self, stamps: Sequence[int | None], near: Sequence[int]) -> list[int | None]:
        """Wall-clock stamps, each seen near a monotonic time, as monotonic times; None where a step hides which."""
        if not self.steps():
            always = self.offsets[0]
            return [None if stamp is None else stamp - always for stamp in stamps]
        return [
            None if stamp is None or (offset := self._offset(when)) is None else stamp - offset
            for stamp, when in zip(stamps, near, strict=True)
        ]

    def _offset(self, when: int) -> int | None:
        """The offset at a time, if the samples on both sides of it agree."""
        after = bisect_right(self.at_ns, when)
        if not 0 < after < len(self.offsets) or abs(self.offsets[after] - self.offsets[after - 1]) > STEP_NS:
            return None
        return self.offsets[after - 1]

    def account(self) -> dict[str, int]:
        """What the record keeps: both ends, and how far the wall clock was stepped in between."""
        steps = self.steps()
        return {
            "offset_before_ns": self.offsets[0],
            "offset_after_ns": self.offsets[-1],
            "steps": len(steps),
            "stepped_ns": sum(by for _, _, by in steps),
        }
