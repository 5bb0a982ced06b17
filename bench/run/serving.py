"""One variant kept serving behind one address: started and warmed as a measured launch is, handed over, swapped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from bench.engines.engine import Endpoint
from bench.engines.images import Origins
from bench.engines.server import Server, start
from bench.errors import LaunchError, UsageError
from bench.home import home
from bench.loadgen.generator import LoadGenerator
from bench.probes.machine import machine
from bench.record.launches import HandOverAccount, LaunchRecord
from bench.record.manifest import PlannedLaunch
from bench.run.asking import Asking
from bench.run.front import Front
from bench.run.progress import Progress
from bench.run.seen import PREPARING, Seen, Stand
from bench.run.succession import Arranged, Proof, Succession, candidate, proven, weights_of
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant
from bench.warmup.pages import establish_page_cache
from bench.warmup.predecessor import predecessor

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
def serving(scenario: Scenario, variant: Variant, port: int, folder: Path, progress: Progress) -> Iterator[Serving]:
    """The variant, warm, or the engine that answers first for it; ended with all children on leaving.

    LaunchError if it does not get there.
    """
    begun = time.monotonic()
    leading = predecessor(variant) or variant
    with ExitStack() as crew:
        host = crew.enter_context(machine(None))
        load = crew.enter_context(LoadGenerator())
        stand = Stand(scenario, host, home() / "caches", progress, crew.enter_context(Origins()))
        front = crew.enter_context(Front(port))
        keeper = Serving(scenario, variant, stand, front, folder)
        crew.callback(keeper.stop)
        one = keeper.arranged(scenario, leading)
        establish_page_cache(one.checkpoint, leading.page_cache)
        if one.spec.attached:
            # Someone else's server is where it is.
            front.close()
        progress.preparing(f"starting {leading.id} on port {front.port}")
        keeper.start(one, load, begun)
        yield keeper


@dataclass(slots=True)
class Serving:
    """One address, and the engine that serves behind it; `ready` says how quick it was when it was first warm."""

    scenario: Scenario
    variant: Variant
    stand: Stand
    front: Front
    folder: Path
    server: Server | None = None
    ready: Ready | None = None
    begun: float = field(default_factory=time.monotonic)
    _serves: str = "engine 1"
    _made: int = 0

    def arranged(self, scenario: Scenario, variant: Variant) -> Arranged:
        """The variant's weights and command, in a folder of its own."""
        self._made += 1
        self.stand.progress.preparing(f"model {variant.model.source} as {variant.quantization}")
        checkpoint = weights_of(variant, self.stand.progress.preparing)
        planned = PlannedLaunch(0, 0, variant.id, scenario.model.design.seed)
        caches = self.stand.caches / scenario.model.scenario / variant.id
        return candidate(variant, checkpoint, caches, self.folder / str(self._made), planned)

    def start(self, one: Arranged, load: LoadGenerator, begun: float) -> None:
        """The first engine, started, warmed and put behind the address; LaunchError if it does not get warm."""
        variant, copied = one.variant, one.variant.start != "exec"
        if copied:
            self.stand.progress.preparing(PREPARING[variant.start])
        self.server = server = start(one.spec, one.context.folder, self.stand.parents if copied else None)
        one.prepared.spawned()
        if server.origin.reason is not None:
            self.stand.progress.note(f"started by exec and not {variant.start}: {server.origin.reason}")
        server.wait_healthy()
        planned = PlannedLaunch(0, 0, variant.id, self.scenario.model.design.seed)
        seen = Seen(LaunchRecord(planned.id, variant.id, dict(variant.factors), 0, 0))
        asking = Asking(self.stand, planned, variant, one.checkpoint, server, load, seen)
        self.stand.progress.preparing("warming up")
        asking.warm_up(one.strategy)
        # Whatever the strategy asked: the workload's own shape, twice, so that the second answer is a warm one.
        asking.warm_up(Proof())
        ttfts = proven(server, seen)
        place = server.endpoint
        if not one.spec.attached:
            self.front.serve(self._serves, place)
            place = self.front.endpoint(place)
        self.begun, self.ready = begun, Ready(place, time.monotonic() - begun, ttfts[0], ttfts[-1])

    def take_over(self, scenario: Scenario, variant: Variant) -> HandOverAccount:
        """Another engine, warm before the one that serves goes; LaunchError with that one still serving if it fails."""
        assert self.server is not None
        if self.server.spec.attached:
            raise LaunchError("unsupported", "a server that was attached to is not ours to replace")
        then = self.arranged(scenario, variant)
        names = self._serves, f"engine {self._made}"
        if then.spec.attached:
            raise LaunchError("unsupported", "a server that is attached to cannot be put behind this address")
        planned = PlannedLaunch(0, 0, variant.id, scenario.model.design.seed)
        stand = Stand(scenario, self.stand.machine, self.stand.caches, self.stand.progress, self.stand.parents)
        # Whoever asks until it is ready was turned away before this hand-over, and lost nothing by it.
        self.front.ask()
        since, unserved = len(self.front.states), self.front.unserved
        succession = Succession(stand, self.front, self.server, planned, names)
        succession.carry_out(then)
        self._serves, self.server, self.scenario, self.variant = names[1], succession.last, scenario, variant
        if variant.start != "forked":
            # What the engine before was forked from is of no use any more, and holds memory.
            self.stand.parents.close()
        account = succession.account()
        return replace(account, states=account.states[since:], unserved=account.unserved - unserved)

    def watch(self, asked: Callable[[], bool], swap: Callable[[], None]) -> NoReturn:
        """Stay as long as the engine does, and swap it where that is asked for; LaunchError with its last words once
        it is gone. Ctrl-C passes through.
        """
        assert self.server is not None
        while self.server.alive():
            time.sleep(LOOK_S)
            # It may have died, and then nobody reaches the engine.
            self.front.look()
            if asked():
                swap()
        raise self.server.failure("serving")

    def stop(self) -> None:
        """End the engine with all its children."""
        if self.server is not None:
            self.server.stop()

    @property
    def serves(self) -> str:
        """Who serves now: its model and what the address calls the engine."""
        return f"{self.server.endpoint.model} ({self._serves})" if self.server is not None else "nothing"
