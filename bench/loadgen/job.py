"""What the load generator is told to do, and what it hands back. Plain data, JSON both ways between two processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.record.schema import RequestStage

if TYPE_CHECKING:
    # Only for the type: pydantic stays out of the load generator's process.
    from bench.scenario.model import Arrivals


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
