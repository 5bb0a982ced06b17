"""The recorded tables and documents, column by column.

Stamps are integer nanoseconds of CLOCK_MONOTONIC on the machine that ran the client. A missing value is null, and a
null sensor reading or phase carries a reason; zero means that zero was measured. This module imports nothing heavy:
the load generator's process reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1

Type = Literal["int64", "float64", "string", "bool"]
Status = Literal["ok", "failed", "unsupported", "invalid", "interrupted"]
CheckStatus = Literal["ok", "violated", "warning", "unknown"]

# Why a reading or a phase is null.
NULLS = ("unsupported", "no_permission", "not_found", "stale", "partial", "parse_failed")
# A phase may also have happened before the launch, in the warm parent that it was forked from.
FORKED = "forked"

# Why a launch failed.
REASONS = (
    "out_of_memory",
    "port",
    "missing_module",
    "missing_file",
    "bad_argument",
    "unsupported_quantization",
    "unsupported",
    "not_ready",
    "crash_at_start",
    "crash_while_serving",
    "request_failed",
    "stalled",
    "disk_full",
    "interrupted",
    "internal",
)

# Where in a launch a request belongs. `first` is the workload's first request: shown, and kept out of steady figures.
RequestStage = Literal["warmup", "first", "measured", "quality"]
STAGES: tuple[RequestStage, ...] = get_args(RequestStage)

# Where an engine's process came from: a new program, a fork of a warm parent, or it was there before.
StartMode = Literal["exec", "forked", "attached"]

# Who says how long a phase took: our own stamps, an engine's spans, its log, or its worker's events.
PhaseSource = Literal["stamp", "span", "log", "worker"]

# Why a request failed.
ERROR_KINDS = ("connect", "timeout", "http", "protocol", "closed", "server_event", "aborted", "empty", "cancelled")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a recorded table."""

    name: str
    type: Type
    doc: str
    null: bool = False


REQUESTS = (
    Column("request_id", "int64", "index within the launch, in order of sending"),
    Column("stream", "int64", "the closed-loop stream or connection that carried it"),
    Column("stage", "string", ", ".join(STAGES)),
    Column("label", "string", "the warm-up step or prompt set it belongs to", null=True),
    Column("measured", "bool", "true for the steady measurement only"),
    Column("prompt_id", "string", "names the prompt; equal across variants of one block"),
    Column("bucket", "int64", "prompt length asked for, tokens", null=True),
    Column("turn", "int64", "turn of a conversation, from 0"),
    Column("intended_ns", "int64", "when the arrival process meant to send it"),
    Column("released_ns", "int64", "when max_in_flight let it go; null where nothing caps an open load", null=True),
    Column("sent_ns", "int64", "just before its first byte was handed to the kernel", null=True),
    Column("sent_end_ns", "int64", "after its last byte was handed to the kernel", null=True),
    Column("connect_ns", "int64", "duration of the connection's opening; null when reused", null=True),
    Column("status", "int64", "HTTP status", null=True),
    Column("headers_ns", "int64", "first byte of the response", null=True),
    Column("first_chunk_ns", "int64", "first event with choices", null=True),
    Column("first_token_ns", "int64", "first non-empty content or reasoning", null=True),
    Column("first_answer_ns", "int64", "first non-empty content that is not reasoning", null=True),
    Column("first_argument_ns", "int64", "first fragment of a tool call's arguments", null=True),
    Column("last_token_ns", "int64", "last output: content, reasoning or a piece of a tool call", null=True),
    Column("end_ns", "int64", "end of the response, or of waiting for it", null=True),
    Column("stamp_source", "string", "kernel or user: the clock behind the five stamps above", null=True),
    Column("client_lag_us", "float64", "user stamp − kernel stamp at the first token", null=True),
    Column("client_lag_max_us", "float64", "the largest such difference of the stream", null=True),
    Column("chunks", "int64", "token-bearing events"),
    Column("coalesced", "int64", "events that shared a read with an earlier event"),
    Column("prompt_tokens", "int64", "as the server counted", null=True),
    Column("completion_tokens", "int64", "as the server counted", null=True),
    Column("cached_tokens", "int64", "prompt tokens served from a prefix cache", null=True),
    Column("count_reason", "string", "why a count that the server gave is null here", null=True),
    Column("first_tokens", "int64", "tokens made by the first output event, its own included", null=True),
    Column("first_share", "float64", "the same as a share of all, by its characters", null=True),
    Column("output_tokens_asked", "int64", "output tokens asked for", null=True),
    Column("server_ttft_ms", "float64", "the server's own figure, where it gives one", null=True),
    Column("server_tpot_ms", "float64", "the server's own time per output token after the first", null=True),
    Column("finish_reason", "string", "as the server said", null=True),
    Column("error_kind", "string", "one of ERROR_KINDS", null=True),
    Column("error", "string", "the same in words", null=True),
    Column("text", "string", "the answer", null=True),
)

