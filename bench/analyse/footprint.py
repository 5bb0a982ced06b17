"""Memory of a launch by kind: idle, peak, steady, given back.

discrete: memory of the engine's processes on the device, plus their proportional set size on the host.
unified (Jetson): what everyone lost, MemAvailable before the spawn less MemAvailable now; GPU allocations are in no
process's size there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse.energy import steady_window
from bench.analyse.series import EMPTY, Samples, Series
from bench.record.launches import LaunchRecord

# Before an engine writes its first byte, what it takes is noise of the machine.
BASELINE_READINGS = 3


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """MiB; None with a reason in `reason`. `scope` says what is counted."""

    kind: str
    scope: str
    idle: float | None
    peak: float | None
    steady: float | None
    swap_grown: float | None
    returned: bool | None
    reason: str | None = None


def used(record: LaunchRecord, samples: Samples) -> tuple[str, str, Series]:
    """Kind, scope and the engine's memory over time (MiB)."""
    before = record.memory.before
    unified = (before is not None and before.kind == "unified") or bool(len(samples.of("host", "nvmap_mib")))
    spawn = record.stamps.get("spawn")
    if unified:
        available = samples.of("host", "mem_available_mib")
        baseline = before.available_mib if before else None
        if baseline is None:
            early = available.within(None, spawn)
            baseline = float(np.median(early.value)) if len(early) >= BASELINE_READINGS else None
        if baseline is None or not len(available):
            return "unified", "MemAvailable", Series(EMPTY.t_ns, EMPTY.value, available.nulls or {"not_found": 1})
        since, own = available.within(spawn, None), samples.of("tree_memory", "pss_mib")
        lost = np.maximum(0.0, baseline - since.value)
        if len(own) and len(since):
            # Others may give memory back meanwhile; what the engine's own processes hold is certain.
            lost = np.maximum(lost, np.interp(since.t_ns, own.t_ns, own.value, left=0.0, right=0.0))
        return "unified", "MemAvailable before the spawn − now, at least the processes' PSS", Series(since.t_ns, lost)
    host = _with_served(samples.of("tree_memory", "pss_mib"), record)
    devices = [
        samples.any(("nvml", name), ("nvml", name.replace("engine_memory_mib", "memory_used_mib")))
        for name in samples.matching("nvml", end=".engine_memory_mib")
    ]
    devices = [device for device in devices if len(device)]
    # Pages that a fork shares with its parent count for each in part: what a service needs is the sum of both.
    apart = ", what its warm parent holds apart" if record.start.forked else ""
    if not devices:
        return "discrete", f"PSS of the engine's processes{apart}", host
    if not len(host):
        return "discrete", "memory on the device", samples.total(devices)
    # The device is read more often than the processes: its times, so that no peak of it is lost.
    return "discrete", f"memory on the device + PSS of the processes{apart}", samples.total([*devices, host])


def _with_served(host: Series, record: LaunchRecord) -> Series:
    """The sampled sizes and the one that was read when the last request had been answered."""
    served = record.memory.served
    if served is None or served.pss_mib is None:
        return host
    at = int(np.searchsorted(host.t_ns, served.t_ns))
    return Series(np.insert(host.t_ns, at, served.t_ns), np.insert(host.value, at, served.pss_mib), host.nulls)


def of_memory(record: LaunchRecord, requests: pa.Table, samples: Samples) -> MemoryUse:
    """What the launch held."""
    kind, scope, series = used(record, samples)
    swap = samples.of("host", "swap_free_mib").within(record.stamps.get("spawn"), None)
    freed = swap.grown()
    swap_grown = -freed if freed is not None else None
    returned = record.memory.after.returned if record.memory.after else None
    if not len(series):
        return MemoryUse(kind, scope, None, None, None, swap_grown, returned, series.why or "not_found")
    first = (
        pc.min(requests.filter(pc.not_equal(requests["stage"], "warmup"))["sent_ns"]).as_py() if len(requests) else None
    )
    idle = series.within(record.stamps.get("ready"), first) if first is not None else EMPTY
    start, end = steady_window(requests)
    steady = series.within(start, end) if start is not None else EMPTY
    # The quality questions ask for whole distributions: what they take is no part of serving.
    asked = (
        pc.min(requests.filter(pc.equal(requests["stage"], "quality"))["sent_ns"]).as_py() if len(requests) else None
    )
    held = series.within(None, asked or record.stamps.get("stop") or record.stamps.get("exit"))
    # A maximum over readings that all lie before the first request says nothing about serving it.
    peak = float(held.value.max()) if len(held.within(first, None)) else None
    return MemoryUse(
        kind=kind,
        scope=scope,
        idle=float(idle.value[-1]) if len(idle) else _at(series, first),
        peak=peak,
        steady=float(np.median(steady.value)) if len(steady) else None,
        swap_grown=swap_grown,
        returned=returned,
        reason="partial" if peak is None else None,
    )


def _at(series: Series, stamp: int | None) -> float | None:
    """The last reading before a stamp."""
    before = series.within(None, stamp) if stamp is not None else EMPTY
    return float(before.value[-1]) if len(before) else None


def of_launch(record: LaunchRecord, requests: pa.Table, samples: Samples) -> Mapping[str, float | None]:
    """The metrics memory.idle, memory.peak and memory.steady, MiB."""
    use = of_memory(record, requests, samples)
    return {"memory.idle": use.idle, "memory.peak": use.peak, "memory.steady": use.steady}


def describe(record: LaunchRecord, requests: pa.Table, samples: Samples) -> dict[str, Any]:
    """The same as plain data, for reports."""
    use = of_memory(record, requests, samples)
    return {name: getattr(use, name) for name in MemoryUse.__slots__}
