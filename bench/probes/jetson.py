"""A Jetson's power and GPU by sysfs: INA3221 rails by label, the GPU's devfreq node, the memory clock.

Paths differ between JetPack 4, 5, 6 and 7 and hwmon numbers change between boots: everything is found by name. The
sensor resolves 8 mV and 40 µV over the shunt, about 40 mW to 0.15 W on a module's input: tenths of a mW are noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench.probes.boards import INPUT_RAILS, Board, identify
from bench.probes.context import Context
from bench.probes.power_mode import is_gpu
from bench.probes.probe import Reading
from bench.probes.roots import Answer, Roots, SensorFile, listing, scaled, text
from bench.record.launches import FieldInfo


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply line: files whose product is its power (voltage and current, or power alone), and the scale to W."""

    label: str
    sources: tuple[SensorFile, ...]
    scale: float

    def power(self, answers: Iterable[Answer]) -> Reading:
        """Power in W from what its files answered."""
        product = self.scale
        for answer in answers:
            factor = scaled(answer, 1.0)
            if factor.value is None:
                return factor
            product *= factor.value
        return Reading(product)


def rails(roots: Roots) -> list[Rail]:
    """Every labelled supply line, in order of label; unconnected channels (NC) and shunt voltages left out."""
    found: dict[str, Rail] = {}
    for chip in listing(roots.in_sys("class/hwmon"), "hwmon*"):
        if (text(chip / "name") or "").startswith("ina"):
            for label, channel in _channels(chip):
                power, volts, current = (chip / f"{kind}{channel}_input" for kind in ("power", "in", "curr"))
                if power.exists():
                    found.setdefault(label, Rail(label, (_source(power),), 1e-6))
                elif current.exists():
                    found.setdefault(label, Rail(label, (_source(volts), _source(current)), 1e-6))
    for file in listing(roots.in_sys("bus/i2c/drivers/ina3221x"), "*/iio:device*/rail_name_*"):
        if _named(label := text(file) or ""):
            power = file.parent / f"in_power{file.name.removeprefix('rail_name_')}_input"
            found.setdefault(label, Rail(label, (_source(power),), 1e-3))
    return [found[label] for label in sorted(found)]


def _source(path: Path) -> SensorFile:
    """A file read ten times a second."""
    return SensorFile(path, every=10)


def _channels(chip: Path) -> Iterator[tuple[str, str]]:
    """Label and number of a monitor's channels: in1_label and so on, or one `label` for a chip with one channel."""
    files = list(listing(chip, "in*_label"))
    pairs = [(text(file) or "", file.name[2 : -len("_label")]) for file in files] or [(text(chip / "label") or "", "1")]
    yield from ((label, channel) for label, channel in pairs if _named(label))


def _named(label: str) -> bool:
    return bool(re.fullmatch(r"[A-Z][A-Z0-9_]+", label)) and label != "NC"


def module_power(board: Board | None, labels: list[str]) -> tuple[tuple[str, ...], str | None]:
    """The rails whose sum is the module's power, and its scope; none where the board is not known well enough.

    Never "all of them": on AGX Orin one rail feeds another, and the sum would count a watt twice.
    """
    if board is not None:
        return board.total, board.scope
    known = next((name for name in INPUT_RAILS if name in labels), None)
    return ((known,), f"input of an unknown board: {known}") if known else ((), None)


def total_power(powers: Mapping[str, Reading], wanted: tuple[str, ...]) -> Reading:
    """Their sum; null if a single one is missing, `partial` if others are there."""
    if not wanted:
        return Reading.null("unsupported")
    parts = [powers.get(name, Reading.null("not_found")) for name in wanted]
    values = [part.value for part in parts if part.value is not None]
    if len(values) == len(parts):
        return Reading(sum(values))
    missing = next(part for part in parts if part.value is None)
    return Reading.null("partial") if values else missing


class Jetson:
    """Module power, rails, GPU load and clock, memory clock."""

    name = "jetson"
    period_s = 0.1

    def __init__(self, context: Context) -> None:
        roots = context.roots
        identity = identify(roots)
        self._rails = rails(roots)
        self._total, scope = module_power(identity.board if identity else None, [rail.label for rail in self._rails])
        gpu = next((node for node in listing(roots.in_sys("class/devfreq")) if is_gpu(node.name)), None)
        self._sources = {
            "gpu_load": (_source(_load(roots, gpu)), 0.1),
            "gpu_clock_mhz": (_source((gpu or Path("/nonexistent")) / "cur_freq"), 1e-6),
            "emc_clock_mhz": (_source(roots.in_sys("kernel/debug/bpmp/debug/clk/emc/rate")), 1e-6),
        }
        self._files = [source for rail in self._rails for source in rail.sources]
        self._files += [source for source, _ in self._sources.values()]
        self.fields = (
            FieldInfo(self.name, "power_w", "W", "power of the module", scope),
            *(
                FieldInfo(self.name, f"power.{rail.label}_w", "W", "power of one rail", rail.label)
                for rail in self._rails
            ),
            FieldInfo(self.name, "gpu_load", "%", "share of time the GPU was busy, as its driver averages it", "gpu"),
            FieldInfo(self.name, "gpu_clock_mhz", "MHz", "current GPU clock", "gpu"),
            FieldInfo(self.name, "emc_clock_mhz", "MHz", "current memory clock; root only", "memory"),
        )

    def read(self) -> Mapping[str, Reading]:
        """Every field."""
        return self.parse(self.raw())

    def raw(self) -> list[Answer]:
        """What every file answers: the rails' first, then the others."""
        return [source.answer() for source in self._files]

    def parse(self, raw: list[Answer]) -> Mapping[str, Reading]:
        """Every field."""
        answers = iter(raw)
        powers = {rail.label: rail.power(list(islice(answers, len(rail.sources)))) for rail in self._rails}
        readings = {"power_w": total_power(powers, self._total)}
        readings |= {f"power.{label}_w": reading for label, reading in powers.items()}
        return readings | {field: scaled(next(answers), scale) for field, (_, scale) in self._sources.items()}

    def hint(self, field: str, reason: str) -> str | None:
        """The command that would make a null a value."""
        if reason == "no_permission" and field == "emc_clock_mhz":
            return "sudo mount -o remount,mode=755 /sys/kernel/debug"
        if reason == "no_permission":
            return "sudo chmod a+r the sensor's file, or run in a container with --privileged or -v /sys:/sys:ro"
        if field.startswith("power") and reason == "not_found":
            return "in a container: mount the sensors with -v /sys:/sys:ro; else: sudo modprobe ina3221"
        return None


def _load(roots: Roots, gpu: Path | None) -> Path:
    """The GPU's load in permille, wherever this JetPack keeps it."""
    known = [
        *([gpu / "device/load"] if gpu else []),
        roots.in_sys("devices/platform/bus@0/17000000.gpu/load"),
        roots.in_sys("devices/platform/17000000.gpu/load"),
        roots.in_sys("devices/platform/gpu.0/load"),
        roots.in_sys("devices/17000000.ga10b/load"),
        roots.in_sys("devices/gpu.0/load"),
    ]
    return next((path for path in known if path.exists()), known[0])