CHUNKS = (
    Column("request_id", "int64", "the request it belongs to"),
    Column("seq", "int64", "event number within the stream, from 0"),
    Column("kernel_ns", "int64", "kernel receive time on CLOCK_MONOTONIC", null=True),
    Column("user_ns", "int64", "when the client held the bytes"),
    Column("read", "int64", "number of the read that completed it; equal numbers came together"),
    Column("kind", "string", "role, content, reasoning, tool, usage, finish, done, comment, error, other"),
    Column("tokens", "int64", "tokens the event carries, where the server says", null=True),
)

SAMPLES = (
    Column("t_ns", "int64", "when the reading was taken"),
    Column("probe", "string", "who took it"),
    Column("field", "string", "what was read; unit and meaning are in launch.json under `fields`"),
    Column("value", "float64", "the reading", null=True),
    Column("reason", "string", "why there is none: " + ", ".join(NULLS), null=True),
)

EVENTS = (
    Column("t_ns", "int64", "when it happened"),
    Column("source", "string", "who says so"),
    Column("name", "string", "what happened"),
    Column("detail", "string", "JSON", null=True),
)

PHASES = (
    Column("name", "string", "what the time went to"),
    Column("start_ns", "int64", "begin", null=True),
    Column("end_ns", "int64", "end", null=True),
    Column("source", "string", ", ".join(get_args(PhaseSource))),
    Column("process", "string", "which process said so", null=True),
    Column("parent", "string", "the phase it is nested in", null=True),
    Column("reason", "string", "why it is null", null=True),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "requests": REQUESTS,
    "chunks": CHUNKS,
    "samples": SAMPLES,
    "events": EVENTS,
    "phases": PHASES,
}

# The launch's own stamps, in the order in which they happen. Keys of LaunchRecord.stamps; a missing one is null.
STAMPS = (
    "spawn",  # just before the engine's process is made: before fork and exec, or before the order to fork
    "first_output",  # first line of its log
    "port_open",  # accepts a connection
    "health",  # answers its health check
    "ready",  # the first completion of the launch returned its first token
    "warmup_end",  # the warm-up strategy is satisfied
    "first_token",  # first token of the workload's first request: cold TTFT ends here
    "second_token",  # first token of the workload's second request
    "stop",  # asked to end
    "exit",  # gone, with all its children
)


@dataclass(frozen=True, slots=True)
class Phase:
    """A slice of a launch before its first token; null ends carry a reason."""

    name: str
    start_ns: int | None
    end_ns: int | None
    source: PhaseSource
    process: str | None = None
    parent: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One named rule applied to a launch: its limit, what was seen, and what to do about it."""

    name: str
    status: CheckStatus
    evidence: str
    limit: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """What a probe's field means."""

    probe: str
    field: str
    unit: str
    doc: str = ""
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """A process of a launch that was kept from running from outside (SIGSTOP, Ctrl-Z); stamps are null if unknown.

    `process` is harness, load generator, sampler, supervisor or engine.
    """

    process: str
    pid: int
    start_ns: int | None = None
    end_ns: int | None = None


# What engines and warm-up steps say is in their own words: JSON, with no more structure than they give it.
FactValue = str | int | float | bool | None | Sequence[object] | Mapping[str, object]

# Keys of LaunchRecord.facts that are read by name; every engine may say more, and none need be there.
FACTS = {
    "checkpoint_digest": "digest of the weights, as the harness resolved them",
    "checkpoint_bytes": "their size on disk",
    "weight_bytes": "their size in memory, as the engine says",
    "device_asked": "what the scenario wants computed on",
    "device_used": "what the engine computed on: cpu, cuda, none, …",
    "device_evidence": "how that is known",
    "image": "the container image that the engine ran in",
    "attached": "true for a server that was there before",
    "version": "of the engine",
    "served_model": "what the server calls its model",
}


