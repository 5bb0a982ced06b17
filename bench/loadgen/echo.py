"""How far another host's CLOCK_MONOTONIC is ahead of ours, with a bound, from messages that were answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Two crystals that nobody disciplines part by no more than this; an answer says less the older it is.
DRIFT = 50e-6


@dataclass(frozen=True, slots=True)
class Echo:
    """A message and its answer: asked and heard by our clock, received and answered by the other host's, ns."""

    asked: int
    received: int
    answered: int
    heard: int

    @property
    def way_ns(self) -> int:
        """There and back, without what the other side took."""
        return (self.heard - self.asked) - (self.answered - self.received)

    @property
    def offset_ns(self) -> int:
        """The other clock − ours, if the way there is as long as the way back."""
        return ((self.received - self.asked) + (self.answered - self.heard)) // 2

    def doubt_ns(self, now: int) -> int:
        """By how much the offset may be wrong: however the way is divided, and with what the clocks part since."""
        return self.way_ns // 2 + round(DRIFT * abs(now - self.heard))


def best(echoes: Sequence[Echo], now: int) -> Echo:
    """The one that says most about a time."""
    return min(echoes, key=lambda echo: echo.doubt_ns(now))
