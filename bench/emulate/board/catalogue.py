"""Emulated boards as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Channel:
    """One rail: its monitor chip, its volts, and which share of the module's idle and extra power it carries."""

    chip: str
    label: str
    volts: float
    idle: float
    busy: float
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Cooling:
    """A cooling device: its type as the kernel names it, its state at rest, and its highest."""

    kind: str
    state: int = 0
    highest: int = 3


# What machines have beside the devices that slow them: at work all the time, and no harm to any figure. Not all of them
# are met on a Jetson; a measurement must bear them anywhere.
HARMLESS = (
    Cooling("hot-surface-alert", 0, 2),
    Cooling("LCD", 40, 100),
    Cooling("TCC Offset", 7, 63),
    Cooling("Fan", 1, 1),
)


@dataclass(frozen=True, slots=True)
class EmulatedBoard:
    """A board as it shows itself under one JetPack.

    `idle_w` and `full_w` are the module's power; `heat_c_per_w` and `settle_s` its thermal resistance and its pace.
    """

    key: str
    title: str
    compatible: str
    jetpack: str
    l4t: str
    kernel: str
    memory_mib: int
    cores: int
    cpu_khz: tuple[int, int]
    gpu_node: str
    gpu_device: str
    gpu_hz: tuple[int, int]
    emc_hz: int
    zones: tuple[str, ...]
    zones_off: tuple[str, ...]
    rails: tuple[Channel, ...]
    modes: tuple[str, ...]
    idle_w: float
    full_w: float
    iio: bool = False
    nvml: str = "none"
    swap_mib: int = 0
    trip_c: float = 99.0
    # Where the case is called hot to the touch: a warning, and no clock is cut.
    surface_c: float = 70.0
    heat_c_per_w: float = 1.6
    settle_s: float = 40.0
    cuda: str = "12.6.68"
    gpcs: int = 1
    style: str = "jp6"

    @property
    def cooling(self) -> tuple[Cooling, ...]:
        """The fan, what slows processors and GPU, and what slows nothing."""
        alerts = (Cooling(f"{part}-throttle-alert") for part in ("cpu", "gpu", "soc0"))
        return (Cooling("pwm-fan"), *alerts, Cooling(f"devfreq-{self.gpu_node}"), Cooling("cpufreq-cpu0"), *HARMLESS)


_ORIN_ZONES = ("cpu-thermal", "gpu-thermal", "soc0-thermal", "soc1-thermal", "soc2-thermal", "tj-thermal")
_CV = ("cv0-thermal", "cv1-thermal", "cv2-thermal")
_NX_RAILS = (
    Channel("ina3221@40", "VDD_IN", 5.0, 1.0, 1.0),
    Channel("ina3221@40", "VDD_CPU_GPU_CV", 5.0, 0.12, 0.62, inside=True),
    Channel("ina3221@40", "VDD_SOC", 5.0, 0.30, 0.20, inside=True),
)
_AGX_RAILS = (
    Channel("ina3221@40", "VDD_GPU_SOC", 19.0, 0.42, 0.45),
    Channel("ina3221@40", "VDD_CPU_CV", 19.0, 0.14, 0.38),
    Channel("ina3221@40", "VIN_SYS_5V0", 5.0, 0.44, 0.17),
    Channel("ina3221@41", "NC", 0.0, 0.0, 0.0, inside=True),
    Channel("ina3221@41", "VDDQ_VDD2_1V8AO", 5.0, 0.11, 0.06, inside=True),
)
_ORIN_NX = EmulatedBoard(
    key="orin-nx",
    title="NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super",
    compatible="nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0nvidia,tegra234",
    jetpack="6.2",
    l4t="36.4.3",
    kernel="5.15.148-tegra",
    memory_mib=15656,
    cores=8,
    cpu_khz=(729_600, 1_984_000),
    gpu_node="17000000.gpu",
    gpu_device="platform/bus@0/17000000.gpu",
    gpu_hz=(306_000_000, 1_173_000_000),
    emc_hz=3_199_000_000,
    zones=_ORIN_ZONES,
    zones_off=_CV,
    rails=_NX_RAILS,
    modes=("MAXN_SUPER", "10W", "15W", "25W", "40W"),
    idle_w=5.2,
    full_w=24.0,
    nvml="orin",
    swap_mib=7828,
)

