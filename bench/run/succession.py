"""One engine takes over from another: the second starts and warms beside the first, then new requests are its own.

Nothing here changes what the first one serves until the second has been warm; whatever goes wrong before leaves the
first serving.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import plugins
from bench.engines import device
from bench.engines.engine import Checkpoint, Endpoint, Engine, LaunchContext, LaunchSpec, LaunchTrace, form
from bench.engines.images import imaged
from bench.engines.invocation import invocation
from bench.engines.origin import start_check
from bench.engines.server import Server, free_port, start
from bench.errors import LaunchError
from bench.loadgen.generator import LoadGenerator
from bench.models import checkpoints
from bench.probes.memory import HEADROOM, MIB, RUNTIME_MIB, memory, will_it_fit
from bench.probes.processes import held_mib
from bench.record.launches import (
    Check,
    HandOverAccount,
    HandOverState,
    Invocation,
    LaunchRecord,
    OracleAnswer,
)
from bench.record.manifest import PlannedLaunch
from bench.run import oracle
from bench.run.asking import Asking
from bench.run.front import Front
from bench.run.seen import Seen, Stand
from bench.scenario.model import Workload
from bench.scenario.variant import Variant
from bench.warmup.predecessor import HandOver, predecessor
from bench.warmup.step import HostState, Prepared, Stage, Step, WarmupStrategy, buckets
from bench.warmup.strategies import build

LOOK_S = 0.2
PEAK_S = 1.0
FIRST, SECOND = "first", "second"
# Requests of the second engine's warm-up are drawn apart from all others of the launch, and numbered after them.
APART = 1_000_000
# Nats, between the log-probabilities of one token by two ways of computing it. Compiled code adds up in another order.
WITHIN = 0.05


class Proof(Step):
    """Two requests of the workload's shortest prompt: the second shows how quick a warm first token is."""

    name = "proof"

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """One stage."""
        yield Stage(self.name, 2, buckets(workload)[:1], min(workload.output_tokens, 8), concurrency=1)


def proven(server: Server, seen: Seen) -> list[float]:
    """The TTFTs of the launch so far, ms; LaunchError unless the proof's requests were answered."""
    rows = seen.tables.requests
    failed = next((row for row in rows if row["label"] == Proof.name and row["error_kind"] is not None), None)
    ttfts = [
        (row["first_token_ns"] - row["sent_ns"]) / 1e6
        for row in rows
        if row["error_kind"] is None and row["first_token_ns"] is not None
    ]
    if failed is not None or not ttfts:
        why = failed["error"] if failed else "nothing was answered"
        raise LaunchError("request_failed", f"the engine is up and does not answer: {why}", tail=server.tail())
    return ttfts


@dataclass(frozen=True, slots=True)
class Arranged:
    """An engine as it is to be started, and what was prepared for it."""

    variant: Variant
    context: LaunchContext
    engine: Engine
    strategy: WarmupStrategy
    prepared: Prepared
    spec: LaunchSpec

    @property
    def checkpoint(self) -> Checkpoint:
        """Its weights."""
        return self.context.checkpoint

    @property
    def command(self) -> Invocation | None:
        """How it is started, for the record."""
        return invocation(self.engine, self.variant, self.context, self.spec)


def candidate(variant: Variant, checkpoint: Checkpoint, caches: Path, folder: Path, planned: PlannedLaunch) -> Arranged:
    """Caches and flags put in place and the command made; LaunchError where that is known not to work."""
    engine: Engine = plugins.load("engines", variant.engine.engine)()
    strategy = build(variant.warmup)
    for needed in (caches, folder):
        needed.mkdir(parents=True, exist_ok=True)
    prepared = strategy.prepare(HostState(variant, checkpoint, caches, folder))
    context = LaunchContext(
        free_port(), folder, checkpoint, caches, args=prepared.args, env=prepared.env,
        block=planned.block, position=planned.position, seed=planned.seed,
    )  # fmt: skip
    spec = imaged(engine.command(variant, context), variant, checkpoint, folder)
    return Arranged(variant, context, engine, strategy, prepared, spec)


def weights_of(variant: Variant, progress: Callable[[str], None] | None = None) -> Checkpoint:
    """The variant's weights in the form that its engine takes, fetched if they are not there yet."""
    engine = plugins.load("engines", variant.engine.engine)
    return checkpoints.resolve(variant.model, variant.quantization, form=form(engine), progress=progress)


class Peak:
    """The most that some processes held at one time, MiB (PSS), looked at again and again until left."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids, self._halt = pids, threading.Event()
        self.mib: float | None = None
        self._thread = threading.Thread(target=self._watch, name="peak", daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._thread.join()

    def look(self) -> None:
        """Look now."""
        # A process that has just gone is not there to be read.
        with suppress(OSError, AttributeError):
            found = held_mib(self._pids())
            self.mib = max((value for value in (self.mib, found) if value is not None), default=None)

    def _watch(self) -> None:
        self.look()
        while not self._halt.wait(PEAK_S):
            self.look()


@dataclass(slots=True)
class Succession:
    """A hand-over from the engine that serves to another one, all that was seen of it, and whoever answers meanwhile.

    `names` are what the front calls the two.
    """

    stand: Stand
    front: Front
    first: Server
    planned: PlannedLaunch
    names: tuple[str, str] = (FIRST, SECOND)
    then: Arranged | None = None
    server: Server | None = None
    seen: Seen = field(init=False)
    told: HandOverAccount = field(default_factory=HandOverAccount)
    _first_died: bool = False

    def __post_init__(self) -> None:
        self.seen = Seen(LaunchRecord(self.planned.id, self.planned.variant, {}, 0, 0))

    def begin(self) -> None:
        """The first engine answers at the front."""
        self.front.serve(self.names[0], self.first.endpoint)

    @property
    def last(self) -> Server:
        """The engine that serves: the second once it has taken over."""
        return self.server if self.server is not None and self.told.first_gone_ns is not None else self.first

    @property
    def endpoint(self) -> Endpoint:
        """The front's address, with what the first engine says of itself."""
        return self.front.endpoint(self.first.endpoint)

    @property
    def spec(self) -> LaunchSpec:
        """How the first engine was started."""
        return self.first.spec

    def alive(self) -> bool:
        """Whether the engine is there that new requests go to."""
        return self._answering.alive()

    def failure(self, phase: str) -> LaunchError:
        """Why it is not."""
        return self._answering.failure(phase)

    @property
    def _answering(self) -> Server:
        return self.server if self.server is not None and self.told.over_ns is not None else self.first

    def kill(self) -> None:
        """End both at once, from any thread."""
        for one in (self.first, self.server):
            if one is not None:
                one.kill()

    def stop(self) -> dict[str, Any]:
        """End whoever is left; how the one that served last went."""
        if self.server is not None and self.last is not self.server:
            self.server.stop()
        return self.last.stop()

    @property
    def stamps(self) -> dict[str, int | None]:
        """Of the whole: the first engine's start, and the end of the one that served last."""
        return self.first.stamps | {name: self.last.stamps[name] for name in ("stop", "exit")}

    def carry_out(self, then: Arranged) -> None:
        """The one that comes has taken over and the other is gone; LaunchError with that one still serving if not."""
        self.then, front = then, self.front
        try:
            self._note(command=then.command)
            self._fits(then.checkpoint)
            ahead = predecessor(then.variant)
            if ahead is not None and ahead.model != then.variant.model:
                self._note(model_before=ahead.model.source)
            front.beside(self.names[1], then.spec.endpoint)
            with Peak(self._pids) as peak:
                try:
                    self._warm(then)
                    peak.look()
                    self.stand.progress.phase("handing over")
                    front.over()
                    self._note(over_ns=time.monotonic_ns())
                    self._drain(then.variant.engine.drain_timeout_s)
                    self._look()
                finally:
                    self._note(peak_mib=peak.mib)
        except BaseException as error:
            self._note(reason=error.message if isinstance(error, LaunchError) else type(error).__name__)
            with suppress(LaunchError):
                front.gone(self.names[1])
            if self.server is not None:
                self.server.stop()
            raise
        self.first.stop()
        self._note(first_gone_ns=time.monotonic_ns())

    def account(self) -> HandOverAccount:
        """All that is to be recorded of it, so far."""
        front = self.front
        with suppress(LaunchError):
            front.ask()
        states = []
        for state, since in front.states:
            first = next((one for one in front.firsts if one["state"] == state and one["began_ns"] >= since), {})
            told = (first.get(key) for key in ("began_ns", "first_ns", "end_ns", "engine"))
            states.append(HandOverState(state, since, *told))
        if self.server is not None and self.then is not None:
            stamps, origin = self.server.stamps, replace(self.server.origin, asked=self.then.variant.start)
            self._note(second_spawn_ns=stamps["spawn"], second_health_ns=stamps["health"], start=origin)
        self._note(states=states, requests=front.passed, unserved=front.unserved)
        return self.told

    def _trace(self, server: Server) -> LaunchTrace:
        return LaunchTrace(
            stamps=server.stamps,
            log=server.log(),
            events=server.events(),
            endpoint=server.endpoint,
            forked=server.origin.forked,
            restored=server.origin.mode == "restored",
        )

    def merge(self, asking: Asking) -> None:
        """Put the requests of the second engine's warm-up among the launch's own, numbered after those so far."""
        by = asking.next_id - APART
        tables, into = self.seen.tables, asking.seen.tables
        into.requests += [
            row | {"request_id": row["request_id"] + by, "label": f"{SECOND}/{row['label']}"} for row in tables.requests
        ]
        for column, values in tables.chunks.items():
            moved = [value + by for value in values] if column == "request_id" else values
            into.chunks.setdefault(column, []).extend(moved)
        asking.next_id += len(tables.requests)
        asking.seen.record.warmup += [replace(one, label=f"{SECOND}/{one.label}") for one in self.seen.record.warmup]

    def checks(self, record: LaunchRecord, verified: Sequence[Check]) -> list[Check]:
        """What the hand-over and both engines' warm-ups come to, with what the second one says of itself as facts."""
        assert record.hand_over is not None
        checks = [replace(check, name=f"{FIRST}.{check.name}") for check in verified]
        checks += hand_over_checks(record.hand_over, record.start.oracle, record.stamps.get("spawn"))
        if self.then is None or self.server is None:
            return checks
        meanwhile_ = [one for one in record.warmup if one.label == HandOver.name]
        trace = replace(self._trace(self.server), warmup=[*self.seen.record.warmup, *meanwhile_])
        record.facts |= {**device.told(trace.log), **self.then.engine.facts(trace)}
        first = {f"{FIRST}.{name}": state for name, state in record.state_before.warmup.items()}
        left = {name: state for name, state in self.then.prepared.state.items() if isinstance(state, Mapping)}
        record.state_before = replace(record.state_before, warmup=left | first)
        return checks + self.then.strategy.verify(trace, self.then.prepared)

    def _warm(self, then: Arranged) -> None:
        stand, copied = self.stand, then.variant.start != "exec"
        stand.progress.phase("starting the second engine")
        with LoadGenerator() as load:
            self.server = start(then.spec, then.context.folder, stand.parents if copied else None)
            then.prepared.spawned()
            self.server.wait_healthy(on_wait=self._look)
            asking = Asking(
                stand, self.planned, then.variant, then.checkpoint, self.server, load, self.seen, next_id=APART
            )
            asking.warm_up(then.strategy)
            # Whatever the strategy asked: real completions, of which the last is a warm one.
            asking.warm_up(Proof())
            proven(self.server, self.seen)
        self._note(second_warm_ns=time.monotonic_ns(), oracle=oracle.ask(self.server.endpoint, then.checkpoint))
        self._look()

    def _drain(self, limit_s: float) -> None:
        """Until nothing runs at the engine that leaves; what still runs after the limit is cut with it, and told."""
        front, end = self.front, time.monotonic() + limit_s
        while front.state == "draining":
            self._look()
            front.look(LOOK_S)
            if front.state == "draining" and time.monotonic() > end:
                front.ask()
                overdue = front.running.get(self.names[0], 0)
                self._note(overdue=overdue)
                self.stand.progress.note(
                    f"{overdue} answers of the engine before had not ended {limit_s:g} s after the change, and are cut"
                )
                front.gone(self.names[0])

    def _fits(self, checkpoint: Checkpoint) -> None:
        """LaunchError unless what is free holds another engine like the one that serves."""
        state, held = memory(self.stand.machine.roots), held_mib(self.first.tree())
        weights = (checkpoint.size_bytes or 0) / MIB
        needed = max(held or 0.0, weights * (1 + HEADROOM) + RUNTIME_MIB)
        self._note(first_mib=held, available_mib=state.available_mib, needed_mib=needed)
        if state.available_mib is not None and needed > state.available_mib:
            raise LaunchError(
                "out_of_memory",
                f"a second engine beside the first needs about {needed:.0f} MiB, and {state.available_mib:.0f} MiB are "
                "available",
            )
        on_device = will_it_fit(checkpoint.size_bytes, state)
        if on_device.status == "violated":
            raise LaunchError("out_of_memory", f"a second engine does not fit beside the first: {on_device.evidence}")

    def _pids(self) -> list[int]:
        return self.first.tree() + (self.server.tree() if self.server is not None else [])

    def _look(self, waited_s: float = 0.0) -> None:
        """Notice an engine that has died: of the first the front is told, with the second all is over."""
        self.front.look()
        if not self._first_died and not self.first.alive():
            self._first_died = True
            self.front.gone(self.names[0])
            self.stand.progress.note(f"the engine that serves has died: {self.first.failure('serving').message}")
        if self.server is not None and not self.server.alive():
            raise self.server.failure("start" if self.told.second_warm_ns is None else "serving")

    def _note(self, **told: object) -> None:
        self.told = replace(self.told, **told)  # type: ignore[arg-type]


