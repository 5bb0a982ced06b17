"""Endless canaries of all endpoints of a watch list, their record, their alarms, and what Prometheus reads of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from bench.errors import UsageError
from bench.phrases import unwritten
from bench.probes.roots import Roots
from bench.record.documents import write_document
from bench.service.alarms import Teller
from bench.service.board import BoardSensors
from bench.service.door import Door
from bench.service.errand import errand
from bench.service.exposition import Exposition
from bench.service.journal import STATE, Held, Journal, utc
from bench.service.watch import Watch
from bench.service.watchlist import WatchList

if TYPE_CHECKING:
    from bench.service.otlp import Pusher

# How often what survives a restart is written down, and how often a fault that lasts is said again.
SAVE_S = 60.0
AGAIN_S = 3600.0

Say = Callable[[str], None]
# The sensors of this very machine.
HERE = Roots()


class Monitor:
    """A watch list being watched. Used as `with`: the folder is held, and nobody else may watch into it."""

    def __init__(
        self, watched: WatchList, text: str, folder: Path, say: Say, roots: Roots = HERE, pusher: Pusher | None = None
    ) -> None:
        self.watched, self.text, self.folder, self._say = watched, text, folder, say
        self.pusher = pusher
        self.exposition = Exposition()
        self._faults = self.exposition.own_counter("firsttoken_record_faults", "Lines that could not be written")
        self._lost = self.exposition.own_counter("firsttoken_alarms_lost", "Changes that nobody could be told of")
        self._faults.inc(0)
        self._board = BoardSensors(self.exposition.own, roots)
        variables = [one.key_env for one in watched.endpoints.values() if one.key_env]
        self.teller = Teller(watched.alarms, say, variables)
        self.journal = Journal(folder)
        self._said: dict[str, float] = {}
        self.watches = {
            name: Watch(name, one, _key(one.key_env), self._written, self._changed, self.exposition.render)
            for name, one in watched.endpoints.items()
        }
        self._held: Held | None = None
        self.port: int | None = None
        self._saved = float("-inf")

    def __enter__(self) -> Monitor:
        self._held = Held(self.folder)
        self._resume()
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        if self._held is not None:
            self._held.close()

    async def run(self, listen: tuple[str, int] | None, ready: Callable[[], None] = lambda: None) -> None:
        """Watch until cancelled. UsageError if the door cannot be opened."""
        door = Door(self.metrics, self.probe)
        if listen is not None:
            self.port = await door.listen(*listen)
        ready()
        self._board.start()
        keeping: asyncio.Task[None] | None = asyncio.create_task(self._keep())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.teller.run())
                for watch in self.watches.values():
                    group.create_task(watch.loop(utc))
                if self.pusher is not None:
                    group.create_task(self.pusher.run(self.exposed, self._pushed))
                while True:
                    await asyncio.sleep(min(SAVE_S, 5.0))
                    if self.journal.rolled(utc()) and (keeping is None or keeping.done()):
                        keeping = group.create_task(self._keep())
                    self._save()
        finally:
            door.close()
            if keeping is not None and not keeping.done():
                keeping.cancel()
                with suppress(asyncio.CancelledError):
                    await keeping
            self.journal.close()
            self._save(at_once=True)
            await self._keep()

    def metrics(self) -> str:
        """The text of /metrics."""
        self._lost.inc(max(self.teller.lost - self._lost._value.get(), 0))
        self._board.show()
        return self.exposition.text()

    async def probe(self, target: str) -> str | None:
        """The text of /probe: a fresh canary where one may be asked, the last one's figures otherwise."""
        watch = self.watches.get(target)
        if watch is None:
            return None
        begun = watch.begin(utc(), (watch.endpoint.streams[-1] if "warm" not in watch.endpoint.streams else "warm",))
        if begun is not None:
            await asyncio.shield(begun)
        last = watch.last
        return self.exposition.of(
            target,
            (
                ("probe_success", "Whether the last canary was answered", float(last is not None and last.ok)),
                ("probe_duration_seconds", "How long the last canary took", last.seconds if last else 0.0),
                ("firsttoken_probe_fresh", "Whether a canary was asked for this answer", float(begun is not None)),
            ),
        )

    def exposed(self) -> Iterator[tuple[CollectorRegistry, Mapping[str, Mapping[str, str | int]]]]:
        """Every registry, with what OpenTelemetry wants to be told of its endpoint."""
        self._board.show()
        yield self.exposition.own, {}
        for name, watch in self.watches.items():
            yield watch.exposed.registry, {name: watch.attributes()}

    def _pushed(self, why: str) -> None:
        if why:
            self._once("push", f"the OTLP collector takes nothing: {why}")
        elif self._said.pop("push", None) is not None:
            self._say("the OTLP collector takes what it is sent again")

    def _written(self, line: Mapping[str, Any]) -> None:
        if not self.journal.write(utc(), line):
            self._faults.inc()
            self._once("record", f"{self.journal.fault}; canaries go on, unrecorded")
        elif self._said.pop("record", None) is not None:
            self._say("records are written again")

    def _changed(self, endpoint: str, name: str, detail: Mapping[str, Any]) -> None:
        now = utc()
        self.watches[endpoint].event(name, detail, now)
        change = {"time": now.isoformat(timespec="seconds"), "endpoint": endpoint, "change": name, **detail}
        self._say(described(change))
        self.teller.tell(change)

    def _once(self, what: str, sentence: str) -> None:
        if monotonic() - self._said.get(what, float("-inf")) > AGAIN_S:
            self._said[what] = monotonic()
            self._say(sentence)

    def _save(self, *, at_once: bool = False) -> None:
        if not at_once and monotonic() - self._saved < SAVE_S:
            return
        self._saved = monotonic()
        try:
            write_document(self.folder / STATE, {name: watch.kept() for name, watch in self.watches.items()})
        except OSError as error:
            self._faults.inc()
            self._once("state", unwritten(self.folder / STATE, error))

    def _resume(self) -> None:
        for leftover in self.folder.glob(f".{STATE}.*.partial"):
            leftover.unlink(missing_ok=True)
        try:
            kept = json.loads((self.folder / STATE).read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._say(f"{self.folder / STATE} cannot be read ({type(error).__name__}): baselines are learned anew")
            return
        for name, watch in self.watches.items():
            try:
                watch.resume(kept[name])
            except (KeyError, TypeError, ValueError, AttributeError):
                continue

    async def _keep(self) -> None:
        """Have finished journals made into tables, by a process that ends when that is done."""
        days = [sys.executable, "-m", "bench.service.days", str(self.folder), str(self.watched.keep_days)]
        days += self.journal.finished()
        try:
            code, said = await errand(days, self.text.encode())
        except OSError as error:
            self._once("days", f"tables could not be made: {error.strerror}")
            return
        if code:
            self._faults.inc()
            reason = said.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
            self._once("days", f"tables could not be made of the journals, which are kept: {reason[0]}")


def described(change: Mapping[str, Any]) -> str:
    """A change as a line of the log."""
    if change["change"] == "slower":
        return (
            f"{change['endpoint']}: its first token became slower than the {change['seen']} before "
            f"(now {change['ttft_ms']:g} ms); advice"
        )
    if change["change"] == "fault":
        return f"{change['endpoint']}: a round failed by a fault of our own ({change['error']}); please report this"
    return (
        f"{change['endpoint']}: {change['figure'].replace('_', ' ')} {change['from']} → {change['to']} "
        f"({change['value']:g}; warning {change['warning']:g}, alarm {change['alarm']:g})"
    )


def _key(variable: str | None) -> str | None:
    """The key in an environment variable; UsageError if it is not set."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"key_env names {variable}, which is not set", hint=f"export {variable}=…")
    return key
