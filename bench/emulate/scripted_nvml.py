"""NVML as it answers on machines that are not at hand: the calls this project makes, with recorded habits.

Used by emulated boards and by the tests. What each profile supports is from public reports: NVML starts on Orin and
supports nothing; Thor gives utilisation and clocks but no memory; Spark gives memory per process but not of the
device; a MIG slice has the whole card's power and no utilisation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND = 3, 4, 9, 12
FUNCTION_NOT_FOUND, GPU_IS_LOST, VERSION_MISMATCH = 13, 15, 18

_NAMES = {
    3: "Not Supported",
    4: "Insufficient Permissions",
    9: "Driver Not Loaded",
    12: "NVML Shared Library Not Found",
    13: "Function Not Found",
    15: "GPU is lost",
    18: "RM has detected an NVML/RM version mismatch.",
}


class NVMLError(Exception):
    """An NVML error; `value` is its code."""

    def __init__(self, value: int) -> None:
        super().__init__(_NAMES.get(value, "Unknown Error"))
        self.value = value


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of device answers: a value, or an error code under `errors`; unnamed calls are not supported."""

    device: str
    watts: float | None = None
    energy: bool = False
    instant: bool = True
    clock: int | None = None
    memory_clock: int | None = None
    reasons: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    memory: tuple[int, int] | None = None  # total, used; MiB
    processes: tuple[tuple[int, int | None], ...] | None = None  # pid, MiB
    mig: bool | None = None
    capability: tuple[int, int] = (8, 7)
    driver: str = "595.78"
    cuda: int = 13000
    start: int | None = None  # error at nvmlInit
    lost_after: int | None = None  # calls until the GPU falls off the bus
    errors: Mapping[str, int] = field(default_factory=dict)


PROFILES: dict[str, Profile] = {
    "orin": Profile("Orin (nvgpu)"),
    "thor": Profile("NVIDIA Thor", clock=1574, utilization=41, capability=(11, 0)),
    "spark": Profile(
        "NVIDIA GB10",
        watts=38.0,
        clock=2418,
        utilization=63,
        temperature=58,
        reasons=0,
        processes=((4242, 9216),),
        capability=(12, 1),
    ),
    "mig": Profile(
        "NVIDIA A100-SXM4-80GB",
        watts=212.0,
        energy=True,
        clock=1410,
        memory_clock=1593,
        reasons=0,
        temperature=41,
        memory=(20096, 8120),
        processes=((4242, 8000),),
        mig=True,
        capability=(8, 0),
    ),
    "desktop": Profile(
        "NVIDIA GeForce RTX 4090",
        watts=287.5,
        energy=True,
        clock=2520,
        memory_clock=10501,
        reasons=4,
        utilization=97,
        temperature=66,
        memory=(24564, 9830),
        processes=((4242, 9216), (4343, 310)),
        mig=None,
        capability=(8, 9),
    ),
    "old-driver": Profile(
        "NVIDIA GeForce RTX 2080 Ti",
        watts=180.0,
        energy=True,
        instant=False,
        clock=1650,
        utilization=88,
        temperature=71,
        memory=(11264, 5000),
        processes=((4242, None),),
        capability=(7, 5),
        errors={"nvmlDeviceGetCurrentClocksEventReasons": FUNCTION_NOT_FOUND},
    ),
    "lost": Profile(
        "NVIDIA GeForce RTX 4090", watts=250.0, energy=True, clock=2520, memory=(24564, 9830), lost_after=120
    ),
    "mismatch": Profile("", start=VERSION_MISMATCH),
    "no-library": Profile("", start=LIBRARY_NOT_FOUND),
    "no-driver": Profile("", start=DRIVER_NOT_LOADED),
}