CATALOGUE: dict[str, EmulatedBoard] = {
    "orin-nx": _ORIN_NX,
    "orin-nx@5": replace(
        _ORIN_NX,
        title="NVIDIA Orin NX Developer Kit",
        compatible="nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234",
        jetpack="5.1.2",
        l4t="35.4.1",
        kernel="5.10.120-tegra",
        gpu_node="17000000.ga10b",
        gpu_device="17000000.ga10b",
        gpu_hz=(306_000_000, 918_000_000),
        modes=("MAXN", "10W", "15W", "25W"),
        nvml="none",
        cuda="11.4.19",
        style="jp5",
    ),
    "orin-nx@7": replace(
        _ORIN_NX, jetpack="7.2", l4t="39.2.0", kernel="6.8.12-1013-tegra", cuda="13.2.0", style="jp7", swap_mib=0
    ),
    "orin-nano": replace(
        _ORIN_NX,
        key="orin-nano",
        title="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        compatible="nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234",
        memory_mib=7620,
        cores=6,
        cpu_khz=(729_600, 1_728_000),
        gpu_hz=(306_000_000, 1_020_000_000),
        modes=("15W", "25W", "MAXN_SUPER", "7W"),
        idle_w=4.5,
        full_w=21.0,
        swap_mib=3810,
    ),
    "agx-orin": replace(
        _ORIN_NX,
        key="agx-orin",
        title="NVIDIA Jetson AGX Orin Developer Kit",
        compatible="nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234",
        memory_mib=62840,
        cores=12,
        cpu_khz=(729_600, 2_201_600),
        gpu_hz=(306_000_000, 1_300_500_000),
        rails=_AGX_RAILS,
        modes=("MAXN", "MODE_15W", "MODE_30W", "MODE_50W"),
        idle_w=9.5,
        full_w=52.0,
        heat_c_per_w=0.8,
        gpcs=2,
        swap_mib=31420,
    ),
    "thor": EmulatedBoard(
        key="thor",
        title="NVIDIA Jetson AGX Thor Developer Kit",
        compatible="nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264",
        jetpack="7.0",
        l4t="38.2.0",
        kernel="6.8.12-tegra",
        memory_mib=125749,
        cores=14,
        cpu_khz=(972_000, 2_601_000),
        gpu_node="gpu-gpc-0",
        gpu_device="platform/gpu-gpc-0",
        gpu_hz=(315_000_000, 1_575_000_000),
        emc_hz=4_266_000_000,
        zones=("cpu-thermal", "gpu-thermal", "soc012-thermal", "soc345-thermal", "tj-thermal"),
        zones_off=(),
        rails=(
            Channel("ina3221@40", "VDD_GPU", 12.0, 0.10, 0.42, inside=True),
            Channel("ina3221@40", "VDD_CPU_SOC_MSS", 12.0, 0.28, 0.24, inside=True),
            Channel("ina3221@40", "VIN_SYS_5V0", 5.0, 0.27, 0.10, inside=True),
            Channel("ina238@44", "VIN", 12.0, 1.0, 1.0),
        ),
        modes=("MAXN", "120W"),
        idle_w=23.0,
        full_w=118.0,
        nvml="thor",
        heat_c_per_w=0.35,
        cuda="13.0.48",
        gpcs=3,
        style="thor",
    ),
    "xavier-nx@4": replace(
        _ORIN_NX,
        key="xavier-nx",
        title="NVIDIA Jetson Xavier NX Developer Kit",
        compatible="nvidia,p3449-0000+p3668-0000\0nvidia,p3668-0000\0nvidia,tegra194",
        jetpack="4.6.1",
        l4t="32.7.1",
        kernel="4.9.253-tegra",
        memory_mib=7772,
        cores=6,
        cpu_khz=(115_200, 1_907_200),
        gpu_node="17000000.gv11b",
        gpu_device="17000000.gv11b",
        gpu_hz=(114_750_000, 1_109_250_000),
        emc_hz=1_866_000_000,
        zones=("CPU-therm", "GPU-therm", "AUX-therm", "AO-therm"),
        zones_off=("PMIC-Die",),
        modes=("MODE_15W_2CORE", "MODE_15W_4CORE", "MODE_15W_6CORE", "MODE_10W_2CORE"),
        iio=True,
        idle_w=4.0,
        full_w=14.0,
        nvml="none",
        cuda="10.2.300",
        swap_mib=3886,
        style="jp4",
    ),
}


def find(name: str) -> EmulatedBoard:
    """The board of that name (`orin-nx`, or with its JetPack `orin-nx@5`); UnknownName says which there are."""
    if name not in CATALOGUE:
        raise UnknownName("emulated board", name, CATALOGUE)
    return CATALOGUE[name]
