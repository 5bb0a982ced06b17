"""The budget of a search, in minutes, honoured launch by launch: none begins that is not expected to end within it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from bench.phrases import counted


class Purse:
    """What a search may take, and what its launches took so far. `closed` once a launch did not fit.

    A launch is expected to take as long as the longest of its variant did, else as the longest of any, else as guessed.
    What it took is the time until the next one is asked about, with everything around it.
    """

    def __init__(self, minutes: float, clock: Callable[[], float]) -> None:
        self.closed = False
        self._budget_s, self._clock, self._began = minutes * 60, clock, clock()
        self._share = 1.0
        self._guessed: Mapping[str, float] = {}
        self._longest: dict[str, float] = {}
        self._under_way: tuple[str, float] | None = None

    def open(self, share: float, guessed: Mapping[str, float] | None = None) -> None:
        """From now on launches may take the purse to this share of it; `guessed` are seconds by variant."""
        self._settle()
        self._share, self.closed = share, False
        self._guessed = guessed if guessed is not None else self._guessed

    def left(self, share: float) -> float:
        """Seconds until so much of the budget is used."""
        return max(0.0, share * self._budget_s - (self._clock() - self._began))

    def fits(self, variant: str) -> str | None:
        """Why no launch of this variant begins now; None if one does, which is then under way."""
        self._settle()
        expected = self._expected(variant)
        if expected > self.left(self._share):
            self.closed = True
            return (
                f"a launch of {variant} takes about {counted(math.ceil(expected), 'second')}, and "
                f"{self.left(self._share):.0f} are left of this part's {self._share * self._budget_s / 60:g} minutes"
            )
        self._under_way = (variant, self._clock())
        return None

    def _expected(self, variant: str) -> float:
        if variant in self._longest:
            return self._longest[variant]
        return max(self._longest.values()) if self._longest else self._guessed.get(variant, 0.0)

    def _settle(self) -> None:
        """Whatever was under way has ended."""
        if self._under_way is not None:
            variant, began = self._under_way
            self._longest[variant] = max(self._clock() - began, self._longest.get(variant, 0.0))
            self._under_way = None
