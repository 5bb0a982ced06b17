"""The sampler's own process: probes, clocks, one file, little else.

Started by probes.sampler as `python -m bench.probes.sampler_process`. The first line of standard input is the
configuration, later lines are commands (`{"watch": {...}}`, `{"mark": N}`, `{"stop": true}`); its end stops the sampler
too. Standard output carries JSON lines: what is recorded, once the probes are there, `{"marked": N}` once a mark's
readings are taken, and the account at the end.

Records go to `samples.jsonl` (see sink); when which probe is read is the business of lanes.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from bench import pipes
from bench.probes.context import Context, Watched
from bench.probes.lanes import BEAT_S, HANG_S, Lane, Rounds
from bench.probes.probe import Reading
from bench.probes.roots import Roots, peek
from bench.probes.sink import FILE, Sink
from bench.probes.tree import PAGE
from bench.record.launches import FieldInfo

START_S = 3.0
# A wait so much longer than asked for is no busy machine's doing: what it waited for a processor is taken off.
FROZEN_S = 0.25
# Probes that are read when a mark is set: whose processor time it was must be known at a window's very ends.
MARKED = ("tree",)
NICE = 10

_OWN = (
    ("cpu_s", "s", "cumulative: CPU time of the sampler"),
    ("rss_mib", "MiB", "resident size of the sampler"),
    ("missed", "1", "cumulative: readings that came a whole period late or not at all"),
    ("lost_lines", "1", "cumulative: readings that could not be written"),
    ("clock_step_ms", "ms", "how far wall time has moved against the monotonic clock since the start"),
    ("suspended_ms", "ms", "time asleep since the start"),
    ("frozen_ms", "ms", "cumulative: time in which the sampler was kept from running, and not by want of a processor"),
)
FIELDS = tuple(FieldInfo("sampler", field, unit, doc, "sampler") for field, unit, doc in _OWN)


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


class Pauses:
    """Waits that took longer than asked for: everything was stopped or frozen meanwhile.

    Time in which the thread was ready to run and another one had the processor (schedstat) is not counted.
    """

    def __init__(self) -> None:
        self.frozen_s = 0.0

    def wait(self, seconds: float) -> bool:
        """Wait for standard input, at most so long; whether it has something."""
        began, queued = time.monotonic(), _queued_s()
        ready = bool(select.select([0], [], [], seconds)[0])
        beyond = time.monotonic() - began - seconds - (_queued_s() - queued)
        if beyond > FROZEN_S:
            self.frozen_s += beyond
        return ready


def _queued_s() -> float:
    """How long this thread has waited for a processor; 0 where the kernel does not say."""
    try:
        return int(peek("/proc/thread-self/schedstat").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


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
    clocks, pauses, beat, pending = Clocks(), Pauses(), time.monotonic(), b""
    running = True
    while running:
        now = time.monotonic()
        rounds.part(now)
        if now >= beat:
            beat = max(beat + BEAT_S, now)
            for lane in lanes:
                lane.report(now)
            sink.write(time.monotonic_ns(), "sampler", _own(lanes, sink, clocks, pauses))
            sink.flush()
            # The pipe's end says that the parent is gone, unless someone else holds it; its id says so always.
            running = os.getppid() == parent
        if pauses.wait(min(HANG_S, max(0.0, beat - time.monotonic()))):
            data = os.read(0, 65536)
            running = running and bool(data)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                command = json.loads(line)
                running = _obey(command, watched) and running
                if "mark" in command:
                    for lane in lanes:
                        if lane.name in MARKED:
                            lane.mark(HANG_S)
                    _say({"marked": command["mark"]})
    rounds.stop(BEAT_S / 2)
    for lane in lanes:
        close = getattr(lane.probe, "close", None)
        if close is not None and lane.busy_since is None:
            close()
    sink.write(time.monotonic_ns(), "sampler", _own(lanes, sink, clocks, pauses))
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


def _own(lanes: list[Lane], sink: Sink, clocks: Clocks, pauses: Pauses) -> dict[str, Reading]:
    step, asleep = clocks.drift_ms()
    values = {
        "cpu_s": time.process_time(),
        "rss_mib": _rss_mib(),
        "missed": sum(lane.missed for lane in lanes),
        "lost_lines": sink.lost,
        "clock_step_ms": step,
        "suspended_ms": asleep,
        "frozen_ms": pauses.frozen_s * 1e3,
    }
    return {name: Reading(float(value)) for name, value in values.items()}


def _rss_mib() -> float:
    return int(peek("/proc/self/statm").split()[1]) * PAGE / 2**20


def _fields(lanes: list[Lane]) -> list[dict[str, Any]]:
    own = [info for lane in lanes if lane.probe is not None for info in lane.probe.fields]
    return [asdict(info) for info in (*own, *FIELDS)]


def _say(message: Mapping[str, Any]) -> None:
    with suppress(OSError):  # the parent may be gone; the file is what counts
        pipes.write_all(1, json.dumps(message).encode() + b"\n")


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
    os._exit(0)  # a probe that hangs must not keep the process


if __name__ == "__main__":
    main()
