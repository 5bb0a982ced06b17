"""One table of a launch's phases: our stamps, the engine's spans, its own events and its log put together.

Every instant between the spawn and the workload's first token belongs to a phase or to `unattributed`. Phases may nest
and overlap; analyse/coldstart.py gives each instant to the innermost, which is the shortest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from bench.engines.engine import LaunchTrace
from bench.record.launches import STAMPS, Phase
from bench.record.schema import FORKED, RESTORED

UNATTRIBUTED = "unattributed"
# Which source is believed where two tell of the same phase; spans and worker events have our own clock's resolution.
TRUST = ("stamp", "worker", "span", "log")
# What every engine goes through, between stamps of ours.
NEUTRAL = (
    ("restore", "spawn", "restored"),
    ("process_start", "spawn", "first_output"),
    ("health_check", "port_open", "health"),
    ("first_completion", "health", "ready"),
    ("warm_up", "ready", "warmup_end"),
    ("first_request", "warmup_end", "first_token"),
)
# What a warm parent has done before the launch.
IMPORTS = ("interpreter", "import_torch", "import_transformers", "imports")
# Two clocks and a log line read a moment later: a phase may stick out of its parent by this much.
SLACK_NS = 20_000_000
SMALLEST_GAP_NS = 1_000_000


def resolve(trace: LaunchTrace, engine_phases: Sequence[Phase]) -> list[Phase]:
    """The launch's phases by start, nested, clipped to the launch, with the rest as `unattributed`; null ones last."""
    if trace.forked:
        engine_phases = [_elsewhere(phase) for phase in engine_phases]
    if trace.restored:
        engine_phases = [_before(phase, trace.stamps.get("spawn") or 0) for phase in engine_phases]
    begin = trace.stamps.get("spawn")
    if begin is None:
        return [*_neutral(trace.stamps), *engine_phases]
    end = _end(trace.stamps)
    phases = _believed([*_neutral(trace.stamps), *map(_forward, engine_phases)])
    timed = [clipped for phase in phases if (clipped := _clip(phase, begin, end)) is not None]
    nulls = [phase for phase in phases if phase.start_ns is None or phase.end_ns is None]
    rest = [Phase(UNATTRIBUTED, left, right, "stamp") for left, right in gaps(timed, begin, end)]
    timed.sort(key=lambda phase: (phase.start_ns or 0, -(phase.end_ns or 0)))
    nested = [dataclasses.replace(phase, parent=_parent(phase, timed)) for phase in timed]
    return sorted([*nested, *rest], key=lambda phase: (phase.start_ns or 0, -(phase.end_ns or 0))) + nulls


def gaps(phases: Sequence[Phase], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches between begin and end that no phase covers, as (start, end)."""
    reached = begin
    for start, stop in sorted(
        (p.start_ns, p.end_ns) for p in phases if p.start_ns is not None and p.end_ns is not None
    ):
        if start - reached >= SMALLEST_GAP_NS:
            yield reached, start
        reached = max(reached, stop)
    if end - reached >= SMALLEST_GAP_NS:
        yield reached, end


def _neutral(stamps: Mapping[str, int | None]) -> list[Phase]:
    phases = []
    for name, first, last in NEUTRAL:
        start, end = stamps.get(first), stamps.get(last)
        if last == RESTORED and end is None:
            continue
        if start is None or end is None:
            phases.append(Phase(name, start, None, "stamp", reason="not_found" if start is None else "partial"))
        elif start <= end:
            phases.append(Phase(name, start, end, "stamp"))
        # A completion that was answered before the stamp of the health check leaves nothing to tell.
    return phases


def _end(stamps: Mapping[str, int | None]) -> int:
    """Where the cold start ends: the workload's first token, else the last thing that was seen of the launch."""
    first = stamps.get("first_token")
    return first if first is not None else max(moment for name in STAMPS if (moment := stamps.get(name)) is not None)


def _believed(phases: Sequence[Phase]) -> list[Phase]:
    """Of each name the phases of its most trusted source that has a time for it; a null only where none has."""
    by_name: dict[str, list[Phase]] = {}
    for phase in phases:
        by_name.setdefault(phase.name, []).append(phase)
    kept: list[Phase] = []
    for same in by_name.values():
        timed = [phase for phase in same if phase.start_ns is not None and phase.end_ns is not None]
        if timed:
            best = min((TRUST.index(phase.source) for phase in timed if phase.source in TRUST), default=len(TRUST))
            kept += [phase for phase in timed if phase.source not in TRUST or TRUST.index(phase.source) == best]
        else:
            # `partial` says more than `not_found`.
            kept.append(max(same, key=lambda phase: (phase.start_ns is not None, phase.reason == "parse_failed")))
    return kept


def _elsewhere(phase: Phase) -> Phase:
    """What little of the imports a fork still shows is nothing that this name may stand for."""
    return dataclasses.replace(phase, start_ns=None, end_ns=None, reason=FORKED) if phase.name in IMPORTS else phase


def _before(phase: Phase, spawn: int) -> Phase:
    """What an engine did before its image was written, and says nothing about now."""
    past = phase.start_ns is None or phase.start_ns < spawn or (phase.end_ns or 0) < spawn
    return dataclasses.replace(phase, start_ns=None, end_ns=None, reason=RESTORED) if past else phase


def _forward(phase: Phase) -> Phase:
    """A phase that ends before it begins was stamped by a clock that was set meanwhile: null."""
    if phase.start_ns is None or phase.end_ns is None or phase.start_ns <= phase.end_ns:
        return phase
    return dataclasses.replace(phase, start_ns=None, end_ns=None, reason="parse_failed")


def _clip(phase: Phase, begin: int, end: int) -> Phase | None:
    if phase.start_ns is None or phase.end_ns is None or phase.end_ns <= begin or phase.start_ns >= end:
        return None
    return dataclasses.replace(phase, start_ns=max(phase.start_ns, begin), end_ns=min(phase.end_ns, end))


def _parent(phase: Phase, timed: Sequence[Phase]) -> str | None:
    assert phase.start_ns is not None
    assert phase.end_ns is not None
    slack = 0 if phase.source == "stamp" else SLACK_NS
    around = [
        other
        for other in timed
        if other.name != phase.name
        and other.start_ns is not None
        and other.end_ns is not None
        and other.start_ns - slack <= phase.start_ns
        and phase.end_ns <= other.end_ns + slack
        and other.end_ns - other.start_ns > phase.end_ns - phase.start_ns
    ]
    return min(around, key=lambda other: (other.end_ns or 0) - (other.start_ns or 0)).name if around else None
