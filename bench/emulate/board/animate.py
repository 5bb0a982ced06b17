"""An emulated board that lives: load makes power, power makes heat, heat makes it throttle, and things break on demand.

First-order thermal model; power rises with load and the square of the clock. Numbers are quantised as the INA3221
quantises (8 mV, 8 mA). The load is this machine's own by default, so that an engine on its processor shows.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.emulate.board.catalogue import EmulatedBoard
from bench.emulate.board.files import get, meminfo, put, rail_files
from bench.errors import UsageError

AMBIENT_C = 25.0
HOT_C = 85.0
FAULTS = ("rail", "hot", "over-current", "rubbish", "blocks", "swap")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong `at` seconds after the start and lasts `seconds`."""

    kind: str
    at: float
    seconds: float = 5.0

    @classmethod
    def parse(cls, words: str) -> Fault:
        """`rail@5` or `hot@10+30`; UsageError for anything else."""
        found = re.fullmatch(r"([a-z-]+)@(\d+(?:\.\d+)?)(?:\+(\d+(?:\.\d+)?))?", words)
        if not found or found[1] not in FAULTS:
            raise UsageError(f"no such fault: {words!r}", hint=f"one of {', '.join(FAULTS)}, as rail@5 or hot@10+30")
        return cls(found[1], float(found[2]), float(found[3] or 5.0))


class MachineLoad:
    """The share of this machine's processors that is busy, since the last call."""

    def __init__(self) -> None:
        self._last = self._read()

    @staticmethod
    def _read() -> tuple[int, int]:
        user, nice, system, idle, wait = (int(word) for word in Path("/proc/stat").read_bytes().split(None, 6)[1:6])
        return user + nice + system, user + nice + system + idle + wait

    def __call__(self, at: float) -> float:
        """Between 0 and 1."""
        busy, total = self._read()
        share = (busy - self._last[0]) / max(1, total - self._last[1])
        self._last = busy, total
        return min(1.0, max(0.0, share))


