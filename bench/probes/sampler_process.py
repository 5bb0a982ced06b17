"""The sampler's own process: probes, clocks, one file, little else.

Started by probes.sampler as `python -m bench.probes.sampler_process`. The first line of standard input is the
configuration, later lines are commands (`{"watch": {...}}`, `{"stop": true}`); its end stops the sampler too. Standard
output carries two JSON lines: what is recorded, once the probes are there, and the account at the end.

Records go to `samples.jsonl`, one line per reading: `{"t": ns, "p": probe, "v": {field: value or [null, reason]}}`.
A probe that hangs keeps its thread and no other; its fields turn null, `stale`, meanwhile.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

from bench.probes.base import Deferred, Probe, Reading
from bench.probes.context import Context, Watched, nulls
from bench.probes.roots import Roots, peek
from bench.probes.tree import PAGE
from bench.record.schema import FieldInfo

FILE = "samples.jsonl"
BEAT_S = 1.0
START_S = 3.0
HANG_S = 0.5
NICE = 10
SCATTER_BELOW_S = 0.5
NAP_S = 0.25

_OWN = (
    ("cpu_s", "s", "cumulative: CPU time of the sampler"),
    ("rss_mib", "MiB", "resident size of the sampler"),
    ("missed", "1", "cumulative: readings that came a whole period late or not at all"),
    ("lost_lines", "1", "cumulative: readings that could not be written"),
    ("clock_step_ms", "ms", "how far wall time has moved against the monotonic clock since the start"),
    ("suspended_ms", "ms", "time asleep since the start"),
)
FIELDS = tuple(FieldInfo("sampler", field, unit, doc, "sampler") for field, unit, doc in _OWN)


def scattered(turn: int) -> float:
    """A number between 0 and 1 that looks drawn at random (splitmix64); even steps would alias with other loads."""
    word = 2**64 - 1
    x = turn * 0x9E3779B97F4A7C15 & word
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & word
    x = (x ^ x >> 27) * 0x94D049BB133111EB & word
    return (x ^ x >> 31) / 2**64


Made = Mapping[str, Reading] | Callable[[], Mapping[str, Reading]]


class Sink:
    """The samples file: whole lines, or a count of those that did not fit.

    Readings are gathered, and made into lines and written once a beat: done one by one, each finds the processor's
    caches cold and costs several times as much.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._gathered: deque[tuple[int, str, Made]] = deque()
        self._broken = False
        self.lost = 0

    def write(self, t_ns: int, probe: str, made: Made) -> None:
        """One reading of one probe, or what makes it."""
        self._gathered.append((t_ns, probe, made))

    def flush(self) -> None:
        """Put all that was gathered on disk; called by one thread alone."""
        lines = []
        while self._gathered:
            t_ns, probe, made = self._gathered.popleft()
            lines.append(_line(t_ns, probe, made() if callable(made) else made))
        # After a short write the next line starts on a fresh one: the reader drops the half.
        data = b"\n" * self._broken + b"".join(lines)
        try:
            written = os.write(self._fd, data) if lines else 0
        except OSError:
            written = 0
        whole = data[:written].count(b"\n") - self._broken * (written > 0)
        self._broken = self._broken if not lines else written != len(data)
        self.lost += len(lines) - whole


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _line(t_ns: int, probe: str, readings: Mapping[str, Reading]) -> bytes:
    values = {
        field: round(value, 6) if value is not None else (None, reason) for field, (value, reason) in readings.items()
    }
    return _encode({"t": t_ns, "p": probe, "v": values}).encode() + b"\n"


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
        self.due = self._next(now)
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


class Clocks:
    """Wall and boot time against the monotonic clock, as they were at the start."""

    def __init__(self) -> None:
        self._start = self._offsets()

    @staticmethod
    def _offsets() -> tuple[int, int]:
        before = time.monotonic_ns()
        wall, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        middle = (before + time.monotonic_ns()) // 2
        return wall - middle, boot - middle

    def drift_ms(self) -> tuple[float, float]:
        """Step of the wall clock and time suspended since the start."""
        wall, boot = self._offsets()
        return (wall - self._start[0]) / 1e6, (boot - self._start[1]) / 1e6


