"""When requests are meant to be sent. Pure: the same workload and seed give the same times."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.scenario.shapes import offsets_ns

if TYPE_CHECKING:
    from bench.loadgen.job import Request
    from bench.scenario.model import Arrivals


@dataclass(frozen=True, slots=True)
class Schedule:
    """Either `streams` that each wait for their answer, or offsets from the start at which conversations begin, ns."""

    streams: int | None
    offsets_ns: tuple[int, ...] = ()
    max_in_flight: int | None = None


def schedule(arrivals: Arrivals, requests: Sequence[Request], seed: int) -> Schedule:
    """The schedule of requests; a later turn of a conversation follows the answer, not the schedule."""
    if arrivals.closed is not None:
        cap = arrivals.max_in_flight
        return Schedule(streams=min(arrivals.closed, cap) if cap else arrivals.closed)
    heads = [request for request in requests if request.after is None]
    if arrivals.replay is not None:
        due = [request.due_ns or 0 for request in heads]
        offsets = tuple(round((one - due[0]) / arrivals.replay.speed) for one in due)
    else:
        offsets = offsets_ns(arrivals, len(heads), seed)
    return Schedule(streams=None, offsets_ns=offsets, max_in_flight=arrivals.max_in_flight)


def released(intended_ns: Sequence[int], over_ns: Sequence[int], cap: int) -> list[int]:
    """When each conversation could begin with at most `cap` open at once, served in order: the later of the time that
    was intended and the time at which fewer than `cap` of the earlier ones were still open."""
    longest: list[int] = []
    times = []
    for intended, over in zip(intended_ns, over_ns, strict=True):
        # The cap-th largest end among the earlier ones is when only cap − 1 of them were left.
        times.append(max(intended, longest[0]) if len(longest) == cap else intended)
        if len(longest) < cap:
            heapq.heappush(longest, over)
        else:
            heapq.heappushpop(longest, over)
    return times
