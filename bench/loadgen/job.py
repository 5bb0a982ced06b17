"""What the load generator is told to do, when each request is due, and what comes back.

Plain data between two processes: a JSON head and raw bytes, both with their length.
"""

from __future__ import annotations

import heapq
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import pipes
from bench.record.schema import RequestStage
from bench.scenario.shapes import offsets_ns

if TYPE_CHECKING:
    # Only for the type: pydantic stays out of the load generator's process.
    from bench.scenario.model import Arrivals

_LENGTHS = struct.Struct("<QQ")

Frame = tuple[dict[str, Any], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send. `body` is complete but for a conversation's earlier answers, which the driver fills in."""

    request_id: int
    prompt_id: str
    stage: RequestStage
    path: str
    body: Mapping[str, Any]
    label: str | None = None
    measured: bool = False
    bucket: int | None = None
    turn: int = 0
    # request_id of the turn before, whose answer goes into `body["messages"]` ahead of this turn's question
    after: int | None = None
    output_tokens: int | None = None
    # when a trace had it, from the trace's start
    due_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A batch of requests against one server."""

    host: str
    port: int
    requests: tuple[Request, ...]
    arrivals: Arrivals
    tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0
    seed: int = 0
    keep_text: bool = True
    keep_logprobs: bool = False


@dataclass(slots=True)
class Driven:
    """What a job gave: rows for the tables of record.schema, and the client's own account of itself.

    `client` has cpu_s, wall_s, rss_mib, loop_lag_p99_ms, events, cpu_us_per_event, missed and clock readings.
    `logprobs` holds one JSON document per request that asked for them.
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    chunks: dict[str, list[Any]] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Either `streams` that each wait for their answer, or offsets from the start at which conversations begin, ns.

    `start_ns` is the start of an open load where it is not for the load generator to choose.
    """

    streams: int | None
    offsets_ns: tuple[int, ...] = ()
    max_in_flight: int | None = None
    start_ns: int | None = None


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


def send(descriptor: int, head: dict[str, Any], payload: bytes = b"") -> None:
    """Send one message."""
    pipes.write_all(descriptor, packed(head, payload))
    pipes.write_all(descriptor, payload)


def packed(head: dict[str, Any], payload: bytes = b"") -> bytes:
    """What a message begins with, its payload to follow; half a surrogate pair, which some servers do send, becomes a
    question mark."""
    encoded = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return _LENGTHS.pack(len(encoded), len(payload)) + encoded


def receive(take: Callable[[int], bytes]) -> Frame | None:
    """Receive one message by `take(most)`: some bytes, none at the end. None once the other side has gone."""
    lengths = _exactly(take, _LENGTHS.size)
    if lengths is None:
        return None
    head_length, payload_length = _LENGTHS.unpack(lengths)
    head = _exactly(take, head_length)
    payload = _exactly(take, payload_length)
    if head is None or payload is None:
        return None
    return json.loads(head), payload


def _exactly(take: Callable[[int], bytes], size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = take(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
