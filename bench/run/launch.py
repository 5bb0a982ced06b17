"""One launch, from spawn to exit: start the engine, warm it, ask it, stop it, keep what was seen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import plugins
from bench.engines import containers, device, startup
from bench.engines.engine import OURS, Checkpoint, Endpoint, Engine, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.failure import told
from bench.engines.images import imaged
from bench.engines.invocation import invocation
from bench.engines.origin import start_check
from bench.engines.parent import CannotFork
from bench.engines.server import Server, free_port, start
from bench.engines.slowed import slowed
from bench.engines.spans import SpanSink
from bench.errors import LaunchError
from bench.loadgen.browser import Browser
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.outpost import LOST
from bench.loadgen.remote import RemoteLoad
from bench.probes.context import Watched
from bench.probes.cooldown import cool_down
from bench.probes.devices import without_gpu
from bench.probes.memory import guarded_memory, idle, returned, will_it_fit
from bench.probes.processes import held_mib
from bench.probes.sampler import Sampler
from bench.record.documents import parsed
from bench.record.launches import ExitReport, LaunchRecord, MemoryServed, Stop
from bench.record.manifest import PlannedLaunch
from bench.record.schema import Status
from bench.run import oracle, twin
from bench.run.asking import Asking
from bench.run.clients import listening
from bench.run.front import Front
from bench.run.patience import patient
from bench.run.seen import PREPARING, Seen, Stand
from bench.run.stops import of_children, own_stops
from bench.run.succession import SECOND, Succession, candidate, meanwhile, weights_of
from bench.scenario.variant import Variant
from bench.warmup.pages import establish_page_cache, page_cache_check
from bench.warmup.predecessor import predecessor
from bench.warmup.step import HostState
from bench.warmup.strategies import build


def launch(stand: Stand, planned: PlannedLaunch, variant: Variant, checkpoint: Checkpoint, folder: Path) -> Seen:
    """Carry out one launch; a failure of the engine is part of what was seen, never an exception."""
    record = LaunchRecord(planned.id, variant.id, dict(variant.factors), planned.block, planned.position)
    record.wall_time = datetime.now(UTC).isoformat(timespec="milliseconds")
    seen = Seen(record)
    try:
        _launch(stand, planned, variant, checkpoint, folder, seen)
    except LaunchError as error:
        ended: Status = "stopped" if error.kind == "hopeless" else "failed"
        record.status = "unsupported" if error.kind.startswith("unsupported") else ended
        if error.kind == LOST:
            # Nothing was wrong with the engine: it is to be measured again.
            record.status = "invalid"
        record.reason_kind, record.reason, record.log_tail = error.kind, error.message, list(error.tail)
    return seen


def _launch(
    stand: Stand, planned: PlannedLaunch, variant: Variant, checkpoint: Checkpoint, folder: Path, seen: Seen
) -> None:
    record, progress = seen.record, stand.progress
    # The one that is spawned now; where the warm-up is a hand-over, the variant's own comes beside it.
    leading = predecessor(variant) or variant
    if leading.start == "restored" and stand.clients:
        raise LaunchError("unsupported", "a restored engine is not asked from another host yet")
    if leading is not variant and (variant.slowdown is not None or stand.clients):
        raise LaunchError("unsupported", "a hand-over is neither slowed on purpose nor asked from another host yet")
    engine: Engine = plugins.load("engines", leading.engine.engine)()
    strategy = build(leading.warmup)
    weights = checkpoint if leading.model == variant.model else weights_of(leading)
    caches = stand.caches / leading.id
    caches.mkdir(parents=True, exist_ok=True)

    progress.phase("preparing")
    # First of all: it reads the weights and warms the machine.
    twin.provide(stand, leading, weights, folder)
    _settle(stand, record)
    if variant.page_cache == "drop":
        # Weights that a parent of another variant maps cannot be dropped.
        stand.parents.release(weights.path)
    # The warm-up comes second: a step that reads the weights in would have them dropped again.
    page_cache = establish_page_cache(weights, variant.page_cache)
    prepared = strategy.prepare(HostState(leading, weights, caches, folder))
    told = {name: step for name, step in prepared.state.items() if isinstance(step, Mapping)}
    record.state_before = replace(record.state_before, page_cache=page_cache, warmup=told)
    if variant.page_cache != "leave":
        record.checks.append(page_cache_check(page_cache))

    with ExitStack() as crew:
        # Whatever takes part in the measurement is up before the engine is spawned: it costs the launch nothing.
        own = crew.enter_context(own_stops())
        sink = crew.enter_context(SpanSink())
        load = _client(stand, variant)
        crew.enter_context(load)
        host = stand.clients.address if stand.clients and stand.clients.address else OURS
        context = LaunchContext(
            port=free_port(host),
            folder=folder,
            checkpoint=weights,
            caches=caches,
            # An image lasts longer than this address.
            spans_url=sink.url if leading.start != "restored" else None,
            args=prepared.args,
            env=prepared.env,
            block=planned.block,
            position=planned.position,
            seed=planned.seed,
            host=host,
        )
        spec = imaged(engine.command(leading, context), leading, weights, folder)
        record.command = invocation(engine, leading, context, spec)
        record.facts |= containers.present(spec.argv)
        if variant.slowdown is not None:
            spec = slowed(spec, variant.slowdown, free_port(host))
        if isinstance(load, RemoteLoad):
            progress.phase("timing the way from the client's host")
            _look(load, spec)
        forking = stand.parents if leading.start != "exec" else None
        if forking is not None:
            progress.phase(PREPARING[leading.start])
            # Made before anything is sampled; why it cannot be is told by the start itself.
            with suppress(CannotFork):
                forking.warm(spec)
        sampler = Sampler.start(folder, Watched(harness=(os.getpid(),)), roots=stand.machine.roots)
        crew.callback(_sampled, sampler, record)
        # With all of that in place, and sampled: this second is also the idle power that energy is measured against.
        before = idle(stand.machine.roots)
        record.memory = replace(record.memory, before=before)
        record.checks.append(will_it_fit(weights.size_bytes, before))
        progress.phase("starting")
        front = crew.enter_context(Front()) if leading is not variant else None
        server = start(spec, folder, forking)
        prepared.spawned()
        succession = None if front is None else Succession(stand, front, server, planned)
        killing = server if succession is None else succession
        watchdog = crew.enter_context(guarded_memory(stand.machine.roots, lambda reason: killing.kill()))
        waiting = crew.enter_context(patient(stand.patience_s, server, killing.kill))
        try:
            sampler.set_pid(server.pid)
            sampler.set_metrics_url(metrics_url(server.endpoint))
            server.wait_healthy()
            if server.inside is not None:
                sampler.set_pid(server.inside)
            asking = Asking(stand, planned, leading, weights, succession or server, load, seen)
            asking.heard = None if stand.patience_s is None else waiting.heard

            def consult() -> None:
                record.start = oracle.consulted(record.start, leading, spec, stand.machine, server, weights)

            def hand_over() -> None:
                assert succession is not None
                # What is asked meanwhile may be answered by either: of two models, tokens that both know.
                asking.checkpoint = min(weights, checkpoint, key=lambda one: one.vocab_size or math.inf)
                with meanwhile(asking):
                    consult()
                    second = stand.caches / variant.id, folder / SECOND
                    succession.carry_out(candidate(variant, checkpoint, *second, planned))
                succession.merge(asking)
                asking.checkpoint = checkpoint
                sampler.set_pid(succession.last.pid)
                sampler.set_metrics_url(metrics_url(succession.last.endpoint))
                sampler.mark()

            if succession is not None:
                succession.begin()
            asking.warm_up(strategy)
            if succession is None:
                sampler.mark()
            asking.measure(None if succession is None else hand_over)
            sampler.mark()
            last = server if succession is None else succession.last
            # Reading a large process's memory is slow and so done seldom while it is measured; this one is sure.
            if not variant.engine.image:
                record.facts |= without_gpu(last.tree())
            served = MemoryServed(time.monotonic_ns(), held_mib(last.tree()))
            record.memory = replace(record.memory, served=served)
            asking.question()
            if succession is None and twin.needs_oracle(stand.variants):
                consult()
        except LaunchError as error:
            if watchdog is not None and watchdog.tripped:
                raise LaunchError("out_of_memory", watchdog.tripped, tail=server.tail()) from None
            if waiting.over:
                raise LaunchError("hopeless", waiting.words, tail=server.tail()) from None
            raise _better(error, server) from None
        finally:
            progress.phase("stopping")
            helpers = {
                **{f"load generator{n or ''}": pid for n, pid in enumerate(load.harness_pids)},
                "sampler": sampler.process_id,
                "supervisor": server.supervisor_pid,
            }
            if front is not None:
                helpers["proxy"] = front.pid
            stopped = of_children(helpers)
            if succession is not None:
                record.hand_over = succession.account()
            ended = server.stop() if succession is None else succession.stop()
            record.exit = parsed(ExitReport, ended)
            record.stops = own + stopped + [Stop("engine", *stop) for stop in ended.get("stops", ())]
            record.stamps |= server.stamps if succession is None else succession.stamps
            record.start = replace(
                server.origin, asked=leading.start, oracle=record.start.oracle, reference=record.start.reference
            )
            if check := start_check(record.start):
                record.checks.append(check)
            if isinstance(load, RemoteLoad):
                # Where it is lost by now, what was measured before stands, and a rule says what is missing.
                with suppress(LaunchError, OSError):
                    _look(load, spec)
            record.client = load.account()
            record.clock = load.clock()
            after = None if spec.attached else returned(before, stand.machine.roots)
            record.memory = replace(record.memory, after=after)
            trace = LaunchTrace(
                stamps=record.stamps,
                log=server.log(),
                events=server.events(),
                spans=sink.drain(),
                endpoint=server.endpoint,
                warmup=record.warmup,
                forked=server.origin.forked,
                restored=server.origin.mode == "restored",
            )
            _interpret(engine, leading, spec, trace, seen)
            verified = strategy.verify(trace, prepared)
            record.checks += verified if succession is None else succession.checks(record, verified)


def _look(load: RemoteLoad, spec: LaunchSpec) -> None:
    """Time the way from the clients' hosts to the engine's port, while no engine of ours is there to be disturbed."""
    place = spec.endpoint
    with nullcontext() if spec.attached else listening(place.host, place.port):
        load.look(place.host, place.port)


def _client(stand: Stand, variant: Variant) -> LoadGenerator | RemoteLoad | Browser:
    """Who asks: a person's browser where a page is before the server, the clients' hosts, or this one's generator."""
    if variant.engine.args.get("page"):
        return Browser()
    return RemoteLoad(stand.clients) if stand.clients else LoadGenerator()


