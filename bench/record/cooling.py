"""What slows a processor or a GPU down: the kernel's cooling devices by their types, NVML's reasons by their bits.

A cooling device is anything that a thermal governor may turn: a clock limit, a fan, a screen's brightness, or a flag
that only tells user space. Its state says that something is at work, not that anything computes more slowly.
"""

from __future__ import annotations

import re
from enum import StrEnum

# NVML's clock-event reasons that are no setting: bit → what slows the GPU down.
HARDWARE = {0x8: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}


class Effect(StrEnum):
    """What a cooling device at work means for a measurement."""

    SLOWS = "slows"
    HARMLESS = "harmless"
    UNKNOWN = "unknown"


# Type in small letters, where it is met, and the source. The first that matches counts.
_TYPES: tuple[tuple[str, Effect, str, str], ...] = (
    # Orin's passive trip at 99 °C binds cpufreq-cpuN, devfreq-17000000.gpu and cpu-throttle-alert; Thor names its GPU's
    # node gpu-gpc-0. L4T's device trees; `trip_point_*` and `cdev*` of the zones show the same on a board.
    (r"(cpu|gpu|soc\d*|tj)-throttle-alert", Effect.SLOWS, "Jetson Orin and Thor", "L4T device tree, thermal alerts"),
    (r"cv\d*-throttle-alert", Effect.HARMLESS, "Jetson Orin", "the vision cluster's: no part of inference on the GPU"),
    # Its trip at 70 °C binds nothing else: the case is hot to the touch, and every clock stays.
    (r"hot-surface-alert", Effect.HARMLESS, "Jetson Orin and Thor", "L4T device tree, trip at 70 °C"),
    (r"(cpu|gpu|tegra)[-_](balanced|heavy|cap|alert).*", Effect.SLOWS, "Jetson TX1 to Xavier", "L4T 32 device tree"),
    (r"(thermal-)?cpufreq-.*", Effect.SLOWS, "any processor", "Linux, drivers/thermal/cpufreq_cooling.c"),
    (r"(thermal-)?idle-.*|.*powerclamp.*", Effect.SLOWS, "any processor", "Linux, cpuidle_cooling.c, powerclamp"),
    (r"processor", Effect.SLOWS, "ACPI", "Linux, drivers/acpi/processor_thermal.c"),
    (r"(thermal-)?devfreq-.*(gpu|gpc|gv11b|ga10b|gp10b|gm20b|mali|dmc|emc).*", Effect.SLOWS, "GPU or memory",
     "Linux, devfreq_cooling.c"),
    (r"thermal-devfreq-\d+", Effect.SLOWS, "GPU or memory, older kernels", "Linux, devfreq_cooling.c"),
    # A temperature below the processor's own limit, set by firmware and often never zero: an offset slows nothing.
    (r"tcc offset", Effect.HARMLESS, "Intel", "Linux, drivers/thermal/intel/intel_tcc_cooling.c"),
    (r"lcd|.*backlight.*|.*_bl\b.*|acpi_video\d*", Effect.HARMLESS, "laptops", "Linux, drivers/acpi/acpi_video.c"),
    (r".*fan.*|emc2\d{3}.*|.*pwm.*|.*pump.*", Effect.HARMLESS, "anywhere", "Linux, drivers/hwmon, drivers/acpi/fan"),
    (r"iwlwifi.*|ath\d+k.*|mt7\d+.*|mmc\d*.*|.*charg.*|.*batt.*|.*led.*", Effect.HARMLESS, "peripherals",
     "Linux, the drivers of those names"),
)  # fmt: skip


def effect(kind: str) -> Effect:
    """What a device of that type does to processors and GPUs; UNKNOWN for a type that is not in the table."""
    name = kind.strip().lower()
    return next((what for pattern, what, _, _ in _TYPES if re.fullmatch(pattern, name)), Effect.UNKNOWN)
