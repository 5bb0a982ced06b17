"""Kernel receive stamps are CLOCK_REALTIME; everything recorded is CLOCK_MONOTONIC. This is the bridge."""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass, field

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
        pairs = zip(self.at_ns, self.at_ns[1:], self.offsets, self.offsets[1:], strict=False)
        return [(start, end, new - old) for start, end, old, new in pairs if abs(new - old) > STEP_NS]

    def monotonic(self, real_ns: int, near_ns: int) -> int | None:
        """The monotonic time of a kernel stamp seen near `near_ns`; None where a step makes it unknowable."""
        if not self.steps():
            return real_ns - self.offsets[0]
        i = bisect_right(self.at_ns, near_ns) - 1
        if i < 0 or i + 1 >= len(self.offsets) or abs(self.offsets[i + 1] - self.offsets[i]) > STEP_NS:
            return None
        return real_ns - self.offsets[i]

    def account(self) -> dict[str, int]:
        """What the record keeps: both ends, and how far the wall clock was stepped in between."""
        steps = self.steps()
        return {
            "offset_before_ns": self.offsets[0],
            "offset_after_ns": self.offsets[-1],
            "steps": len(steps),
            "stepped_ns": sum(by for _, _, by in steps),
        }
