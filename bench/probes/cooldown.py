"""The start gate: a launch begins when the machine is near its idle temperature and no longer changing."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.probes.nvml import die_temperature, guarded, handles
from bench.probes.roots import Roots
from bench.probes.thermal import zones
from bench.record.launches import Check

SLOPE_C_PER_S = 0.1
WINDOW_S = 10.0
PERIOD_S = 1.0


@dataclass(frozen=True, slots=True)
class Timekeeper:
    """What time it is, s, and how to let some pass."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


REAL = Timekeeper()


def temperatures(roots: Roots) -> dict[str, float]:
    """Every temperature that can be read now, °C by zone; GPUs as gpu0, gpu1, …"""
    found: dict[str, float] = {}
    for zone, source in zones(roots).items():
        degrees = source.read(1e-3).value
        if degrees is not None and degrees > -100.0:
            found[zone] = degrees
    return found | _gpus(roots)


def _gpus(roots: Roots) -> dict[str, float]:
    nvml, gpus = handles(roots)
    readings = {f"gpu{index}": guarded(nvml, gpu, die_temperature).value for index, gpu in enumerate(gpus)}
    return {name: degrees for name, degrees in readings.items() if degrees is not None}


def idle_reference(
    roots: Roots,
    *,
    seconds: float = 30.0,
    read: Callable[[Roots], Mapping[str, float]] = temperatures,
    keeper: Timekeeper = REAL,
) -> dict[str, float]:
    """The idle temperature of each zone: the median over `seconds`, taken once, before the first launch of a run."""
    seen: dict[str, list[float]] = {}
    for index in range(max(1, round(seconds / PERIOD_S))):
        if index:
            keeper.sleep(PERIOD_S)
        for zone, degrees in read(roots).items():
            seen.setdefault(zone, []).append(degrees)
    return {zone: statistics.median(values) for zone, values in seen.items()}


@dataclass(frozen=True, slots=True)
class Cooled:
    """How the wait ended. `slope_c_per_s` is the steepest zone's; None while there were too few readings."""

    reference: dict[str, float]
    start: dict[str, float]
    above_idle_c: float
    worst: str | None
    worst_above_c: float | None
    slope_c_per_s: float | None
    waited_s: float
    timed_out: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data for launch.json, under state_before."""
        return asdict(self)

    def check(self) -> Check:
        """The same as a named check."""
        if self.worst is None or self.worst_above_c is None:
            return Check("start_temperature", "unknown", "no temperature can be read on this machine")
        evidence = (
            f"{self.worst} {self.worst_above_c:+.1f} °C from idle after {self.waited_s:.0f} s"
            + (f", changing by {self.slope_c_per_s:+.2f} °C/s" if self.slope_c_per_s is not None else "")
            + (", timed out" if self.timed_out else "")
        )
        limit = f"≤ idle + {self.above_idle_c:g} °C and below {SLOPE_C_PER_S} °C/s"
        remedy = "a longer design.cool_down.timeout_s, a fan at full speed, or a cooler place"
        return Check(
            "start_temperature",
            "warning" if self.timed_out else "ok",
            evidence,
            limit,
            remedy if self.timed_out else None,
        )


def cool_down(
    roots: Roots,
    reference: Mapping[str, float],
    *,
    above_idle_c: float = 5.0,
    timeout_s: float = 300.0,
    read: Callable[[Roots], Mapping[str, float]] = temperatures,
    keeper: Timekeeper = REAL,
) -> Cooled:
    """Wait until every zone is within `above_idle_c` of its reference and has stopped changing, or the time is up.

    A zone that is not in the reference (a GPU that was powered off then) is left out. Without any, returns at once.
    """
    start, history = keeper.clock(), deque[tuple[float, Mapping[str, float]]]()
    while True:
        now, temps = keeper.clock(), dict(read(roots))
        history.append((now, temps))
        while history and now - history[0][0] > WINDOW_S:
            history.popleft()
        above = {zone: degrees - reference[zone] for zone, degrees in temps.items() if zone in reference}
        worst = max(above, key=above.__getitem__, default=None)
        slope = _slope(history, above)
        near = worst is None or above[worst] <= above_idle_c
        # Far below the limit a slope does not matter: nothing is left to cool down.
        settled = (
            worst is None or above[worst] <= above_idle_c / 2 or (slope is not None and abs(slope) < SLOPE_C_PER_S)
        )
        late = now - start >= timeout_s
        if (near and settled) or late:
            return Cooled(
                reference=dict(reference),
                start=temps,
                above_idle_c=above_idle_c,
                worst=worst,
                worst_above_c=above[worst] if worst is not None else None,
                slope_c_per_s=slope,
                waited_s=now - start,
                timed_out=not (near and settled),
            )
        keeper.sleep(PERIOD_S)


def _slope(history: deque[tuple[float, Mapping[str, float]]], zones_: Mapping[str, float]) -> float | None:
    """The steepest change over the window, °C/s."""
    (first, before), (last, after) = history[0], history[-1]
    if last - first < 3 * PERIOD_S / 2:
        return None
    slopes = [(after[zone] - before[zone]) / (last - first) for zone in zones_ if zone in before and zone in after]
    return max(slopes, key=abs, default=None)