def sample(config: Mapping[str, Any]) -> None:
    """Run the probes until standard input says stop or ends, or the parent is gone."""
    started, parent = time.monotonic(), os.getppid()
    watched = Watched(config["engine"], tuple(config["harness"]), config["metrics_url"])
    roots = Roots.from_json(config["roots"])
    sink = Sink(os.path.join(config["folder"], FILE))  # noqa: PTH118 (pathlib is not needed here otherwise)
    lanes = [
        Lane(name, spec, Context(roots, watched, spec.get("options", {})), sink, config["period_s"])
        for name, spec in config["probes"].items()
    ]
    for lane in lanes:
        threading.Thread(target=lane.build, name=lane.name, daemon=True).start()
    for lane in lanes:
        lane.built.wait(max(0.0, started + START_S - time.monotonic()))
    rounds = Rounds([lane for lane in lanes if lane.probe is not None])
    _say({"fields": _fields(lanes), "pid": os.getpid()})
    gc.collect()
    gc.freeze()
    clocks, beat, pending = Clocks(), time.monotonic(), b""
    running = True
    while running:
        now = time.monotonic()
        rounds.part(now)
        if now >= beat:
            beat = max(beat + BEAT_S, now)
            for lane in lanes:
                lane.report(now)
            sink.write(time.monotonic_ns(), "sampler", _own(lanes, sink, clocks))
            sink.flush()
            # The pipe's end says that the parent is gone, unless someone else holds it; its id says so always.
            running = os.getppid() == parent
        if select.select([0], [], [], min(HANG_S, max(0.0, beat - time.monotonic())))[0]:
            data = os.read(0, 65536)
            running = running and bool(data)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                running = _obey(json.loads(line), watched) and running
    rounds.stop(BEAT_S / 2)
    for lane in lanes:
        close = getattr(lane.probe, "close", None)
        if close is not None and lane.busy_since is None:
            close()
    sink.write(time.monotonic_ns(), "sampler", _own(lanes, sink, clocks))
    sink.flush()
    _say(
        {
            "fields": _fields(lanes),
            "probes": {lane.name: lane.account() for lane in lanes},
            "cpu_s": time.process_time(),
            "wall_s": time.monotonic() - started,
            "rss_mib": _rss_mib(),
            "lost_lines": sink.lost,
        }
    )


def _obey(command: Mapping[str, Any], watched: Watched) -> bool:
    for name, value in command.get("watch", {}).items():
        setattr(watched, name, tuple(value) if name == "harness" else value)
    return not command.get("stop", False)


def _own(lanes: list[Lane], sink: Sink, clocks: Clocks) -> dict[str, Reading]:
    step, asleep = clocks.drift_ms()
    values = {
        "cpu_s": time.process_time(),
        "rss_mib": _rss_mib(),
        "missed": sum(lane.missed for lane in lanes),
        "lost_lines": sink.lost,
        "clock_step_ms": step,
        "suspended_ms": asleep,
    }
    return {name: Reading(float(value)) for name, value in values.items()}


def _rss_mib() -> float:
    return int(peek("/proc/self/statm").split()[1]) * PAGE / 2**20


def _fields(lanes: list[Lane]) -> list[dict[str, Any]]:
    own = [info for lane in lanes if lane.probe is not None for info in lane.probe.fields]
    return [asdict(info) for info in (*own, *FIELDS)]


def _say(message: Mapping[str, Any]) -> None:
    with suppress(OSError):  # the parent may be gone; the file is what counts
        print(json.dumps(message), flush=True)


def main() -> None:
    """Read the configuration and sample."""
    # The terminal's Ctrl-C is the harness's to handle; it stops the sampler last.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    sample(json.loads(line))
    sys.stdout.flush()
    os._exit(0)  # a probe that hangs must not keep the process


if __name__ == "__main__":
    main()
