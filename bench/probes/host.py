"""The host: processor time, memory, and what it runs short of.

Counters are recorded as they stand (CPU seconds, pages, bytes since some beginning): a difference over any window is
exact, whatever samples are missing in between.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.probes.context import Context, nulls
from bench.probes.probe import Reading
from bench.probes.roots import Answer, SensorFile, parsed
from bench.probes.tree import TICK_S
from bench.record.launches import FieldInfo

_MEMINFO = {
    b"MemAvailable": "mem_available_mib",
    b"MemFree": "mem_free_mib",
    b"Cached": "mem_cached_mib",
    b"SwapFree": "swap_free_mib",
    b"NvMapMemUsed": "nvmap_mib",
}
_VMSTAT = {
    b"pswpin": "swap_in_pages",
    b"pswpout": "swap_out_pages",
    b"pgmajfault": "major_faults",
    b"oom_kill": "oom_kills",
}


class HostUsage:
    """Free memory at the sampler's full rate, and every fifth time the processor time of the whole machine.

    /proc/stat lists every interrupt of every core and costs the kernel several times what /proc/meminfo does.
    """

    name = "host"
    period_s = 0.1
    stat_every = 5

    def __init__(self, context: Context) -> None:
        self._stat = SensorFile(f"{context.roots.tasks}/stat", 256)
        self._meminfo = SensorFile(f"{context.roots.proc}/meminfo", 8192, every=10)
        counters = {
            "cpu_busy_s": "user, nice, system, interrupts; all cores, since boot",
            "cpu_idle_s": "idle, all cores, since boot",
            "cpu_iowait_s": "idle while a disk was awaited, since boot",
            "cpu_steal_s": "runnable while the hypervisor ran someone else, since boot",
        }
        memory = {
            "mem_available_mib": "what a new process could get without swapping",
            "mem_free_mib": "unused",
            "mem_cached_mib": "page cache",
            "swap_free_mib": "swap left, zram included",
            "nvmap_mib": "GPU allocations of a Tegra board, where the kernel tells",
        }
        self.fields = (
            *(FieldInfo(self.name, field, "s", f"cumulative: {doc}", "machine") for field, doc in counters.items()),
            *(FieldInfo(self.name, field, "MiB", doc, "machine") for field, doc in memory.items()),
        )
        self._turn = 0
        page = self._meminfo.answer()
        if isinstance(page, Reading) or b"NvMapMemUsed:" not in page:
            self.fields = self.fields[:-1]
        known = {info.field for info in self.fields}
        self._wanted = tuple((b"\n" + key + b":", field) for key, field in _MEMINFO.items() if field in known)

    def read(self) -> Mapping[str, Reading]:
        """Every field, those of the processor every fifth time."""
        return self.parse(self.raw())

    def raw(self) -> tuple[Answer | None, Answer]:
        """The kernel's pages on time (every fifth call) and memory."""
        turn, self._turn = self._turn, (self._turn + 1) % self.stat_every
        return (self._stat.answer() if turn == 0 else None), self._meminfo.answer()

    def parse(self, raw: tuple[Answer | None, Answer]) -> Mapping[str, Reading]:
        """Every field, those of the processor if its page is there."""
        stat, meminfo = raw
        return self._memory(meminfo) | (self._processor(stat) if stat is not None else {})

    def _memory(self, answer: Answer) -> dict[str, Reading]:
        if isinstance(answer, Reading):
            return dict.fromkeys((info.field for info in self.fields[4:]), answer)
        readings = nulls(self.fields[4:], "parse_failed")
        page = b"\n" + answer
        for key, field in self._wanted:
            if (at := page.find(key)) >= 0:
                readings[field] = parsed(page[at + len(key) : at + len(key) + 24], _mib)
        return readings

    def _processor(self, answer: Answer) -> dict[str, Reading]:
        fields = [info.field for info in self.fields[:4]]
        if isinstance(answer, Reading):
            return dict.fromkeys(fields, answer)
        try:
            user, nice, system, idle, wait, irq, soft, steal = (int(x) for x in answer.split(None, 9)[1:9])
        except ValueError:
            return dict.fromkeys(fields, Reading.null("parse_failed"))
        ticks = (user + nice + system + irq + soft, idle, wait, steal)
        return {field: Reading(count * TICK_S) for field, count in zip(fields, ticks, strict=True)}


def _mib(kib: bytes) -> float:
    return int(kib.split(None, 1)[0]) / 1024


class Pressure:
    """What the machine is short of: stall times, swapping, disk faults, zram."""

    name = "pressure"
    period_s = 1.0

    def __init__(self, context: Context) -> None:
        roots = context.roots
        self._vmstat = SensorFile(f"{roots.tasks}/vmstat", 16384)
        self._stall = {kind: SensorFile(f"{roots.tasks}/pressure/{kind}", 512) for kind in ("cpu", "memory", "io")}
        self._zram = [SensorFile(path) for path in sorted(roots.in_sys("block").glob("zram*/mm_stat"))]
        self.fields = (
            *(
                FieldInfo(
                    self.name, f"{kind}_{who}_s", "s", f"cumulative: {who} tasks stalled for want of {kind}", "machine"
                )
                for kind in self._stall
                for who in ("some", "full")
            ),
            *(FieldInfo(self.name, field, "1", "cumulative, since boot", "machine") for field in _VMSTAT.values()),
            FieldInfo(self.name, "zram_used_mib", "MiB", "memory that compressed swap occupies", "machine"),
        )

    def read(self) -> Mapping[str, Reading]:
        """Every field."""
        readings = nulls(self.fields, "unsupported")
        for kind, source in self._stall.items():
            try:
                for line in source.raw().splitlines():
                    readings[f"{kind}_{line[:4].decode()}_s"] = Reading(int(line[line.rindex(b"total=") + 6 :]) / 1e6)
            except OSError:
                continue  # a kernel without pressure-stall accounting
            except ValueError:
                readings[f"{kind}_some_s"] = Reading.null("parse_failed")
        try:
            for line in self._vmstat.raw().splitlines():
                key, _, count = line.partition(b" ")
                if key in _VMSTAT:
                    readings[_VMSTAT[key]] = Reading(float(count))
        except OSError as error:
            readings |= {field: Reading.null(self._vmstat.why(error)) for field in _VMSTAT.values()}
        except ValueError:
            readings |= {field: Reading.null("parse_failed") for field in _VMSTAT.values()}
        if self._zram:
            used = [source.parse(lambda data: int(data.split()[2]) / 2**20) for source in self._zram]
            missing = next((reading for reading in used if reading.value is None), None)
            readings["zram_used_mib"] = missing or Reading(sum(reading.value or 0.0 for reading in used))
        return readings
