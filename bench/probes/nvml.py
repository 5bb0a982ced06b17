"""NVIDIA GPUs by NVML: energy counter, power, clocks and their limits, heat, memory, who else is there.

NVML starts on boards where it then supports almost nothing (Orin), answers in part on others (Thor, Spark, MIG), and
can lose a GPU in mid-run: every single call is guarded, and what it cannot say is a null with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bench.probes.boards import identify
from bench.probes.context import Context
from bench.probes.probe import Reading
from bench.probes.roots import Roots
from bench.probes.tree import Task, Tree
from bench.record.launches import FieldInfo

# NVML's error codes that have a meaning of their own here; any other is `stale`.
_REASONS = {
    2: "unsupported",
    3: "unsupported",
    4: "no_permission",
    6: "not_found",
    13: "unsupported",
    25: "unsupported",
}
_POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT
_MIB = 2**20
# Superchips whose GPU lives in the processor's LPDDR: GB10 (DGX Spark and its siblings by other makers), Thor, Orin.
# Grace Hopper and Grace Blackwell servers are coherent, yet have memory of their own on the GPU.
_INTEGRATED = re.compile(r"\b(GB10|Thor|Orin)\b")

Call = Callable[[Any, Any], float | None]


def library(roots: Roots) -> Any:
    """NVML, started: the real one or a scripted profile. Raises what it raises when it cannot start."""
    if roots.nvml == "real":
        import pynvml

        nvml: Any = pynvml
    else:
        from bench.emulate.scripted_nvml import ScriptedNvml

        nvml = ScriptedNvml.of(roots.nvml)
    nvml.nvmlInit()
    return nvml


def handles(roots: Roots) -> tuple[Any, list[Any]]:
    """The library and its GPUs; no GPUs where it is absent, without a driver, or broken."""
    # Loading the library takes time that a machine without the driver need not spend.
    if roots.nvml == "none" or (roots.nvml == "real" and not roots.in_proc("driver", "nvidia").exists()):
        return None, []
    try:
        nvml = library(roots)
        return nvml, [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except Exception:
        return None, []


def why(error: Exception) -> str:
    """Why a call gave nothing."""
    code = getattr(error, "value", None)
    return _REASONS.get(code, "stale") if isinstance(code, int) else "unsupported"


def guarded(nvml: Any, handle: Any, call: Call) -> Reading:
    """One call's answer, or the reason why there is none."""
    try:
        value = call(nvml, handle)
    except (nvml.NVMLError, AttributeError) as error:
        return Reading.null(why(error))
    return Reading(float(value)) if value is not None else Reading.null("unsupported")


def _instant_power(nvml: Any, handle: Any) -> float | None:
    value = nvml.nvmlDeviceGetFieldValues(handle, [(_POWER_INSTANT, 0)])[0]
    if value.nvmlReturn != 0:
        raise nvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal) / 1000


def die_temperature(nvml: Any, handle: Any) -> float | None:
    """Temperature of the die, °C."""
    # The versioned call is the present one; older libraries have only the other.
    call = getattr(nvml, "nvmlDeviceGetTemperatureV", None) or nvml.nvmlDeviceGetTemperature
    return float(call(handle, nvml.NVML_TEMPERATURE_GPU))


def _reasons(nvml: Any, handle: Any) -> float | None:
    call = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    return float((call or nvml.nvmlDeviceGetCurrentClocksThrottleReasons)(handle))


def device_memory(nvml: Any, handle: Any) -> Any:
    """Total and used memory, bytes."""
    # Version 2 keeps the driver's own reserve apart; version 1 counts it as used.
    return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)


