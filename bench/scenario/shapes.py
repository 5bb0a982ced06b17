"""When an open load's requests are due. Pure: the same shape and seed give the same times, to the nanosecond.

A rate that changes over time is a row of pieces with a straight line each. The area under it is the number of requests
that were due so far, and the i-th request is due where the area reaches its mark: i where requests are evenly spaced, a
sum of i unit exponentials for a Poisson process (time rescaling: Cox and Lewis 1966; Lewis and Shedler 1979).

Standard library only: the load generator's process reads it too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Only for the type: pydantic stays out of the load generator's process.
    from bench.scenario.model import Arrivals

_BILLION = 1_000_000_000
# Marks closer to a piece's end than this lie behind it: the first request after a pause belongs to what follows.
_EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time in which the rate goes in a straight line from `start` to `end`, requests per second."""

    seconds: float
    start: float
    end: float

    @property
    def amount(self) -> float:
        """How many requests are due in it."""
        return self.seconds * (self.start + self.end) / 2 if self.start or self.end else 0.0

    def at(self, mark: float) -> float:
        """After how many seconds of it so many requests were due."""
        slope = (self.end - self.start) / self.seconds
        return 2 * mark / (self.start + math.sqrt(self.start**2 + 2 * slope * mark)) if mark > 0 else 0.0


def offsets_ns(arrivals: Arrivals, count: int, seed: int) -> tuple[int, ...]:
    """When each of `count` requests of an open load is due, from its start. A replay's times are in its trace."""
    if arrivals.burst is not None:
        burst = arrivals.burst
        return tuple(round(index // burst.size * burst.every_s * _BILLION) for index in range(count))
    if arrivals.rate is not None:
        return tuple(round(index * _BILLION / arrivals.rate) for index in range(count))
    if arrivals.poisson is not None:
        return _poisson(arrivals.poisson, count, seed)
    if (ramp := arrivals.ramp) is not None:
        pieces = (Piece(ramp.over_s, ramp.from_, ramp.to), Piece(math.inf, ramp.to, ramp.to))
        spacing = ramp.spacing
    elif (waves := arrivals.on_off) is not None:
        pieces = (Piece(waves.on_s, waves.on, waves.on), Piece(waves.off_s, waves.off, waves.off))
        spacing = waves.spacing
    else:
        raise ValueError("no open load without a trace")
    marks = _unit_marks(count, seed) if spacing == "poisson" else range(count)
    return tuple(round(_when(pieces, mark) * _BILLION) for mark in marks)


def last_s(arrivals: Arrivals, count: int, seed: int = 0) -> float:
    """When the last of `count` requests is due, seconds from the first."""
    due = offsets_ns(arrivals, count, seed)
    return due[-1] / _BILLION if due else 0.0


def _when(pieces: Sequence[Piece], mark: float) -> float:
    """Where the area under the pieces, one after another and again from the first, reaches the mark."""
    whole, length = sum(piece.amount for piece in pieces), sum(piece.seconds for piece in pieces)
    rounds = math.floor((mark + _EDGE) / whole) if math.isfinite(whole) else 0
    left, now = mark - rounds * whole if rounds else mark, rounds * length if rounds else 0.0
    for piece in pieces:
        if left < piece.amount - _EDGE:
            return now + (left / piece.start if math.isinf(piece.seconds) else piece.at(left))
        left, now = left - piece.amount, now + piece.seconds
    return now


def _unit_marks(count: int, seed: int) -> list[float]:
    """A Poisson process of one a second, beginning with a request."""
    draw = random.Random(f"arrivals/{seed}")
    marks, mark = [], 0.0
    for _ in range(count):
        marks.append(mark)
        mark += draw.expovariate(1.0)
    return marks


def _poisson(rate: float, count: int, seed: int) -> tuple[int, ...]:
    draw = random.Random(f"arrivals/{seed}")
    times, now = [], 0.0
    for _ in range(count):
        times.append(round(now * _BILLION))
        now += draw.expovariate(rate)
    return tuple(times)
