"""The machine that a monitor runs on, for Prometheus: how hot it is, what it draws, and whether it slows itself down.

A canary or a scrape never waits for a sensor: some take milliseconds, and a broken one may never answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from threading import Event, Thread
from time import monotonic

from prometheus_client import CollectorRegistry, Gauge

from bench.plugins import load
from bench.probes.context import Context
from bench.probes.probe import Probe, Reading
from bench.probes.roots import Roots
from bench.probes.sampler import suitable
from bench.record.cooling import HARDWARE, Effect, effect

PROBES = ("thermal", "jetson", "nvml")
PERIOD_S, STALE_S = 5.0, 30.0
SERIES: Mapping[str, tuple[str, str]] = {
    "firsttoken_board_temperature_celsius": ("Temperature of a part of the monitor's machine", "part"),
    "firsttoken_board_power_watts": ("Power of the whole module, or of a GPU's board", "part"),
    "firsttoken_board_throttled": ("1 while this slows a processor or the GPU of the monitor's machine down", "cause"),
}

# A series' name, its label and its value; None where the sensor is silent.
Sample = tuple[str, str, float | None]


class BoardSensors:
    """Series in a registry; what a sensor does not say (any more) is taken away, never zero."""

    def __init__(self, registry: CollectorRegistry, roots: Roots, clock: Callable[[], float] = monotonic) -> None:
        self._probes = list(_probes(roots))
        self._clock = clock
        self._seen: dict[tuple[str, str], float] = {}
        self._read_at = float("-inf")
        self._shown: set[tuple[str, str]] = set()
        self._gauges = {name: Gauge(name, text, (label,), registry=registry) for name, (text, label) in SERIES.items()}
        self._over = Event()

    def start(self) -> None:
        """Read for ever in a thread of its own: a sensor that blocks must keep nobody from asking, nor from ending."""
        if self._probes:
            Thread(target=self._loop, daemon=True, name="board sensors").start()

    def _loop(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.read()

    def read(self) -> None:
        """One reading of every sensor. What a probe reads less often than it is asked stays as it was."""
        seen = dict(self._seen)
        for probe in self._probes:
            for name, label, value in samples(probe.read()):
                if value is None:
                    seen.pop((name, label), None)
                else:
                    seen[name, label] = value
        self._seen, self._read_at = seen, self._clock()

    def show(self) -> None:
        """Put into the series what was read last, nothing if that is long ago."""
        seen = self._seen if self._clock() - self._read_at < STALE_S else {}
        for name, label in self._shown - seen.keys():
            self._gauges[name].remove(label)
        for (name, label), value in seen.items():
            self._gauges[name].labels(label).set(value)
        self._shown = set(seen)

    def close(self) -> None:
        """Read no more. What the probes hold goes with the process: one of them may be reading."""
        self._over.set()


def _probes(roots: Roots) -> Iterator[Probe]:
    for name in (name for name in suitable(roots) if name in PROBES):
        # A monitor watches servers: it does without a sensor whose driver is broken.
        with suppress(Exception):
            yield load("probes", name)(Context(roots))


def samples(readings: Mapping[str, Reading]) -> Iterator[Sample]:
    """What a probe's readings are as series; most are none."""
    for field, reading in readings.items():
        value, (part, _, figure) = reading.value, field.partition(".")
        if part == "temp":
            yield "firsttoken_board_temperature_celsius", figure.removesuffix("_c"), value
        elif part == "throttle" and effect(figure) is Effect.SLOWS:
            yield "firsttoken_board_throttled", figure, None if value is None else float(value > 0)
        elif field == "power_w":
            yield "firsttoken_board_power_watts", "module", value
        elif figure == "temp_c":
            yield "firsttoken_board_temperature_celsius", part, value
        elif figure == "power_w":
            yield "firsttoken_board_power_watts", part, value
        elif figure == "clock_reasons":
            for bit, words in HARDWARE.items():
                slowed = None if value is None else float(bool(int(value) & bit))
                yield "firsttoken_board_throttled", f"{part} {words}", slowed