class ScriptedNvml:
    """An object with the functions and constants of the module `pynvml` that probes.nvml uses."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    nvmlMemory_v2 = 0x02000028  # noqa: N815 (the library's own name)

    def __init__(self, profile: Profile, clock: Callable[[], float] = time.monotonic) -> None:
        self.profile = profile
        self._clock = clock
        self._calls = 0

    @classmethod
    def of(cls, name: str) -> ScriptedNvml:
        """The profile of that name."""
        return cls(PROFILES[name])

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        answer = _ANSWERS.get(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            lost = self.profile.lost_after
            if lost is not None and self._calls > lost and name.startswith("nvmlDevice"):
                raise NVMLError(GPU_IS_LOST)
            if name in self.profile.errors:
                raise NVMLError(self.profile.errors[name])
            value = answer(self, *args, **kwargs) if answer else None
            if value is None:
                raise NVMLError(NOT_SUPPORTED)
            return value

        return call

    def start(self) -> bool:
        """What nvmlInit does."""
        if self.profile.start is not None:
            raise NVMLError(self.profile.start)
        return True

    def millijoules(self) -> int | None:
        """The energy counter: constant power since the clock's zero."""
        profile = self.profile
        return int(profile.watts * self._clock() * 1000) if profile.energy and profile.watts else None

    def power_field(self, wanted: list[Any]) -> list[Any]:
        """What nvmlDeviceGetFieldValues gives for the instantaneous power."""
        known = self.profile.watts is not None and self.profile.instant
        value = SimpleNamespace(uiVal=int((self.profile.watts or 0.0) * 1000))
        return [SimpleNamespace(nvmlReturn=0 if known else NOT_SUPPORTED, value=value) for _ in wanted]


def _milliwatts(nvml: ScriptedNvml, gpu: int) -> int | None:
    return int(nvml.profile.watts * 1000) if nvml.profile.watts is not None else None


def _memory(nvml: ScriptedNvml, gpu: int, version: int | None = None) -> Any:
    if nvml.profile.memory is None:
        return None
    total, used = nvml.profile.memory
    return SimpleNamespace(total=total << 20, used=used << 20, reserved=400 << 20, free=(total - used) << 20)


def _processes(nvml: ScriptedNvml, gpu: int) -> Any:
    if nvml.profile.processes is None:
        return None
    return [
        SimpleNamespace(pid=pid, usedGpuMemory=mib << 20 if mib is not None else None)
        for pid, mib in nvml.profile.processes
    ]


def _utilization(nvml: ScriptedNvml, gpu: int) -> Any:
    return SimpleNamespace(gpu=nvml.profile.utilization) if nvml.profile.utilization is not None else None


_ANSWERS: dict[str, Callable[..., Any]] = {
    "nvmlInit": lambda nvml: nvml.start(),
    "nvmlShutdown": lambda nvml: True,
    "nvmlDeviceGetCount": lambda nvml: 1,
    "nvmlDeviceGetHandleByIndex": lambda nvml, index: f"gpu{index}",
    "nvmlDeviceGetName": lambda nvml, gpu: nvml.profile.device,
    "nvmlSystemGetDriverVersion": lambda nvml: nvml.profile.driver,
    "nvmlSystemGetCudaDriverVersion_v2": lambda nvml: nvml.profile.cuda,
    "nvmlDeviceGetCudaComputeCapability": lambda nvml, gpu: nvml.profile.capability,
    "nvmlDeviceGetTotalEnergyConsumption": lambda nvml, gpu: nvml.millijoules(),
    "nvmlDeviceGetPowerUsage": _milliwatts,
    "nvmlDeviceGetEnforcedPowerLimit": lambda nvml, gpu: 450_000 if nvml.profile.watts is not None else None,
    "nvmlDeviceGetFieldValues": lambda nvml, gpu, wanted: nvml.power_field(wanted),
    "nvmlDeviceGetClockInfo": lambda nvml, gpu, kind: nvml.profile.clock if kind == 1 else nvml.profile.memory_clock,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda nvml, gpu: nvml.profile.reasons,
    "nvmlDeviceGetUtilizationRates": _utilization,
    "nvmlDeviceGetTemperatureV": lambda nvml, gpu, sensor: nvml.profile.temperature,
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetComputeRunningProcesses": _processes,
    "nvmlDeviceGetMigMode": lambda nvml, gpu: (int(nvml.profile.mig), 0) if nvml.profile.mig is not None else None,
    "nvmlDeviceGetPersistenceMode": lambda nvml, gpu: 1 if nvml.profile.watts is not None else None,
}
