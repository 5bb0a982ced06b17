"""What each way to a server adds to the way straight to it: milliseconds, with their interval.

One launch is one way. Of each launch stands its own median; within a block that of the way straight is taken away from
it, and the t interval is over those differences, as everywhere (`decide`). Milliseconds and not ratios: what stands
between a client and an engine adds its time however long the engine takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse.durations import TOKEN_KINDS
from bench.analyse.metrics import metric
from bench.analyse.run import Launch, Run
from bench.judge.comparable import values_of
from bench.judge.compare import rows_of
from bench.judge.decide import Interval, t_interval
from bench.phrases import counted

# The variant that goes through nothing.
STRAIGHT = "straight"
# The same server by its number, where straight is by its name; the chat page over a WebSocket, and by polling.
NUMBER, CHAT, POLLING = "number", "chat", "chat-polling"
# First token, between tokens, the whole answer.
MEASURES = ("ttft.p50", "tpot.p50", "e2el.p50")
# Two-sided 95 %.
ALPHA = 0.025


@dataclass(frozen=True, slots=True)
class Added:
    """What a way adds to one measure. `straight` and `through` are medians over launches, ms.

    `interval` is of the difference, ms, 95 %; None with a `reason` where it cannot be told.
    """

    way: str
    measure: str
    straight: float | None
    through: float | None
    blocks: int
    interval: Interval | None = None
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """The same as plain data; what is not known is null."""
        ends = self.interval
        return {
            "way": self.way,
            "metric": self.measure,
            "straight_ms": self.straight,
            "through_ms": self.through,
            "added_ms": ends.estimate if ends else None,
            "low_ms": ends.low if ends else None,
            "high_ms": ends.high if ends else None,
            "blocks": self.blocks,
            "reason": self.reason or None,
        }


def ways(run: Run) -> tuple[str, ...]:
    """The variants beside the straight one; none in a run that has no variant of that name."""
    return tuple(name for name in run.variants if name != STRAIGHT) if STRAIGHT in run.variants else ()


def added(run: Run) -> tuple[Added, ...]:
    """Every way and measure, in the order of the scenario."""
    return tuple(between(run, STRAIGHT, way, measure) for way in ways(run) for measure in MEASURES)


def between(run: Run, base: str, way: str, measure: str) -> Added:
    """What a way takes more than another one, `base`, whose figure then stands for `straight`."""
    title = metric(measure).title
    before, after = (values_of(rows_of(run.per_launch, name), measure) for name in (base, way))
    blocks = sorted(before.keys() & after.keys())
    differences = [after[block] - before[block] for block in blocks]
    said = Added(way, measure, _median(before), _median(after), len(blocks))
    if not after:
        return _because(said, _missing(run, way, title))
    if not before:
        return _because(said, _missing(run, base, title))
    if len(blocks) < 2:
        return _because(said, f"{counted(len(blocks), 'block')} with both: no noise to judge by")
    found = np.asarray(differences)
    interval = t_interval(float(found.mean()), float(found.std(ddof=1)), len(blocks), ALPHA)
    return Added(way, measure, said.straight, said.through, said.blocks, interval)


def _because(said: Added, reason: str) -> Added:
    return Added(said.way, said.measure, said.straight, said.through, said.blocks, None, reason)


def _missing(run: Run, way: str, title: str) -> str:
    mine = [launch for launch in run.all if launch.record.variant == way]
    valid = [launch for launch in mine if launch.record.status == "ok"]
    if not valid:
        return next((launch.record.reason for launch in mine if launch.record.reason), None) or "not measured"
    why = next((reason for launch in valid for reason in _unpaced(launch)), None)
    return f"no {title}: {why}" if why else f"no {title} was measured"


def _unpaced(launch: Launch) -> Iterator[str]:
    requests = launch.requests()
    yield from (reason for reason in requests.filter(requests["measured"])["pace_reason"].to_pylist() if reason)


def chunks_per_read(run: Run) -> Mapping[str, float]:
    """By variant the median, over valid launches and steady answers, of token-bearing events per read that had one.

    A server that sends token by token, and nobody between who collects them, gives 1. Buffering shows here first.
    """
    found: dict[str, list[float]] = {}
    for launch in run.all:
        if launch.record.status == "ok" and (value := _per_read(launch)) is not None:
            found.setdefault(launch.record.variant, []).append(value)
    return {variant: median(values) for variant, values in found.items()}


def _per_read(launch: Launch) -> float | None:
    requests = launch.requests()
    # Of a page it is not known what came together: only what was painted together.
    streamed = pc.not_equal(pc.fill_null(requests["stamp_source"], ""), "paint")
    steady = requests.filter(pc.and_(pc.and_(requests["measured"], requests["ok"]), streamed))["request_id"]
    chunks = launch.table("chunks", ("request_id", "read", "kind"))
    tokens = chunks.filter(pc.is_in(chunks["kind"], value_set=TOKEN_KINDS))
    tokens = tokens.filter(pc.is_in(tokens["request_id"], value_set=pa.array(steady.to_pylist(), pa.int64())))
    counts: dict[int, list[int]] = {}
    for request, read in zip(tokens["request_id"].to_pylist(), tokens["read"].to_pylist(), strict=True):
        counts.setdefault(request, []).append(read)
    return median(len(reads) / len(set(reads)) for reads in counts.values()) if counts else None


def _median(values: Mapping[int, float]) -> float | None:
    return median(values.values()) if values else None
