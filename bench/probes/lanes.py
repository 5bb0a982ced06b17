"""Probes and their clocks: each read when it falls due, in a thread that others share or in one of its own.

A probe that hangs keeps its thread and no other; its fields turn null, `stale`, meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from bench.probes.context import Context, nulls
from bench.probes.probe import Deferred, Probe, Reading
from bench.probes.sink import Made, Sink

BEAT_S = 1.0
HANG_S = 0.5
SCATTER_BELOW_S = 0.5
NAP_S = 0.25


def scattered(turn: int) -> float:
    """A number between 0 and 1 that looks drawn at random (splitmix64); even steps would alias with other loads."""
    word = 2**64 - 1
    x = turn * 0x9E3779B97F4A7C15 & word
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & word
    x = (x ^ x >> 27) * 0x94D049BB133111EB & word
    return (x ^ x >> 31) / 2**64


class Lane:
    """One probe and its clock.

    The reading times are scattered over each period, alike for all probes of one period: a load that swings in time
    with the sampling would otherwise be caught at one phase for ever, and nobody could tell.
    """

    def __init__(self, name: str, spec: Mapping[str, Any], context: Context, sink: Sink, least_period_s: float) -> None:
        self.name = name
        self.probe: Probe | None = None
        self.alone = False
        self.busy_since: float | None = None
        self.due = time.monotonic()
        self.samples = self.missed = self.failed = self.stale = 0
        self.max_gap_s = self.cpu_s = 0.0
        self.error: str | None = None
        self.built = threading.Event()
        self._reading = threading.Lock()
        self._spec, self._context, self._sink, self._least = spec, context, sink, least_period_s
        self._deferred: Deferred | None = None
        self._last = self._parse_s = 0.0
        self._turn: int | None = None

    @property
    def period_s(self) -> float:
        """Time between two readings on average; a probe may stretch it while running."""
        asked = self._spec.get("period_s")
        own = self.probe.period_s if self.probe else BEAT_S
        return max(self._least, float(asked) if asked else own)

    def build(self) -> None:
        """Make the probe; an error is kept for the account."""
        module, _, attribute = self._spec["factory"].partition(":")
        try:
            self.probe = getattr(import_module(module), attribute)(self._context)
            self.alone = bool(getattr(self.probe, "alone", False))
            self._deferred = self.probe if isinstance(self.probe, Deferred) else None
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        self.built.set()

    def read(self) -> None:
        """One reading into the file, and when the next is due."""
        with self._reading:
            self._read()
            self.due = self._next(time.monotonic())

    def mark(self, patience_s: float) -> None:
        """One reading more, beside those that are due; none if one is under way that does not end in time."""
        if self._reading.acquire(timeout=patience_s):
            try:
                self._read()
            finally:
                self._reading.release()

    def _read(self) -> None:
        probe = self.probe
        if probe is None:
            return
        start = self.busy_since = time.monotonic()
        used = time.thread_time()
        made: Made
        try:
            made = partial(self._parse, self._deferred, self._deferred.raw()) if self._deferred else probe.read()
        except Exception as error:
            made = self._failure(error, probe)
        now, self.busy_since = time.monotonic(), None
        if made:
            # The middle of a quick reading; a slow one says nothing about the time when it began.
            self._sink.write(int((now - min(now - start, self.period_s) / 2) * 1e9), probe.name, made)
            if self.samples:
                self.max_gap_s = max(self.max_gap_s, now - self._last)
            self.samples, self._last = self.samples + 1, now
        self.cpu_s += time.thread_time() - used

    def _parse(self, probe: Deferred, raw: Any) -> Mapping[str, Reading]:
        """The second step, in the thread that writes."""
        used = time.thread_time()
        try:
            return probe.parse(raw)
        except Exception as error:
            return self._failure(error, probe)
        finally:
            self._parse_s += time.thread_time() - used

    def _failure(self, error: Exception, probe: Probe) -> Mapping[str, Reading]:
        self.error, self.failed = f"{type(error).__name__}: {error}", self.failed + 1
        return nulls(probe.fields, "parse_failed")

    def _next(self, now: float) -> float:
        period = self.period_s
        if period > SCATTER_BELOW_S or self._turn is None:
            # A probe may stretch its period, so a slow one counts on from where it was; a quick one begins here.
            self._turn = int(now / period) + 1
            late = int((now - self.due) / period) if self.samples else 0
            self.missed += late
            return max(now, self.due + (1 + late) * period)
        turn = int(now / period) + 1
        self.missed += max(0, turn - self._turn - 1)
        self._turn = turn
        return (turn + scattered(turn)) * period

    def report(self, now: float) -> None:
        """Write nulls for a probe that has been busy for too long."""
        since = self.busy_since
        if self.probe is not None and since is not None and now - since > max(BEAT_S, 3 * self.period_s):
            self.stale += 1
            self._sink.write(int(now * 1e9), self.probe.name, nulls(self.probe.fields, "stale"))

    def account(self) -> dict[str, Any]:
        """What became of it."""
        return {
            "period_s": self.period_s,
            "samples": self.samples,
            "missed": self.missed,
            "stale": self.stale,
            "failed": self.failed,
            "max_gap_s": round(self.max_gap_s, 6),
            "cpu_s": round(self.cpu_s + self._parse_s, 6),
            "error": self.error if self.built.is_set() else "did not come up in time",
        }


class Rounds:
    """Threads that read lanes as they fall due.

    Quick probes share one thread: waking is most of their cost. When one of them hangs it keeps that thread to itself,
    and the others go on in a new one.
    """

    def __init__(self, lanes: list[Lane]) -> None:
        self.halt = threading.Event()
        self._threads: list[threading.Thread] = []
        self._shared = [lane for lane in lanes if not lane.alone]
        for group in (self._shared, *([lane] for lane in lanes if lane.alone)):
            self._start(group)

    def _start(self, group: list[Lane]) -> None:
        if group:
            thread = threading.Thread(target=self._run, args=(group,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, group: list[Lane]) -> None:
        while group and not self.halt.is_set():
            rest = min(lane.due for lane in group) - time.monotonic()
            # A sleep takes half the processor time of a wait for an event, and this happens ten times a second.
            if rest > NAP_S:
                self.halt.wait(rest)
            elif rest > 0:
                time.sleep(rest)
            now = time.monotonic()
            for lane in [lane for lane in group if lane.due <= now]:
                lane.read()
                if lane.alone and len(group) > 1:
                    group = [lane]  # it hung, and the others have gone on without this thread
                    break

    def part(self, now: float) -> None:
        """Leave a hanging probe alone with its thread."""
        stuck = next((x for x in self._shared if x.busy_since is not None and now - x.busy_since > HANG_S), None)
        if stuck is not None:
            stuck.alone = True
            self._shared = [lane for lane in self._shared if lane is not stuck]
            self._start(self._shared)

    def stop(self, timeout_s: float) -> None:
        """Let every thread finish its reading, if it does so in time."""
        self.halt.set()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
