"""One variant kept serving: started and warmed as a measured launch is, then left to whoever asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bench import plugins
from bench.engines.engine import Endpoint, Engine, LaunchContext, form
from bench.engines.parents import Parents
from bench.engines.server import Server, start
from bench.errors import LaunchError, UsageError
from bench.home import home
from bench.loadgen.generator import LoadGenerator
from bench.models import checkpoints
from bench.probes.machine import machine
from bench.record.launches import LaunchRecord
from bench.record.manifest import PlannedLaunch
from bench.run.asking import Asking
from bench.run.progress import Progress
from bench.run.seen import Seen, Stand
from bench.scenario.load import Scenario
from bench.scenario.model import Workload
from bench.scenario.variant import Variant
from bench.warmup.pages import establish_page_cache
from bench.warmup.step import HostState, Stage, Step, buckets
from bench.warmup.strategies import build

# How often a serving engine is looked at.
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that has given a warm first token: where, after how long, and how quick that token was."""

    endpoint: Endpoint
    seconds: float
    first_ttft_ms: float
    warm_ttft_ms: float


def pick(scenario: Scenario, name: str | None) -> Variant:
    """The variant of that id; the only one where none is named; UnknownName and UsageError say which there are."""
    if name is not None:
        return scenario.variant(name)
    known = scenario.variants
    if len(known) > 1:
        listing = ", ".join(one.id for one in known)
        raise UsageError(f"{scenario.path} has {len(known)} variants: {listing}", hint="name one: --variant")
    return known[0]


@contextmanager
def serving(
    scenario: Scenario, variant: Variant, port: int, folder: Path, progress: Progress
) -> Iterator[tuple[Server, Ready]]:
    """The variant, warm; ended with all its children on leaving. LaunchError if it does not get there."""
    progress.preparing(f"model {variant.model.source} as {variant.quantization}")
    engine: Engine = plugins.load("engines", variant.engine.engine)()
    checkpoint = checkpoints.resolve(
        variant.model, variant.quantization, form=form(engine), progress=progress.preparing
    )
    strategy = build(variant.warmup)
    caches = home() / "caches" / scenario.model.scenario / variant.id
    caches.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    establish_page_cache(checkpoint, variant.page_cache)
    prepared = strategy.prepare(HostState(variant, checkpoint, caches, folder))
    context = LaunchContext(port, folder, checkpoint, caches, args=prepared.args, env=prepared.env)
    progress.preparing(f"starting {variant.id} on port {port}")
    spec = engine.command(variant, context)
    with ExitStack() as crew:
        host = crew.enter_context(machine(None))
        load = crew.enter_context(LoadGenerator())
        parents = crew.enter_context(Parents())
        if variant.start == "forked":
            progress.preparing("warming a parent")
        server = crew.enter_context(start(spec, folder, parents if variant.start == "forked" else None))
        if server.origin.reason is not None:
            progress.note(f"started by exec and not forked: {server.origin.reason}")
        server.wait_healthy()
        planned = PlannedLaunch(0, 0, variant.id, scenario.model.design.seed)
        seen = Seen(LaunchRecord(planned.id, variant.id, dict(variant.factors), 0, 0))
        stand = Stand(scenario, host, caches, progress, parents)
        asking = Asking(stand, planned, variant, checkpoint, server, load, seen)
        progress.preparing("warming up")
        asking.warm_up(strategy)
        # Whatever the strategy asked: the workload's own shape, twice, so that the second answer is a warm one.
        asking.warm_up(Proof())
        yield server, _ready(server, seen, time.monotonic() - begun)


class Proof(Step):
    """Two requests of the workload's shortest prompt: the second shows how quick a warm first token is."""

    name = "proof"

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """One stage."""
        yield Stage(self.name, 2, buckets(workload)[:1], min(workload.output_tokens, 8), concurrency=1)


def _ready(server: Server, seen: Seen, seconds: float) -> Ready:
    ttfts = [
        (row["first_token_ns"] - row["sent_ns"]) / 1e6
        for row in seen.tables.requests
        if row["error_kind"] is None and row["first_token_ns"] is not None
    ]
    proof = [row for row in seen.tables.requests if row["label"] == Proof.name]
    failed = next((row for row in proof if row["error_kind"] is not None), None)
    if failed is not None or not ttfts:
        why = failed["error"] if failed else "nothing was answered"
        raise LaunchError("request_failed", f"the engine is up and does not answer: {why}", tail=server.tail())
    return Ready(server.endpoint, seconds, ttfts[0], ttfts[-1])


def watch(server: Server) -> NoReturn:
    """Stay as long as the engine does; LaunchError with its last words once it is gone. Ctrl-C passes through."""
    while server.alive():
        time.sleep(LOOK_S)
    raise server.failure("serving")
