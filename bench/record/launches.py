"""launch.json: what is kept of one engine process, from spawn to exit, besides its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.record.schema import SCHEMA_VERSION, CheckStatus, PhaseSource, StartMode, Status

# The launch's own stamps, in the order in which they happen. Keys of LaunchRecord.stamps; a missing one is null.
STAMPS = (
    "spawn",  # just before the engine's process is made: before fork and exec, or before the order to fork
    "restored",  # runs again, where it comes from an image
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
    "image": "the container image that the engine ran in, as it was asked for",
    "image_id": "which image that was, by the digest of its configuration",
    "image_digest": "what a registry knows it by; null for an image that was made here",
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
class ImageAccount:
    """An image before a launch was restored from it: which, what making it took, MiB on disk, how often this run has.

    `pid` is the engine's in it, `criu` the version that wrote it; `refused` says what was wrong with the one before.
    """

    name: str = ""
    seconds: float | None = None
    mib: float | None = None
    restores: int = 0
    pid: int | None = None
    criu: str | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class OracleAnswer:
    """The first token of the fixed question and its log-probability, nats; `reason` where there is none.

    `when` is the time of an answer that was kept.
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
    until healthy, an image too, and of the weights' own files `weights_mib` are mapped and in memory then (where it was
    restored). `reference` is the kept answer of a launch by exec to the oracle's question.
    """

    asked: StartMode | None = None
    mode: StartMode | None = None
    reason: str | None = None
    replaced: str | None = None
    parent: ParentAccount | None = None
    image: ImageAccount | None = None
    guardian: int | None = None
    guardian_parent: int | None = None
    ancestry: list[int] = field(default_factory=list)
    read_mib: float | None = None
    weights_mib: float | None = None
    oracle: OracleAnswer | None = None
    reference: OracleAnswer | None = None

    @property
    def forked(self) -> bool:
        """Whether it is a fork of a warm parent."""
        return self.mode == "forked"

    @property
    def copied(self) -> bool:
        """Whether it goes on from what another process did: a fork, or one restored."""
        return self.mode in ("forked", "restored")


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
class RoundTrips:
    """TCP handshakes from a client's host with the engine's port, µs, as the client's kernel timed them.

    `lost` are those whose first packet was sent again, or that never came about.
    """

    us: list[int] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True, slots=True)
class RemoteClient:
    """A load generator on another host: the way to it, its clock and what it says of itself.

    Its stamps were moved by `offset_ns` (its CLOCK_MONOTONIC − ours), which `doubt_ns` bounds for the first job; by
    `moved_ns` it was another one at the end, known as well as `doubt_after_ns`. `ways_us` are round trips of messages
    about the clock, through ssh, at `ways_at_ns`. `resent` are TCP segments that its kernel sent again.
    """

    host: str
    before: RoundTrips | None = None
    after: RoundTrips | None = None
    offset_ns: int | None = None
    doubt_ns: int | None = None
    moved_ns: int | None = None
    doubt_after_ns: int | None = None
    apart_s: float | None = None
    ways_at_ns: list[int] = field(default_factory=list)
    ways_us: list[int] = field(default_factory=list)
    resent: int | None = None
    stopped: bool | None = None
    cpu_s: float | None = None
    wall_s: float | None = None
    missed: int | None = None
    rss_mib: float | None = None
    loop_lag_p99_ms: float | None = None
    scheduling: str | None = None


@dataclass(frozen=True, slots=True)
class ClientAccount:
    """What the load generator says of itself over all its jobs, and the sampler of itself.

    `remotes` has one entry per host that it ran on, where it ran elsewhere; the rest is then summed over them.
    """

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
    remotes: list[RemoteClient] = field(default_factory=list)


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


@dataclass(frozen=True, slots=True)
class HandOverState:
    """A state of a hand-over, ns: since when it was, and the first request begun in it that was answered.

    `engine` answered that request: first or second. All are None where no request was begun and answered in it.
    """

    name: str
    start_ns: int
    asked_ns: int | None = None
    first_byte_ns: int | None = None
    answered_ns: int | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class RequestsPassed:
    """What became of the requests that one engine was given: `died` with it, or their client `left`."""

    begun: int = 0
    answered: int = 0
    died: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class HandOverAccount:
    """How one engine took over from another that had answered first; `reason` says why it did not.

    Stamps are ns: when the second engine was spawned, healthy and warm, when new requests went over, when the first had
    gone. Memory is MiB: what the first held and what there was before the second was started, what that one was thought
    to need, and the most that both trees held at one time (PSS). `unserved` requests found no engine; `overdue` ones
    still ran at the first when its time to end them was over. `model_before` is the source of the first's model where
    that is another. `start`, `oracle` and `command` are the second engine's.
    """

    states: list[HandOverState] = field(default_factory=list)
    second_spawn_ns: int | None = None
    second_health_ns: int | None = None
    second_warm_ns: int | None = None
    over_ns: int | None = None
    first_gone_ns: int | None = None
    reason: str | None = None
    first_mib: float | None = None
    available_mib: float | None = None
    needed_mib: float | None = None
    peak_mib: float | None = None
    requests: Mapping[str, RequestsPassed] = field(default_factory=dict)
    unserved: int = 0
    overdue: int = 0
    model_before: str | None = None
    start: StartAccount = field(default_factory=StartAccount)
    oracle: OracleAnswer | None = None
    command: Invocation | None = None

    @property
    def begun(self) -> int:
        """Requests that either engine was given."""
        return sum(one.begun for one in self.requests.values())

    @property
    def lost(self) -> int:
        """Requests whose engine died, or that found none."""
        return sum(one.died for one in self.requests.values()) + self.unserved


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
    # None where one engine served throughout
    hand_over: HandOverAccount | None = None
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
