"""Readings for a person: the few that matter, counters turned into rates."""

from __future__ import annotations

import time
from typing import Any

from bench.plugins import load
from bench.probes.context import Context, Watched
from bench.probes.probe import Probe
from bench.probes.roots import Roots
from bench.probes.sampler import suitable

# Without a process to watch, these would be nothing but nulls.
_OF_A_PROCESS = ("tree", "tree_memory", "engine")


class Watching:
    """Every probe that fits the machine, read in turn."""

    def __init__(self, roots: Roots, pid: int | None = None) -> None:
        context = Context(roots, Watched(engine=pid))
        names = [name for name in suitable(roots) if pid or name not in _OF_A_PROCESS]
        self._probes: list[Probe] = [load("probes", name)(context) for name in names]
        self._before: dict[str, tuple[float, float]] = {}
        self._shown: dict[str, dict[str, Any]] = {}

    def read(self) -> dict[str, dict[str, Any]]:
        """probe.field → value, unit, reason. A cumulative field is given as its rate once two readings are there.

        What a probe reads less often than it is asked is shown as it was.
        """
        for probe in self._probes:
            readings, now = probe.read(), time.monotonic()
            for info in probe.fields:
                reading = readings.get(info.field)
                if reading is None:
                    continue
                name, value, unit = f"{probe.name}.{info.field}", reading.value, info.unit
                if info.doc.startswith("cumulative") and value is not None:
                    value, unit = self._rate(name, now, value), "" if unit == "s" else f"{unit}/s"
                    if value is None:
                        continue
                self._shown[name] = {"value": value, "unit": unit, "reason": reading.reason}
        return dict(self._shown)

    def _rate(self, name: str, now: float, value: float) -> float | None:
        before = self._before.get(name)
        self._before[name] = (now, value)
        return (value - before[1]) / (now - before[0]) if before and now > before[0] else None

    def close(self) -> None:
        """Let go of what the probes hold."""
        for probe in self._probes:
            close = getattr(probe, "close", None)
            if close is not None:
                close()