_FAST: dict[str, tuple[str, str, Call]] = {
    "energy_j": (
        "J",
        "cumulative: energy since the driver was loaded",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
    ),
    "power_w": ("W", "instantaneous power", _instant_power),
    "power_average_w": (
        "W",
        "power averaged by the driver, over 1 s on most generations: not for short windows",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    "clock_mhz": ("MHz", "current SM clock", lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    "memory_clock_mhz": (
        "MHz",
        "current memory clock",
        lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    ),
    "clock_reasons": ("bits", "why the clock is not higher, as NVML's bit mask", _reasons),
    "utilization": (
        "%",
        "share of time in which any kernel ran, as the driver samples it",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    ),
    "memory_used_mib": (
        "MiB",
        "memory in use, the driver's reserve apart",
        lambda n, g: device_memory(n, g).used / _MIB,
    ),
}


_SLOW = {
    "temp_c": ("°C", "temperature of the die", "gpu"),
    "engine_memory_mib": ("MiB", "memory of the engine's processes", "engine"),
    "foreign_processes": ("1", "processes that are not the engine's", "gpu"),
    "foreign_memory_mib": ("MiB", "memory of those processes", "gpu"),
}


class Nvml:
    """Every GPU's energy, power, clocks and memory; heat and processes at a tenth of the rate."""

    name = "nvml"
    period_s = 0.1
    slow_every = 10

    def __init__(self, context: Context) -> None:
        self._watched = context.watched
        self._proc = context.roots.tasks
        self._nvml = library(context.roots)
        wanted = context.options.get("devices")
        count = range(self._nvml.nvmlDeviceGetCount())
        self._gpus = {i: self._nvml.nvmlDeviceGetHandleByIndex(i) for i in count if wanted is None or i in wanted}
        self._tick = 0
        self._tree = Tree(self._proc)
        fields: list[FieldInfo] = []
        for index, gpu in self._gpus.items():
            scope = power_scope(self._nvml, gpu)
            for field, (unit, doc, _) in _FAST.items():
                fields.append(FieldInfo(self.name, f"gpu{index}.{field}", unit, doc, scope))
            for field, (unit, doc, owner) in _SLOW.items():
                fields.append(FieldInfo(self.name, f"gpu{index}.{field}", unit, doc, owner))
        self.fields = tuple(fields)

    def read(self) -> Mapping[str, Reading]:
        """Fast fields always, the others every tenth time."""
        readings: dict[str, Reading] = {}
        slow = self._tick % self.slow_every == 0
        self._tick += 1
        if slow:
            engine = (self._watched.engine,) if self._watched.engine else ()
            if self._tree.roots != engine:
                self._tree = Tree(self._proc, engine)
            self._tree.scan()
        for index, gpu in self._gpus.items():
            for field, (_, _, call) in _FAST.items():
                readings[f"gpu{index}.{field}"] = guarded(self._nvml, gpu, call)
            if slow:
                readings[f"gpu{index}.temp_c"] = guarded(self._nvml, gpu, die_temperature)
                readings |= {f"gpu{index}.{field}": reading for field, reading in self._processes(gpu).items()}
        return readings

    def _processes(self, gpu: Any) -> dict[str, Reading]:
        names = ("engine_memory_mib", "foreign_processes", "foreign_memory_mib")
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
        except (self._nvml.NVMLError, AttributeError) as error:
            return {name: Reading.null(why(error)) for name in names}
        ours = [process for process in running if process.pid in self._tree.members]
        # Process ids are the host's. One that does not exist here belongs to another container, or is our own engine
        # seen from outside: it can be charged to nobody.
        others = [process for process in running if process.pid not in self._tree.members]
        foreign = [process for process in others if Task.read(self._proc, process.pid) is not None]
        unplaced = len(others) > len(foreign)
        engine = _sum_memory(ours)
        if unplaced and not ours:
            engine = Reading.null("partial")
        return {
            "engine_memory_mib": engine,
            "foreign_processes": Reading(float(len(foreign))),
            "foreign_memory_mib": _sum_memory(foreign),
        }

    def close(self) -> None:
        """Give the library back."""
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return

    def hint(self, field: str, reason: str) -> str | None:
        """The command that would make a null a value."""
        if reason == "no_permission":
            return "run as root, or lift the driver's restriction: NVreg_RestrictProfilingToAdminUsers=0"
        if reason == "partial":
            return "in a container: run with --pid=host so that process ids agree"
        return None


def _sum_memory(processes: list[Any]) -> Reading:
    used = [process.usedGpuMemory for process in processes]
    return Reading.null("unsupported") if None in used else Reading(sum(used) / _MIB)


def power_scope(nvml: Any, gpu: Any) -> str:
    """What the power figure covers: a MIG slice's is that of the whole card."""
    mig = guarded(nvml, gpu, lambda n, g: n.nvmlDeviceGetMigMode(g)[0])
    return "parent_gpu" if mig.value else "gpu board"


def unified(roots: Roots) -> bool:
    """Whether processor and GPU share one memory: Tegra boards by their device tree, others by their GPU's name."""
    return identify(roots) is not None or shares_memory(*handles(roots))


def shares_memory(nvml: Any, gpus: list[Any]) -> bool:
    """Whether a GPU has no memory of its own. NVML answers `not supported` for its memory, as it does elsewhere too."""
    names = [_words(nvml, partial(nvml.nvmlDeviceGetName, gpu)) or "" for gpu in gpus]
    return any(_INTEGRATED.search(name) for name in names)


def describe(roots: Roots) -> list[dict[str, Any]]:
    """The GPUs for a fingerprint, without serial numbers or ids; empty where NVML does not start."""
    nvml, gpus = handles(roots)
    return [_describe(nvml, gpu) for gpu in gpus]


def _describe(nvml: Any, gpu: Any) -> dict[str, Any]:
    return {
        "name": _words(nvml, partial(nvml.nvmlDeviceGetName, gpu)),
        "memory_mib": guarded(nvml, gpu, lambda n, g: device_memory(n, g).total // _MIB).value,
        "power_limit_w": guarded(nvml, gpu, lambda n, g: n.nvmlDeviceGetEnforcedPowerLimit(g) / 1000).value,
        "persistence": guarded(nvml, gpu, lambda n, g: n.nvmlDeviceGetPersistenceMode(g)).value,
        "compute_capability": _capability(nvml, gpu),
        "power_scope": power_scope(nvml, gpu),
        "driver": _words(nvml, nvml.nvmlSystemGetDriverVersion),
        "cuda": _cuda(nvml),
    }


def _words(nvml: Any, call: Callable[[], Any]) -> str | None:
    try:
        said = call()
    except (nvml.NVMLError, AttributeError):
        return None
    return said.decode() if isinstance(said, bytes) else str(said)


def _capability(nvml: Any, gpu: Any) -> str | None:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(gpu)
    except (nvml.NVMLError, AttributeError):
        return None
    return f"{major}.{minor}"


def _cuda(nvml: Any) -> str | None:
    try:
        version = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    except (nvml.NVMLError, AttributeError):
        return None
    return f"{version // 1000}.{version % 1000 // 10}"
