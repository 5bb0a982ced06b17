"""Heat and what the machine does against it: zones, throttling, over-current counters, fans, processor clocks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.probes.context import Context
from bench.probes.probe import Reading
from bench.probes.roots import Roots, SensorFile, listing, number, text
from bench.record.cooling import Effect, effect
from bench.record.launches import FieldInfo

# hwmon chips whose temperature is the processor's, for machines without thermal zones.
_PROCESSORS = {"coretemp": "cpu", "k10temp": "cpu", "zenpower": "cpu", "cpu_thermal": "cpu"}


_MEANING = {
    Effect.SLOWS: "cooling state; above 0 a processor or the GPU is slowed down",
    Effect.UNKNOWN: "cooling state of a device whose effect is not known",
}


def zones(roots: Roots) -> dict[str, SensorFile]:
    """Thermal zones by type, without the `-thermal`; a processor's own sensor where there are none."""
    found: dict[str, SensorFile] = {}
    for zone in listing(roots.in_sys("class/thermal"), "thermal_zone*"):
        name = re.sub(r"[-_]therm(al)?$", "", (text(zone / "type") or "").lower())
        if name:
            found.setdefault(name, SensorFile(zone / "temp"))
    for chip in listing(roots.in_sys("class/hwmon"), "hwmon*"):
        if (name := _PROCESSORS.get(text(chip / "name") or "", "")) and (chip / "temp1_input").exists():
            found.setdefault(name, SensorFile(chip / "temp1_input"))
    return found


def over_current(roots: Roots) -> dict[str, SensorFile]:
    """Counters of the Tegra's over-current events: oc1 under-voltage, oc2 average, oc3 instantaneous."""
    found: dict[str, SensorFile] = {}
    for chip in listing(roots.in_sys("class/hwmon"), "hwmon*"):
        if text(chip / "name") == "soctherm_oc":
            for counter in listing(chip, "oc*_event_cnt"):
                found.setdefault(counter.name.removesuffix("_event_cnt"), SensorFile(counter))
    return found


class Thermal:
    """Temperatures, throttle states, over-current counters, fans, processor clock."""

    name = "thermal"
    period_s = 1.0

    def __init__(self, context: Context) -> None:
        roots = context.roots
        self._single: dict[str, tuple[SensorFile, float]] = {}
        fields: list[FieldInfo] = []
        for zone, source in zones(roots).items():
            self._single[f"temp.{zone}_c"] = (source, 1e-3)
            fields.append(FieldInfo(self.name, f"temp.{zone}_c", "°C", "temperature of the zone", zone))
        for name, source in over_current(roots).items():
            self._single[f"{name}_events"] = (source, 1.0)
            fields.append(FieldInfo(self.name, f"{name}_events", "1", "cumulative: over-current events", "module"))
        for chip in listing(roots.in_sys("class/hwmon"), "hwmon*"):
            kind = text(chip / "name")
            if kind == "pwmfan":
                self._single["fan_pwm"] = (SensorFile(chip / "pwm1"), 1 / 2.55)
                fields.append(FieldInfo(self.name, "fan_pwm", "%", "how hard the fan is driven", "fan"))
            for file in ("rpm", "fan1_input"):
                if kind in ("pwm_tach", "pwmfan") and (chip / file).exists():
                    self._single.setdefault("fan_rpm", (SensorFile(chip / file), 1.0))
        if "fan_rpm" in self._single:
            fields.append(FieldInfo(self.name, "fan_rpm", "1/min", "fan speed", "fan"))
        self._cooling: dict[str, list[SensorFile]] = {}
        for device in listing(roots.in_sys("class/thermal"), "cooling_device*"):
            kind = (text(device / "type") or "").lower()
            # A device without a highest state cannot slow anything down.
            if kind and effect(kind) is not Effect.HARMLESS and number(device / "max_state") != 0:
                self._cooling.setdefault(kind, []).append(SensorFile(device / "cur_state"))
        fields += [
            FieldInfo(self.name, f"throttle.{kind}", "1", _MEANING[effect(kind)], kind) for kind in self._cooling
        ]
        policies = listing(roots.in_sys("devices/system/cpu/cpufreq"), "policy*/scaling_cur_freq")
        self._clocks = [SensorFile(path) for path in policies] or [
            SensorFile(path)
            for path in listing(roots.in_sys("devices/system/cpu"), "cpu[0-9]*/cpufreq/scaling_cur_freq")
        ]
        if self._clocks:
            fields.append(FieldInfo(self.name, "cpu_clock_mhz", "MHz", "highest current clock of any core", "cpu"))
        self.fields = tuple(fields)

    def read(self) -> Mapping[str, Reading]:
        """Every field."""
        readings = {field: source.read(scale) for field, (source, scale) in self._single.items()}
        for field in readings:
            # A sensor that is off answers −256 °C on some boards.
            if field.startswith("temp.") and (readings[field].value or 0.0) <= -100.0:
                readings[field] = Reading.null("unsupported")
        readings |= {f"throttle.{kind}": _highest(sources) for kind, sources in self._cooling.items()}
        if self._clocks:
            readings["cpu_clock_mhz"] = _highest(self._clocks, 1e-3)
        return readings

    def hint(self, field: str, reason: str) -> str | None:
        """The command that would make a null a value."""
        if reason == "no_permission":
            return "in a container: mount the sensors with -v /sys:/sys:ro"
        return None


def _highest(sources: list[SensorFile], scale: float = 1.0) -> Reading:
    """The largest of several readings; null if none answers."""
    readings = [source.read(scale) for source in sources]
    values = [reading.value for reading in readings if reading.value is not None]
    return Reading(max(values)) if values else readings[0]