@dataclass(frozen=True, slots=True)
class ClockAccount:
    """How CLOCK_REALTIME stood against CLOCK_MONOTONIC, ns, before and after, and how far it was stepped in between."""

    offset_before_ns: int | None = None
    offset_after_ns: int | None = None
    steps: int | None = None
    stepped_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PageCacheState:
    """The weight files in the page cache before spawn: shares of their bytes, null where the kernel does not say.

    `achieved` is null where that is not known or nothing was asked for.
    """

    mode: str | None = None
    method: str | None = None
    files: int | None = None
    bytes: int | None = None
    resident_before: float | None = None
    resident: float | None = None
    seconds: float | None = None
    achieved: bool | None = None


@dataclass(frozen=True, slots=True)
class StateBefore:
    """What a launch found: page cache, what each warm-up step left behind before spawn, how the cool-down ended."""

    page_cache: PageCacheState | None = None
    warmup: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    cool_down: Mapping[str, FactValue] | None = None

    @property
    def prepare_s(self) -> float | None:
        """Seconds that the warm-up's own steps took before spawn; None where none told."""
        told = [taken for step in self.warmup.values() if isinstance(taken := step.get("seconds"), int | float)]
        return float(sum(told)) if told else None

    @property
    def cache_bytes(self) -> int | None:
        """Disk that kept compile caches took before spawn; None where no step keeps any."""
        for step in self.warmup.values():
            before = step.get("before")
            size = before.get("bytes") if isinstance(before, Mapping) else None
            if isinstance(size, int):
                return size
        return None


@dataclass(frozen=True, slots=True)
class ParentAccount:
    """A warm parent just before a launch was forked from it: who it is, what making it took, what it holds unserved.

    `started`, in clock ticks since boot, and `pid` name one process for ever; `forks` were made before this one. Memory
    is shared out among all that map it (pss) and its own alone (uss). `skipped` says why a module is not in it.
    """

    name: str = ""
    pid: int | None = None
    started: int | None = None
    seconds: float | None = None
    forks: int = 0
    pss_mib: float | None = None
    uss_mib: float | None = None
    modules: int | None = None
    native_threads: int | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    prepared: FactValue = None


@dataclass(frozen=True, slots=True)
class OracleAnswer:
    """The first token of the fixed question and its log-probability, nats; `reason` where there is none.

    `when` is the time of an answer that was kept from an earlier run.
    """

    token: str | None = None
    logprob: float | None = None
    reason: str | None = None
    when: str | None = None


@dataclass(frozen=True, slots=True)
class StartAccount:
    """Where the engine's process came from, with the evidence and what that cost.

    `asked` is what the variant wants, `mode` what it was; `reason` says why it was not forked where that was asked,
    `replaced` names the parent that could not do it. `ancestry` are the pids from the engine's parent upwards as they
    were seen, `guardian` the one that guards it, `guardian_parent` that one's parent. `read_mib` was read by read(2)
    until healthy. `reference` is what a launch by exec of an earlier run answered to the oracle's question.
    """

    asked: StartMode | None = None
    mode: StartMode | None = None
    reason: str | None = None
    replaced: str | None = None
    parent: ParentAccount | None = None
    guardian: int | None = None
    guardian_parent: int | None = None
    ancestry: list[int] = field(default_factory=list)
    read_mib: float | None = None
    oracle: OracleAnswer | None = None
    reference: OracleAnswer | None = None

    @property
    def forked(self) -> bool:
        """Whether it is a fork of a warm parent."""
        return self.mode == "forked"


@dataclass(frozen=True, slots=True)
class WarmupStage:
    """A stage of the warm-up that was driven: its requests, how many were answered, and why it ended."""

    label: str
    requests: int = 0
    ok: int = 0
    start_ns: int | None = None
    end_ns: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryState:
    """What there is at one time, MiB; None where it cannot be read. `kind` is unified or discrete."""

    kind: str
    total_mib: float | None = None
    available_mib: float | None = None
    swap_used_mib: float | None = None
    device_total_mib: float | None = None
    device_used_mib: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryServed:
    """What the engine's processes held when the last request had been answered."""

    t_ns: int
    pss_mib: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryReturned:
    """Whether the memory was given back after the end; `returned` is None where it cannot be read."""

    returned: bool | None = None
    missing_mib: float | None = None
    tolerance_mib: float | None = None
    waited_s: float | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class LaunchMemory:
    """Memory before the spawn, while serving and after the end; None where it was not looked at."""

    before: MemoryState | None = None
    served: MemoryServed | None = None
    after: MemoryReturned | None = None