def _settle(stand: Stand, record: LaunchRecord) -> None:
    """Wait until the machine is as cool as the scenario asks; what it waited for is a check."""
    wanted = stand.scenario.model.design.cool_down
    if wanted is None:
        return
    stand.progress.phase("cooling down")
    ended = cool_down(stand.machine.roots, stand.idle_c, above_idle_c=wanted.above_idle_c, timeout_s=wanted.timeout_s)
    record.state_before = replace(record.state_before, cool_down=ended.to_json())
    record.checks.append(ended.check())


def metrics_url(endpoint: Endpoint) -> str | None:
    """Where an engine's Prometheus metrics would be; None for one behind TLS, which is not ours to scrape."""
    return None if endpoint.tls else f"http://{endpoint.host}:{endpoint.port}{endpoint.prefix}/metrics"


def _sampled(sampler: Sampler, record: LaunchRecord) -> None:
    account = sampler.stop()
    record.fields = account.fields
    record.client = replace(record.client, sampler=account.account())


def _interpret(engine: Engine, variant: Variant, spec: LaunchSpec, trace: LaunchTrace, seen: Seen) -> None:
    """What the trace means: facts and phases."""
    record = seen.record
    # An engine knows best what it computes on; its log is next, and the files it holds open say something of any.
    record.facts |= {**device.told(trace.log), **engine.facts(trace)}
    if wanted := device.asked(variant) or ("cuda" if spec.wants_gpu else None):
        record.facts["device_asked"] = wanted
    seen.tables.phases = startup.resolve(trace, engine.phases(trace))


def _better(error: LaunchError, server: Server) -> LaunchError:
    """The engine's own last words, where it died of what the client only saw the outside of.

    An engine of several processes may answer for a while after the one that computes has died.
    """
    if error.tail or error.kind == LOST:
        return error
    if not server.alive():
        return server.failure("serving")
    tail = server.tail()
    found = told(server.said()) if error.kind == "request_failed" else None
    if found is None:
        return LaunchError(error.kind, error.message, tail=tail)
    return LaunchError(found[0], f"{found[1]} (the client saw: {error.message})", tail=tail)
