"""tegrastats, the second source on a Jetson: lines that change with every JetPack, read by their tokens.

Fields come and go, change their order, spacing and case, and power has one, two or three numbers: the first is the
present one, the second an average since tegrastats was started, the third is not documented. Only the first is used.
A token that is absent is a null, never a zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bench.probes.boards import identify
from bench.probes.context import Context, nulls
from bench.probes.jetson import module_power, total_power
from bench.probes.listener import Listener
from bench.probes.probe import Reading
from bench.record.launches import FieldInfo

_MIB = {"kB": 1 / 1024, "MB": 1.0, "GB": 1024.0}
_RAM = re.compile(r"(?<![A-Z])RAM (\d+)/(\d+)(kB|MB|GB)(?: \(lfb (\d+)x(\d+)(kB|MB)\))?")
_SWAP = re.compile(r"\bSWAP (\d+)/(\d+)(kB|MB|GB)(?: \(cached (\d+)(kB|MB|GB)\))?")
_CPU = re.compile(r"\bCPU \[([^\]]+)\](?:@(\d+))?")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?$")
_ENGINE = {"gpu": re.compile(r"\bGR3D_FREQ\s+(\S+)"), "emc": re.compile(r"\bEMC_FREQ\s+(\S+)")}
_LOAD = re.compile(r"^(\d+)%")
_CLOCK = re.compile(r"@(?:\[([^\]]*)\]|(\d+)$)")
_TEMP = re.compile(r"(?<!\S)([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C(?:/-?\d+(?:\.\d+)?C)?(?!\S)")
_RAIL = re.compile(r"(?<![\w@])([A-Z][A-Z0-9_]*)\s+(-?\d+)mW(?:/-?\d+mW){0,2}(?!\S)")
# JetPack 4: no unit.
_BARE_RAIL = re.compile(r"(?<![\w@])([A-Z][A-Z0-9_]*)\s+(\d+)/(\d+)(?!\S)")
# An unconnected channel; and memory, which looks like a rail in a line that was cut off before its unit.
_NO_RAILS = ("NC", "RAM", "SWAP", "IRAM")

_UNITS = (("_mib", "MiB"), ("_mhz", "MHz"), ("_load", "%"), ("_c", "°C"), ("_w", "W"))


def parse(line: str) -> dict[str, float]:
    """What a line says, by field; what it does not say is absent.

    power.RAIL_w (W), temp.zone_c, cpuN_load (%), cpuN_clock_mhz, gpu_load, gpu_clock_mhz (the highest of several),
    emc_load, emc_clock_mhz, ram_used_mib, ram_total_mib, ram_largest_free_mib, swap_used_mib, swap_total_mib,
    swap_cached_mib, cpus_off.
    """
    found: dict[str, float] = {}
    if ram := _RAM.search(line):
        used, total, unit, blocks, size, block_unit = ram.groups()
        found["ram_used_mib"], found["ram_total_mib"] = int(used) * _MIB[unit], int(total) * _MIB[unit]
        if size:
            found["ram_largest_free_mib"] = int(blocks) * int(size) * _MIB[block_unit]
    if swap := _SWAP.search(line):
        used, total, unit, cached, cached_unit = swap.groups()
        found["swap_used_mib"], found["swap_total_mib"] = int(used) * _MIB[unit], int(total) * _MIB[unit]
        if cached:
            found["swap_cached_mib"] = int(cached) * _MIB[cached_unit]
    if cores := _CPU.search(line):
        found |= _cores(cores[1].split(","), cores[2])
    for engine, pattern in _ENGINE.items():
        if token := pattern.search(line):
            found |= _engine(engine, token[1])
    for name, degrees in _TEMP.findall(line):
        if float(degrees) > -100.0:  # −256 is a sensor that is off
            found[f"temp.{name.lower()}_c"] = float(degrees)
    for name, milliwatts in [*_RAIL.findall(line), *((name, now) for name, now, _ in _BARE_RAIL.findall(line))]:
        if name not in _NO_RAILS:
            found[f"power.{name}_w"] = int(milliwatts) / 1000
    return found


def _cores(items: list[str], shared_clock: str | None) -> Iterator[tuple[str, float]]:
    yield "cpus_off", float(sum(item.strip() == "off" for item in items))
    for index, item in enumerate(items):
        if core := _CORE.match(item.strip()):
            yield f"cpu{index}_load", float(core[1])
            if clock := core[2] or shared_clock:
                yield f"cpu{index}_clock_mhz", float(clock)


def _engine(name: str, token: str) -> Iterator[tuple[str, float]]:
    """`12%`, `12%@921`, `@[1300,1300]`, `0%@[0,0]`, `@2133`."""
    if load := _LOAD.match(token):
        yield f"{name}_load", float(load[1])
    if clock := _CLOCK.search(token):
        numbers = [float(item) for item in (clock[1] or clock[2]).split(",") if item.strip().isdigit()]
        if numbers:
            yield f"{name}_clock_mhz", max(numbers)


class Tegrastats:
    """The latest line of a tegrastats of our own; `stale` when it stops, started again after a while."""

    name = "tegrastats"

    def __init__(self, context: Context) -> None:
        self.period_s = float(context.options.get("period_s", 0.5))
        identity = identify(context.roots)
        self._board = identity.board if identity else None
        program = context.roots.which("tegrastats")
        argv = [program, "--interval", str(round(self.period_s * 1000))] if program else None
        self._lines = Listener(argv, clock=context.clock)
        self._known: dict[str, FieldInfo] = {}
        self._last = 0
        self._note(self._parse(self._lines.first(2.0 + 2 * self.period_s) or ""))

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        """The fields met so far; a GPU that is powered off joins later."""
        return tuple(self._known.values()) or (FieldInfo(self.name, "power_w", "W", "power of the module"),)

    def read(self) -> Mapping[str, Reading]:
        """What is new since the last reading; nothing if nothing is new yet."""
        line = self._lines.latest()
        if line is None:
            return nulls(self.fields, "not_found" if self._lines.argv is None else "stale")
        if line.number == self._last:
            late = self._lines.silent_s() > max(3 * self.period_s, 1.0)
            return nulls(self.fields, "stale") if late else {}
        self._last = line.number
        values = self._parse(line.text)
        self._note(values)
        if not values:
            return nulls(self.fields, "parse_failed")
        return {field: Reading(values[field]) if field in values else Reading.null("partial") for field in self._known}

    def close(self) -> None:
        """End tegrastats."""
        self._lines.close()

    def hint(self, field: str, reason: str) -> str | None:
        """The command that would make a null a value."""
        if reason == "not_found":
            return "it comes with every Jetson; in a container: -v /usr/bin/tegrastats:/usr/bin/tegrastats:ro"
        return None

    def _parse(self, line: str) -> dict[str, float]:
        values = parse(line)
        rails = [field[len("power.") : -len("_w")] for field in values if field.startswith("power.")]
        wanted, _ = module_power(self._board, rails)
        total = total_power({rail: Reading(values[f"power.{rail}_w"]) for rail in rails}, wanted)
        return values if total.value is None else {"power_w": total.value, **values}

    def _note(self, values: Mapping[str, float]) -> None:
        scope = self._board.scope if self._board else None
        for field in values:
            if field not in self._known:
                unit = next((unit for end, unit in _UNITS if field.endswith(end)), "1")
                self._known[field] = FieldInfo(self.name, field, unit, "", scope if field == "power_w" else None)