class Animation:
    """One board's state and the files that show it."""

    def __init__(
        self,
        folder: Path,
        model: EmulatedBoard,
        *,
        load: Callable[[float], float] | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.model = model
        self.folder = folder
        self.sys = folder / "sys"
        self.load_of = load or MachineLoad()
        self.faults = tuple(faults)
        self.load = 0.0
        self.at = 0.0
        self.watts = model.idle_w
        self.temp_c = AMBIENT_C + model.idle_w * model.heat_c_per_w
        self.throttle = 0
        self.oc = {1: 0.0, 2: 0.0, 3: 0.0}
        self.gpu_hz = float(model.gpu_hz[0])
        self._gpu = self.sys / "devices" / model.gpu_device
        self._available_at_start = _available_mib()
        self._tick = 0

    def step(self, seconds: float) -> None:
        """Let so much time pass and write what it did."""
        self.at += seconds
        active = {fault.kind for fault in self.faults if fault.at <= self.at < fault.at + fault.seconds}
        # devfreq averages the load over about a tenth of a second.
        self.load += (self.load_of(self.at) - self.load) * min(1.0, seconds / 0.1)
        model, (low, high) = self.model, self.model.gpu_hz
        locked = get(self._gpu / "devfreq" / model.gpu_node / "min_freq") == high
        cap = high * self._mode_share() * (1 - 0.15 * self.throttle)
        self.gpu_hz = cap if locked else min(cap, low + (high - low) * self.load)
        speed = (self.gpu_hz / high) ** 2 if self.load > 0.01 else 1.0
        self.watts = model.idle_w + (model.full_w - model.idle_w) * self.load * speed + 0.05 * math.sin(7 * self.at)
        ambient = HOT_C if "hot" in active else AMBIENT_C
        settled = ambient + self.watts * model.heat_c_per_w
        pace = model.settle_s / (10 if "hot" in active else 1)
        self.temp_c += (settled - self.temp_c) * (1 - math.exp(-seconds / pace))
        if self.temp_c > model.trip_c:
            self.throttle = min(3, self.throttle + 1)
        elif self.temp_c < model.trip_c - 3:
            self.throttle = max(0, self.throttle - 1)
        # Instantaneous over-current events come in normal load at full power; the other two mean trouble.
        self.oc[3] += seconds * 2.0 * (self.load > 0.9)
        if "over-current" in active:
            self.oc[1] += seconds * 4
            self.oc[2] += seconds * 4
        self._show(active)
        self._tick += 1

    def _mode_share(self) -> float:
        mode = self.model.modes[min(get(self.folder / "state/mode"), len(self.model.modes) - 1)]
        found = re.search(r"(\d+)W", mode)
        return min(1.0, math.sqrt(int(found[1]) / self.model.full_w)) if found else 1.0

    def _show(self, active: set[str]) -> None:
        self._show_power(active)
        put(self._gpu / "load", round(self.load * 1000))
        put(self._gpu / "devfreq" / self.model.gpu_node / "cur_freq", round(self.gpu_hz))
        for first in range(0, self.model.cores, 4):
            policy = self.sys / f"devices/system/cpu/cpufreq/policy{first}"
            low, high = get(policy / "scaling_min_freq"), self.model.cpu_khz[1]
            put(policy / "scaling_cur_freq", round(low + (high - low) * self.load))
        if self._tick % 5 == 0:
            self._show_heat(active)
            self._show_memory(active)
            line = self.folder / "state/tegrastats.line"
            line.with_suffix(".new").write_text(self.line() + "\n")
            line.with_suffix(".new").replace(line)

    def _show_power(self, active: set[str]) -> None:
        main = next((rail.label for rail in self.model.rails if not rail.inside), "")
        for rail, volts, current in rail_files(self.model, self.sys):
            if "rail" in active and rail.label == main:
                volts.unlink(missing_ok=True)
                continue
            if "blocks" in active and rail.label == main:
                if not volts.is_fifo():
                    volts.unlink(missing_ok=True)
                    os.mkfifo(volts)  # opening it waits for a writer that never comes
                continue
            if volts.is_fifo():
                self._unblock(volts)
            watts = self.rail_watts(rail.label)
            if current is None:
                put(volts, round(watts * (1e3 if self.model.iio else 1e6)))
            else:
                millivolts = round(rail.volts * 1000 / 8) * 8
                put(volts, millivolts)
                put(current, round(watts * 1e6 / millivolts / 8) * 8 if millivolts else 0)

    @staticmethod
    def _unblock(path: Path) -> None:
        """Let whoever waits in open() go on, then make it a file again."""
        with suppress(OSError):  # nobody waits
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        path.unlink()

    def rail_watts(self, label: str) -> float:
        """What one rail carries."""
        rail = next(rail for rail in self.model.rails if rail.label == label)
        extra = self.watts - self.model.idle_w
        return max(0.0, self.model.idle_w * rail.idle + extra * rail.busy)

    def zone_c(self, zone: str) -> float:
        """A zone's temperature: the junction's for tj, somewhat less elsewhere."""
        below = {"tj": 0.0, "gpu": 0.8, "cpu": 0.4}.get(zone.lower().split("-")[0], 3.0)
        return self.temp_c - below

    def _show_heat(self, active: set[str]) -> None:
        for index, zone in enumerate(self.model.zones):
            value = "hot!" if "rubbish" in active else round(self.zone_c(zone) * 1000 / 125) * 125
            put(self.sys / f"class/thermal/thermal_zone{index}/temp", value)
        fan = min(255, max(0, round((self.temp_c - 35) * 6)))
        gpu = {"gpu-throttle-alert", f"devfreq-{self.model.gpu_node}"}
        moving = {"pwm-fan": fan // 85, "hot-surface-alert": int(self.temp_c > self.model.surface_c)}
        for index, device in enumerate(self.model.cooling):
            state = moving.get(device.kind, self.throttle if device.kind in gpu else device.state)
            put(self.sys / f"class/thermal/cooling_device{index}/cur_state", state)
        put(self.sys / "class/hwmon/hwmon0/pwm1", fan)
        put(self.sys / "class/hwmon/hwmon1/rpm", fan * 24)
        if not self.model.iio:
            for event, count in self.oc.items():
                put(self.sys / f"class/hwmon/hwmon2/oc{event}_event_cnt", int(count))

    def memory_mib(self) -> tuple[float, float]:
        """Available memory, and what the GPU holds: what this machine has lost since the start is charged to it."""
        lost = max(0.0, self._available_at_start - _available_mib())
        return max(64.0, 0.85 * self.model.memory_mib - lost), 0.6 * lost

    def _show_memory(self, active: set[str]) -> None:
        available, nvmap = self.memory_mib()
        swap_free = self.model.swap_mib - (0.25 * self.model.swap_mib if "swap" in active else 0.0)
        path = self.folder / "proc/meminfo"
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, meminfo(self.model, available, nvmap, swap_free).encode(), 0)
        finally:
            os.close(fd)

    def line(self) -> str:
        """What tegrastats prints under this board's JetPack."""
        return tegrastats_line(self)


def _available_mib() -> float:
    data = Path("/proc/meminfo").read_bytes()
    start = data.index(b"MemAvailable:") + 13
    return int(data[start:].split(None, 1)[0]) / 1024


def tegrastats_line(board: Animation) -> str:
    """One line of the board as it is now."""
    model, style = board.model, board.model.style
    available, _ = board.memory_mib()
    words = [f"RAM {round(model.memory_mib - available)}/{model.memory_mib}MB (lfb 4x4MB)"]
    if style in ("jp4", "jp5", "jp6") and model.swap_mib:
        words.append(f"SWAP 0/{model.swap_mib}MB (cached 0MB)")
    clock = round((model.cpu_khz[0] + (model.cpu_khz[1] - model.cpu_khz[0]) * board.load) / 1000)
    words.append(f"CPU [{','.join(f'{round(board.load * 100)}%@{clock}' for _ in range(model.cores))}]")
    mhz, percent = round(board.gpu_hz / 1e6), round(board.load * 100)
    if style == "jp4":
        words.append(f"EMC_FREQ {percent}%@{model.emc_hz // 1_000_000} GR3D_FREQ {percent}%@{mhz} APE 150")
    elif style == "jp5":
        words.append(f"GR3D_FREQ {percent}%@{mhz} VIC_FREQ 115 APE 174")
    elif style == "thor":
        words.append(f"GR3D_FREQ @[{','.join([str(mhz)] * 3)}] NVENC0_FREQ off PVA0_FREQ off APE 300")
    else:
        words.append(f"GR3D_FREQ {percent}%@[{','.join([str(mhz)] * max(1, model.gpcs))}] NVDEC off OFA off APE 174")
    for zone in model.zones:
        name = zone.removesuffix("-thermal").removesuffix("-therm")
        if style == "jp5":
            name = name if name == "tj" else name.upper()
        words.append(f"{name}@{_degrees(board.zone_c(zone), twice=style in ('jp7', 'thor'))}")
    if style in ("jp4", "jp5"):
        words += [f"{zone.removesuffix('-thermal').upper()}@-256C" for zone in model.zones_off if style == "jp5"]
    for rail in model.rails:
        now = round(board.rail_watts(rail.label) * 1000)
        if style == "jp4":
            words.append(f"{rail.label} {now}/{now}")
        else:
            words.append(f"{rail.label} " + "/".join([f"{now}mW"] * (3 if style in ("jp7", "thor") else 2)))
    stamp = "09-01-2025 10:55:25 " if style in ("jp6", "jp7", "thor") else ""
    return stamp + " ".join(words)


def _degrees(value: float, *, twice: bool) -> str:
    words = f"{value:.3f}".rstrip("0").rstrip(".") + "C"
    return f"{words}/{words}" if twice else words
