"""Has it settled? The online rule that ends a warm-up; the verdict over a whole launch is analyse/steady.py's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median


class Settled:
    """Two consecutive windows of TTFTs (ms) whose medians differ by less than `within`, or the time is up.

    Called after each batch of `window` requests with all TTFTs of the launch's warm-up so far, oldest first.
    Returns the reason to stop, or None.
    """

    def __init__(
        self, window: int, within: float, max_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.window, self.within, self.max_s = window, within, max_s
        self._clock = clock
        self._began = clock()
        self._earlier: int | None = None

    def __call__(self, ttfts_ms: Sequence[float]) -> str | None:
        """The reason to stop, or None to go on."""
        if self._clock() - self._began > self.max_s:
            return f"gave up: not steady after {self.max_s:g} s"
        if self._earlier is None:
            # Coverage and the steps before it came before the first window and are not part of any.
            self._earlier = len(ttfts_ms) - self.window
        mine = ttfts_ms[self._earlier :]
        if len(mine) < 2 * self.window:
            return None
        before, after = median(mine[-2 * self.window : -self.window]), median(mine[-self.window :])
        if before <= 0 or abs(after - before) / before >= self.within:
            return None
        change = abs(after - before) / before
        return f"steady: medians of two windows of {self.window} differ by {change:.1%} ({before:.3g} → {after:.3g} ms)"
