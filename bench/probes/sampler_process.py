"""The sampler's own process: one thread per probe, one file, little else.

Started by probes.sampler as `python -m bench.probes.sampler_process`. The first line of standard input is the
configuration, later lines are commands (`{"watch": {...}}`, `{"stop": true}`); its end stops the sampler too. Standard
output carries two JSON lines: what is recorded, once the probes are there, and the account at the end.

Records go to `samples.jsonl`, one line per reading: `{"t": ns, "p": probe, "v": {field: value or [null, reason]}}`.
A probe that hangs keeps only its own thread waiting; its fields turn null, `stale`, meanwhile.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from typing import Any

from bench.probes.base import Probe, Reading
from bench.probes.context import Context, Watched, nulls
from bench.probes.roots import Roots, peek
from bench.probes.tree import PAGE
from bench.record.schema import FieldInfo

FILE = "samples.jsonl"
BEAT_S = 1.0
START_S = 3.0
NICE = 10

_OWN = (
    ("cpu_s", "s", "cumulative: CPU time of the sampler"),
    ("rss_mib", "MiB", "resident size of the sampler"),
    ("missed", "1", "cumulative: readings that came a whole period late or not at all"),
    ("lost_lines", "1", "cumulative: readings that could not be written"),
    ("clock_step_ms", "ms", "how far wall time has moved against the monotonic clock since the start"),
    ("suspended_ms", "ms", "time asleep since the start"),
)
FIELDS = tuple(FieldInfo("sampler", field, unit, doc, "sampler") for field, unit, doc in _OWN)


class Sink:
    """The samples file: whole lines, or a count of those that did not fit."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()
        self._broken = False
        self.lost = 0

    def write(self, t_ns: int, probe: str, readings: Mapping[str, Reading]) -> None:
        """One reading of one probe."""
        values = {
            field: round(reading.value, 6) if reading.value is not None else [None, reading.reason]
            for field, reading in readings.items()
        }
        line = json.dumps({"t": t_ns, "p": probe, "v": values}, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            # After a short write the next line starts on a fresh one: the reader drops the half.
            data = b"\n" + line if self._broken else line
            try:
                self._broken = os.write(self._fd, data) != len(data)
            except OSError:
                self._broken = True
            self.lost += self._broken


class Lane(threading.Thread):
    """One probe, read by its own clock."""

    def __init__(self, name: str, spec: Mapping[str, Any], context: Context, sink: Sink, least_period_s: float) -> None:
        super().__init__(name=name, daemon=True)
        self.probe: Probe | None = None
        self.busy_since: float | None = None
        self.samples = self.missed = self.failed = self.stale = 0
        self.max_gap_s = 0.0
        self.error: str | None = None
        self.built = threading.Event()
        self.halt = threading.Event()
        self._spec, self._context, self._sink, self._least = spec, context, sink, least_period_s

    @property
    def period_s(self) -> float:
        """Time between two readings; a probe may stretch it while running."""
        asked = self._spec.get("period_s")
        own = self.probe.period_s if self.probe else BEAT_S
        return max(self._least, float(asked) if asked else own)

    def run(self) -> None:
        """Build the probe and read it until told to stop."""
        self.busy_since = time.monotonic()
        module, _, attribute = self._spec["factory"].partition(":")
        try:
            self.probe = getattr(import_module(module), attribute)(self._context)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        self.busy_since = None
        self.built.set()
        if self.probe is not None:
            self._loop(self.probe)

    def _loop(self, probe: Probe) -> None:
        due = last = time.monotonic()
        while not self.halt.wait(max(0.0, due - time.monotonic())):
            start = self.busy_since = time.monotonic()
            try:
                readings = probe.read()
            except Exception as error:
                self.error, self.failed = f"{type(error).__name__}: {error}", self.failed + 1
                readings = nulls(probe.fields, "parse_failed")
            now, self.busy_since = time.monotonic(), None
            if not readings:
                due += self.period_s  # a source that has nothing new yet
                continue
            # The middle of a quick reading; a slow one says nothing about the time when it began.
            self._sink.write(int((now - min(now - start, self.period_s) / 2) * 1e9), probe.name, readings)
            self.max_gap_s = max(self.max_gap_s, now - last) if self.samples else 0.0
            self.samples, last = self.samples + 1, now
            due += self.period_s
            if now > due:
                late = int((now - due) / self.period_s) + 1
                self.missed += late
                due += late * self.period_s

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
            "error": self.error if self.built.is_set() else "did not come up in time",
        }


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
        lane.start()
    for lane in lanes:
        lane.built.wait(max(0.0, started + START_S - time.monotonic()))
    _say({"fields": _fields(lanes), "pid": os.getpid()})
    gc.collect()
    gc.freeze()
    clocks, beat, pending = Clocks(), time.monotonic(), b""
    running = True
    while running:
        now = time.monotonic()
        if now >= beat:
            beat = max(beat + BEAT_S, now)
            for lane in lanes:
                lane.report(now)
            sink.write(time.monotonic_ns(), "sampler", _own(lanes, sink, clocks))
            # The pipe's end says that the parent is gone, unless someone else holds it; its id says so always.
            running = os.getppid() == parent
        if select.select([0], [], [], max(0.0, beat - time.monotonic()))[0]:
            data = os.read(0, 65536)
            running = running and bool(data)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                running = _obey(json.loads(line), watched) and running
    for lane in lanes:
        lane.halt.set()
    end = time.monotonic() + BEAT_S / 2
    for lane in lanes:
        lane.join(max(0.0, end - time.monotonic()))
        close = getattr(lane.probe, "close", None)
        if close is not None and not lane.is_alive():
            close()
    sink.write(time.monotonic_ns(), "sampler", _own(lanes, sink, clocks))
    _say(
        {
            "fields": _fields(lanes),
            "probes": {lane.name: lane.account() for lane in lanes},
            "cpu_s": time.process_time(),
            "wall_s": time.monotonic() - started,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
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
        "rss_mib": int(peek("/proc/self/statm").split()[1]) * PAGE / 2**20,
        "missed": sum(lane.missed for lane in lanes),
        "lost_lines": sink.lost,
        "clock_step_ms": step,
        "suspended_ms": asleep,
    }
    return {name: Reading(float(value)) for name, value in values.items()}


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
