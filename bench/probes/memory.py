"""Memory before, during and after a launch: will it fit, is the board about to freeze, was everything given back.

On a Tegra board, and on GB10, the GPU's allocations are in no process's size and in no control group: what is left for
everyone (MemAvailable) is the only figure that counts them. There the kind is `unified`, elsewhere `discrete`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.probes.boards import identify
from bench.probes.nvml import device_memory, guarded, handles, shares_memory, unified
from bench.probes.roots import Roots, SensorFile
from bench.record.launches import Check, MemoryReturned, MemoryState

MIB = 2**20
# A process with CUDA, an allocator and an HTTP server before its first weight; of the order of 1 GiB on Orin.
RUNTIME_MIB = 1024
# Activations, KV cache and fragments on top of the weights, as a share of them.
HEADROOM = 0.25
# A unified-memory board swaps itself to death below about this share of its memory.
FLOOR_SHARE = 0.04
FLOOR_MIB = 300


def memory(roots: Roots) -> MemoryState:
    """The memory now."""
    values = _meminfo(SensorFile(roots.in_proc("meminfo"), 8192))
    nvml, gpus = (None, []) if identify(roots) else handles(roots)
    shared = identify(roots) is not None or shares_memory(nvml, gpus)
    total, used = (None, None) if shared else _device(nvml, gpus)
    swap_total, swap_free = values.get("SwapTotal"), values.get("SwapFree")
    return MemoryState(
        "unified" if shared else "discrete",
        values.get("MemTotal"),
        values.get("MemAvailable"),
        swap_total - swap_free if swap_total is not None and swap_free is not None else None,
        total,
        used,
    )


def idle(roots: Roots, *, seconds: float = 1.0, readings: int = 5) -> MemoryState:
    """The baseline before an engine starts: the median of a few readings."""
    states = []
    for index in range(readings):
        if index:
            time.sleep(seconds / max(1, readings - 1))
        states.append(memory(roots))
    return sorted(states, key=lambda state: state.available_mib or 0.0)[len(states) // 2]


def will_it_fit(size_bytes: int | None, state: MemoryState) -> Check:
    """Whether weights of that size can be expected to fit into what is free; evidence, not a refusal."""
    discrete = state.kind == "discrete" and state.device_total_mib is not None and state.device_used_mib is not None
    if discrete:
        assert state.device_total_mib is not None and state.device_used_mib is not None  # noqa: PT018
        free, what = state.device_total_mib - state.device_used_mib, "device memory"
    elif state.available_mib is not None:
        free, what = state.available_mib, "unified memory" if state.kind == "unified" else "memory"
    else:
        return Check("memory_fits", "unknown", "free memory cannot be read")
    if size_bytes is None:
        return Check("memory_fits", "unknown", f"size of the weights is not known; {free:.0f} MiB of {what} free")
    weights = size_bytes / MIB
    wanted = weights * (1 + HEADROOM) + RUNTIME_MIB
    evidence = (
        f"weights {weights:.0f} MiB, about {wanted:.0f} MiB with cache and runtime; {free:.0f} MiB of {what} free"
    )
    if weights > free:
        remedy = "a smaller or more strongly quantized model; stop other programs (`sudo systemctl isolate multi-user`)"
        return Check("memory_fits", "violated", evidence, "weights ≤ free memory", remedy)
    if wanted > free:
        remedy = "lower max_model_len, max_num_seqs or kv_cache_memory_bytes; drop the page cache before the launch"
        return Check("memory_fits", "warning", evidence, "weights + cache + runtime ≤ free memory", remedy)
    return Check("memory_fits", "ok", evidence)


class Watchdog:
    """Calls `stop(reason)` once when a unified-memory board is about to run out: a frozen board records nothing.

    Looks every `period_s`; two readings in a row below the floor count. `tripped` holds the reason afterwards.
    """

    def __init__(
        self, roots: Roots, stop: Callable[[str], None], *, floor_mib: float | None = None, period_s: float = 0.2
    ) -> None:
        self._source = SensorFile(roots.in_proc("meminfo"), 8192)
        total = _meminfo(self._source).get("MemTotal")
        self.floor_mib = floor_mib or max(FLOOR_MIB, FLOOR_SHARE * (total or 0.0))
        self.tripped: str | None = None
        self._stop = stop
        self._period_s = period_s
        self._low = 0
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._thread.join()

    def look(self) -> bool:
        """Look once; whether that was the second low reading in a row, on which the engine was stopped."""
        available = _meminfo(self._source).get("MemAvailable")
        if available is None or available >= self.floor_mib:
            self._low = 0
            return False
        self._low += 1
        if self._low < 2:
            return False
        self.tripped = (
            f"only {available:.0f} MiB of memory were left, below the floor of {self.floor_mib:.0f} MiB: "
            "the engine was stopped before the board froze"
        )
        self._stop(self.tripped)
        return True

    def _watch(self) -> None:
        while not self._halt.wait(self._period_s) and not self.look():
            pass


@contextmanager
def guarded_memory(roots: Roots, stop: Callable[[str], None]) -> Iterator[Watchdog | None]:
    """A watchdog on a unified-memory board; None elsewhere, where the kernel can kill one process and live on."""
    if not unified(roots):
        yield None
        return
    with Watchdog(roots, stop) as watchdog:
        yield watchdog


def returned(
    before: MemoryState, roots: Roots, *, timeout_s: float = 20.0, tolerance_mib: float | None = None
) -> MemoryReturned:
    """Wait until the memory is back to what it was before the launch; says how long it took and what is missing.

    `returned` is None where memory cannot be read. The tolerance is 2 % of the total, at least 128 MiB.
    """
    start = time.monotonic()
    while True:
        state = memory(roots)
        missing = _missing(before, state)
        allowed = tolerance_mib if tolerance_mib is not None else max(128.0, 0.02 * (before.total_mib or 0.0))
        waited = time.monotonic() - start
        done = missing is None or missing <= allowed
        if done or waited >= timeout_s:
            return MemoryReturned(None if missing is None else done, missing, allowed, waited, state.kind)
        time.sleep(0.2)


def _missing(before: MemoryState, after: MemoryState) -> float | None:
    if before.available_mib is None or after.available_mib is None:
        return None
    missing = before.available_mib - after.available_mib
    if before.device_used_mib is not None and after.device_used_mib is not None:
        missing = max(missing, after.device_used_mib - before.device_used_mib)
    return missing


def _meminfo(source: SensorFile) -> dict[str, float]:
    try:
        rows = source.raw().decode(errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for row in rows:
        name, _, rest = row.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) / 1024
    return found


def _device(nvml: Any, gpus: list[Any]) -> tuple[float | None, float | None]:
    """Total and used memory of all GPUs, MiB."""
    total = [guarded(nvml, gpu, lambda n, g: device_memory(n, g).total / MIB).value for gpu in gpus]
    used = [guarded(nvml, gpu, lambda n, g: device_memory(n, g).used / MIB).value for gpu in gpus]
    return _sum(total), _sum(used)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