@dataclass(frozen=True, slots=True)
class ProbeAccount:
    """How a probe kept its period: readings, those a whole period late, nulls written while it hung."""

    period_s: float | None = None
    samples: int | None = None
    missed: int | None = None
    stale: int | None = None
    failed: int | None = None
    max_gap_s: float | None = None
    cpu_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SamplerAccount:
    """What the sampler says of itself; `complete` is false when it was lost before its end."""

    probes: Mapping[str, ProbeAccount] = field(default_factory=dict)
    cpu_s: float | None = None
    wall_s: float | None = None
    cpu_share: float | None = None
    rss_mib: float | None = None
    lost_lines: int | None = None
    complete: bool = False
    log: str = ""


@dataclass(frozen=True, slots=True)
class ClientAccount:
    """What the load generator says of itself over all its jobs, and the sampler of itself."""

    cpu_s: float | None = None
    wall_s: float | None = None
    parse_cpu_s: float | None = None
    events: int | None = None
    missed: int | None = None
    rss_mib: float | None = None
    loop_lag_p99_ms: float | None = None
    scheduling: str | None = None
    cpu_us_per_event: float | None = None
    sampler: SamplerAccount | None = None


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How the engine ended. `leftover` are pids that even KILL did not end; `by_itself`: it had ended before."""

    code: int | None = None
    signal: int | str | None = None
    seconds: float | None = None
    killed: bool | None = None
    by_itself: bool | None = None
    leftover: list[int] = field(default_factory=list)
    max_rss_mib: float | None = None
    peak_rss_sum_mib: float | None = None
    oom_kills: int | None = None
    lines_lost: int | None = None
    log_fault: str | None = None
    message: str | None = None
    errno: int | None = None
    attached: bool = False


@dataclass(frozen=True, slots=True)
class CommandTemplate:
    """A command in which {port}, {folder}, {caches}, {model} and {programs} stand for what was one launch's own."""

    argv: list[str]
    env: Mapping[str, str]
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """How an engine was started, as it was carried out and as a template; `secrets` names variables left out."""

    argv: list[str]
    env: Mapping[str, str]
    template: CommandTemplate
    places: Mapping[str, str | None]
    health: str | None = None
    served_model: str | None = None
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float = 10.0
    cwd: str | None = None
    secrets: list[str] = field(default_factory=list)


@dataclass(slots=True)
class LaunchRecord:
    """launch.json: one engine process from spawn to exit."""

    launch_id: str
    variant: str
    factors: dict[str, str]
    block: int
    position: int
    attempt: int = 1
    status: Status = "ok"
    reason_kind: str | None = None
    reason: str | None = None
    stamps: dict[str, int | None] = field(default_factory=dict)
    wall_time: str | None = None
    clock: ClockAccount = field(default_factory=ClockAccount)
    state_before: StateBefore = field(default_factory=StateBefore)
    start: StartAccount = field(default_factory=StartAccount)
    warmup: list[WarmupStage] = field(default_factory=list)
    # None for a server attached to, and in earlier records.
    command: Invocation | None = None
    facts: dict[str, FactValue] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    fields: list[FieldInfo] = field(default_factory=list)
    memory: LaunchMemory = field(default_factory=LaunchMemory)
    client: ClientAccount = field(default_factory=ClientAccount)
    exit: ExitReport = field(default_factory=ExitReport)
    # None where nobody watched
    stops: list[Stop] | None = None
    log_tail: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION


@dataclass(slots=True)
class Manifest:
    """manifest.json: a run's plan, where it ran, and how far it got."""

    run_id: str
    scenario: str
    scenario_digest: str
    scenario_text: str
    seed: int
    variants: list[dict[str, Any]]
    plan: list[dict[str, Any]]
    fingerprint: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str | None = None
    finished: str | None = None
    state: Literal["running", "complete", "interrupted"] = "running"
    emulated: str | None = None
    notes: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION
