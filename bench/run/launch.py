"""One launch, from spawn to exit: start the engine, warm it, ask it, stop it, keep what was seen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import plugins
from bench.engines import device, startup
from bench.engines.engine import Checkpoint, Endpoint, Engine, LaunchContext, LaunchTrace
from bench.engines.failure import told
from bench.engines.invocation import invocation
from bench.engines.server import Server, free_port, start
from bench.engines.slowed import slowed
from bench.engines.spans import SpanSink
from bench.errors import LaunchError
from bench.loadgen.generator import LoadGenerator
from bench.plan.launches import PlannedLaunch
from bench.probes.cooldown import cool_down
from bench.probes.devices import without_gpu
from bench.probes.machine import Machine
from bench.probes.memory import guarded_memory, idle, returned, will_it_fit
from bench.probes.processes import held_mib
from bench.probes.sampler import Sampler
from bench.record.schema import LaunchRecord, Phase, Stop
from bench.run.asking import Asking
from bench.run.progress import Progress
from bench.run.stops import of_children, own_stops
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant
from bench.warmup.caches import establish_page_cache
from bench.warmup.pages import page_cache_check
from bench.warmup.strategies import build
from bench.warmup.strategy import HostState, Prepared, WarmupStrategy


@dataclass(frozen=True, slots=True)
class Stand:
    """What all launches of a run share."""

    scenario: Scenario
    machine: Machine
    caches: Path
    progress: Progress
    # Idle temperature of each zone, °C, taken before the first launch; empty where nothing waits for it.
    idle_c: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """All that one launch saw, on its way into the record."""

    record: LaunchRecord
    requests: list[dict[str, Any]] = field(default_factory=list)
    chunks: dict[str, list[Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def event(self, source: str, name: str, **detail: Any) -> None:
        """Note that something happened now."""
        self.events.append(
            {
                "t_ns": time.monotonic_ns(),
                "source": source,
                "name": name,
                "detail": json.dumps(detail) if detail else None,
            }
        )


def launch(stand: Stand, planned: PlannedLaunch, variant: Variant, checkpoint: Checkpoint, folder: Path) -> Seen:
    """Carry out one launch; a failure of the engine is part of what was seen, never an exception."""
    record = LaunchRecord(planned.id, variant.id, dict(variant.factors), planned.block, planned.position)
    seen = Seen(record)
    try:
        _launch(stand, planned, variant, checkpoint, folder, seen)
    except LaunchError as error:
        record.status = "unsupported" if error.kind.startswith("unsupported") else "failed"
        record.reason_kind, record.reason, record.log_tail = error.kind, error.message, list(error.tail)
    return seen


def _launch(
    stand: Stand, planned: PlannedLaunch, variant: Variant, checkpoint: Checkpoint, folder: Path, seen: Seen
) -> None:
    record, progress = seen.record, stand.progress
    engine: Engine = plugins.load("engines", variant.engine.engine)()
    strategy = build(variant.warmup)
    caches = stand.caches / variant.id
    caches.mkdir(parents=True, exist_ok=True)

    progress.phase("preparing")
    _settle(stand, record)
    # The warm-up comes second: a step that reads the weights in would have them dropped again.
    page_cache = establish_page_cache(checkpoint, variant.page_cache)
    prepared = strategy.prepare(HostState(variant, checkpoint, caches, folder))
    record.state_before |= {"page_cache": page_cache, "warmup": dict(prepared.state)}
    if variant.page_cache != "leave":
        record.checks.append(page_cache_check(page_cache))

    with ExitStack() as crew:
        # Whatever takes part in the measurement is up before the engine is spawned: it costs the launch nothing.
        own = crew.enter_context(own_stops())
        sink = crew.enter_context(SpanSink())
        load = crew.enter_context(LoadGenerator())
        sampler = Sampler.start(folder, harness_pids=[os.getpid()], roots=stand.machine.roots)
        crew.callback(_sampled, sampler, record)
        # With all of that in place, and sampled: this second is also the idle power that energy is measured against.
        before = idle(stand.machine.roots)
        record.memory["before"] = before.to_json()
        record.checks.append(will_it_fit(checkpoint.size_bytes, before))
        context = LaunchContext(
            port=free_port(),
            folder=folder,
            checkpoint=checkpoint,
            caches=caches,
            spans_url=sink.url,
            args=prepared.args,
            env=prepared.env,
            block=planned.block,
            position=planned.position,
            seed=planned.seed,
        )
        spec = engine.command(variant, context)
        record.command = invocation(engine, variant, context, spec)
        if variant.slowdown is not None:
            spec = slowed(spec, variant.slowdown, free_port())
        progress.phase("starting")
        server = start(spec, folder)
        watchdog = crew.enter_context(guarded_memory(stand.machine.roots, lambda reason: server.kill()))
        try:
            sampler.set_pid(server.pid)
            sampler.set_metrics_url(metrics_url(server.endpoint))
            server.wait_healthy()
            asking = Asking(stand, planned, variant, checkpoint, server, load, seen)
            asking.warm_up(strategy)
            sampler.mark()
            asking.measure()
            sampler.mark()
            # Reading a large process's memory is slow and so done seldom while it is measured; this one is sure.
            if not variant.engine.image:
                record.facts |= without_gpu(server.tree())
            record.memory["served"] = {"t_ns": time.monotonic_ns(), "pss_mib": held_mib(server.tree())}
            asking.question()
        except LaunchError as error:
            if watchdog is not None and watchdog.tripped:
                raise LaunchError("out_of_memory", watchdog.tripped, tail=server.tail()) from None
            raise _better(error, server) from None
        finally:
            progress.phase("stopping")
            helpers = {
                "load generator": next(iter(load.harness_pids), None),
                "sampler": sampler.process_id,
                "supervisor": server.supervisor_pid,
            }
            stopped = of_children(helpers)
            record.exit = server.stop()
            record.stops = own + stopped + [Stop("engine", *stop) for stop in record.exit.pop("stops", ())]
            record.stamps |= server.stamps
            record.client |= load.account()
            record.clock = load.clock()
            record.memory["after"] = {} if spec.attached else returned(before, stand.machine.roots)
            trace = LaunchTrace(
                stamps=record.stamps,
                log=server.log(),
                events=server.events(),
                spans=sink.drain(),
                endpoint=server.endpoint,
                warmup=record.warmup,
            )
            _interpret(engine, variant, strategy, prepared, trace, seen)


def _settle(stand: Stand, record: LaunchRecord) -> None:
    """Wait until the machine is as cool as the scenario asks; what it waited for is a check."""
    wanted = stand.scenario.model.design.cool_down
    if wanted is None:
        return
    stand.progress.phase("cooling down")
    ended = cool_down(stand.machine.roots, stand.idle_c, above_idle_c=wanted.above_idle_c, timeout_s=wanted.timeout_s)
    record.state_before["cool_down"] = ended.to_json()
    record.checks.append(ended.check())


def metrics_url(endpoint: Endpoint) -> str | None:
    """Where an engine's Prometheus metrics would be; None for one behind TLS, which is not ours to scrape."""
    return None if endpoint.tls else f"http://{endpoint.host}:{endpoint.port}{endpoint.prefix}/metrics"


def _sampled(sampler: Sampler, record: LaunchRecord) -> None:
    account = sampler.stop()
    record.fields = account.fields
    record.client["sampler"] = account.facts()


def _interpret(
    engine: Engine,
    variant: Variant,
    strategy: WarmupStrategy,
    prepared: Prepared,
    trace: LaunchTrace,
    seen: Seen,
) -> None:
    """What the trace means: facts, phases, and whether the state asked for was the state had."""
    record = seen.record
    # An engine knows best what it computes on; its log is next, and the files it holds open say something of any.
    record.facts |= {**device.told(trace.log), **engine.facts(trace)}
    if wanted := device.asked(variant):
        record.facts["device_asked"] = wanted
    if variant.engine.image:
        record.facts["image"] = variant.engine.image
    seen.phases = startup.resolve(trace, engine.phases(trace))
    record.checks += strategy.verify(trace, prepared)


def _better(error: LaunchError, server: Server) -> LaunchError:
    """The engine's own last words, where it died of what the client only saw the outside of.

    An engine of several processes may answer for a while after the one that computes has died.
    """
    if error.tail:
        return error
    if not server.alive():
        return server.failure("serving")
    tail = server.tail()
    found = told(server.said()) if error.kind == "request_failed" else None
    if found is None:
        return LaunchError(error.kind, error.message, tail=tail)
    return LaunchError(found[0], f"{found[1]} (the client saw: {error.message})", tail=tail)