@contextmanager
def meanwhile(asking: Asking) -> Iterator[None]:
    """The workload's shapes are asked, stream by stream, until the block is left; they are noted as warm-up."""
    over, faults = threading.Event(), list[BaseException]()
    workload = asking.stand.scenario.model.workload
    stage = Stage(
        HandOver.name,
        asking.concurrency,
        buckets(workload),
        workload.output_tokens,
        until=lambda _: "the second engine serves" if over.is_set() else None,
        max_batches=APART,
    )

    def drive() -> None:
        try:
            asking.stage(stage)
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=drive, name="requests meanwhile")
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        # Whoever broke this off waits for no answers.
        if isinstance(asking.load, LoadGenerator):
            asking.load.close()
        thread.join()
        raise
    over.set()
    thread.join()
    if faults:
        raise faults[0]


def hand_over_checks(told: HandOverAccount, first: OracleAnswer | None, spawn_ns: int | None) -> list[Check]:
    """That it happened, and at what second; that nothing was lost; that both engines answer alike."""
    since = [
        None if at is None or spawn_ns is None else (at - spawn_ns) / 1e9
        for at in (told.second_spawn_ns, told.over_ns, told.first_gone_ns)
    ]
    spawned, over, gone = since
    happened = told.reason is None and over is not None and gone is not None
    took = over - spawned if over is not None and spawned is not None else math.nan
    cut = f"; {told.overdue} answers that still ran at the first then were cut" if told.overdue else ""
    words = (
        f"new requests went over {over:.1f} s after the spawn of the first engine and "
        f"{took:.1f} s after that of the second; the first was gone at {gone:.1f} s{cut}"
        if happened
        else f"it did not happen: {told.reason or 'no reason was given'}"
    )
    checks = [
        Check("hand_over.state", "ok" if happened else "violated", words, "the second engine takes over",
              None if happened else "docs/start.md, Hand-over; until it works, serve one engine"),
        Check("hand_over.requests", "ok" if not told.lost else "violated",
              f"{told.begun} requests passed on, {told.lost} lost with an engine or for want of one",
              "no request lost"),
        _alike(first, told),
    ]  # fmt: skip
    if check := start_check(told.start):
        checks.append(replace(check, name="hand_over.start"))
    return checks


def _alike(first: OracleAnswer | None, told: HandOverAccount) -> Check:
    """Told and never invalid: two ways of computing may differ in the last digits, and a close race in its winner."""
    limit, second = f"the same first token of a fixed question, its log-probability within {WITHIN:g} nats", told.oracle
    if told.model_before is not None:
        why = f"the first engine served another model, {told.model_before}"
        return Check("hand_over.oracle", "unknown", why, limit)
    if first is None or second is None or None in (first.logprob, second.logprob):
        why = next((one.reason for one in (first, second) if one is not None and one.reason), "not asked")
        return Check("hand_over.oracle", "unknown", why, limit)
    assert first.logprob is not None and second.logprob is not None  # noqa: PT018
    apart = abs(first.logprob - second.logprob)
    alike = first.token == second.token and apart <= WITHIN
    words = (
        f"first engine {first.token} at {first.logprob:.6f}, second {second.token} at {second.logprob:.6f} "
        f"({apart:.2g} nats apart)"
    )
    return Check("hand_over.oracle", "ok" if alike else "warning", words, limit)
