"""What the engine's processes use, and what the harness itself uses: the cost of looking."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from bench.probes.accounts import Processors, Threads
from bench.probes.context import Context, nulls
from bench.probes.probe import Reading
from bench.probes.roots import SensorFile, peek
from bench.probes.roots import reason as why
from bench.probes.tree import Task, Tree, processes
from bench.record.launches import FieldInfo

# Two accounts read further apart than this are read again, once: the sampler was put off its processor in between.
SKEW_S = 0.005


class Processes:
    """The engine's tree of processes, and the harness's own: the cost of looking.

    The machine's processors are read with them: what others used is the difference, and only a reading of all at one
    time has one. `account_skew_s` says how far apart the two accounts of a reading lie.
    """

    name = "tree"
    period_s = 1.0

    def __init__(self, context: Context) -> None:
        self._proc = context.roots.tasks
        self._watched = context.watched
        self._engine = Tree(self._proc)
        self._harness = Tree(self._proc, reaped=False)
        self._processors = Processors(self._proc)
        self._threads = Threads(self._proc)
        self._read_bytes: dict[int, int] = {}
        docs = {
            "processes": ("1", "processes of the engine"),
            "threads": ("1", "threads of the engine"),
            "stopped": ("1", "processes of the engine that somebody has stopped (SIGSTOP)"),
            "rss_mib": ("MiB", "sum of resident sizes; counts shared pages once per process"),
            "peak_rss_mib": ("MiB", "sum of each living process's own peak: an upper bound of the tree's"),
            "cpu_s": ("s", "cumulative: CPU time of the engine"),
            "major_faults": ("1", "cumulative: page faults of the engine that waited for a disk"),
            "read_bytes": ("B", "cumulative: bytes the engine fetched from storage"),
            "run_s": ("s", "cumulative: time that the engine's threads ran, as the scheduler keeps it"),
            "wait_s": ("s", "cumulative: time that the engine's threads waited for a processor"),
            "harness_cpu_s": ("s", "cumulative: CPU time of the harness, the sampler apart"),
            "sampler_cpu_s": ("s", "cumulative: CPU time of the sampler at this reading"),
            "machine_busy_s": ("s", "cumulative: time of all processors, neither idle nor stolen, at this reading"),
            "machine_processors": ("1", "processors that are switched on"),
            "account_skew_s": ("s", "how far apart the accounts of this reading were read"),
        }
        scopes = {"harness": "harness", "sampler": "sampler", "machine": "machine", "account": "sampler"}
        self.fields = tuple(
            FieldInfo(self.name, field, unit, doc, scopes.get(field.partition("_")[0], "engine"))
            for field, (unit, doc) in docs.items()
        )

    def read(self) -> Mapping[str, Reading]:
        """Every field; all null while there is no engine."""
        engine = (self._watched.engine,) if self._watched.engine else ()
        apart = (*engine, os.getpid())
        if self._engine.roots != engine:
            self._engine = Tree(self._proc, engine)
            self._threads = Threads(self._proc)
            self._read_bytes = {}
        if (self._harness.roots, self._harness.apart) != (self._watched.harness, apart):
            self._harness = Tree(self._proc, self._watched.harness, apart=apart, reaped=False)
        present = processes(self._proc)
        self._harness.scan(present)
        readings = nulls(self.fields, "not_found")
        if self._harness.members:
            readings["harness_cpu_s"] = Reading(self._harness.cpu_s)
        members, accounts = self._accounts(present)
        readings |= accounts
        if not members:
            return readings
        ran = self._threads.read(members)
        readings["run_s"], readings["wait_s"] = map(Reading, ran) if ran else [Reading.null("unsupported")] * 2
        readings["processes"] = Reading(len(members))
        readings["threads"] = Reading(sum(task.threads for task in members.values()))
        readings["stopped"] = Reading(sum(task.stopped for task in members.values()))
        readings["rss_mib"] = Reading(sum(task.rss_mib for task in members.values()))
        readings["cpu_s"] = Reading(self._engine.cpu_s)
        readings["major_faults"] = Reading(self._engine.major_faults)
        readings["peak_rss_mib"] = self._sum(members, "status", b"VmHWM:", 1 / 1024)
        readings["read_bytes"] = self._disk(members)
        return readings

    def _accounts(self, present: set[int]) -> tuple[dict[int, Task], dict[str, Reading]]:
        """The engine's members and the machine's processors, read as close together as this process gets to."""
        skew = 0.0
        for _ in range(2):
            begun = time.monotonic()
            try:
                busy = Reading(self._processors.busy_s())
            except (OSError, ValueError, IndexError) as error:
                busy = Reading.null(why(error) if isinstance(error, OSError) else "parse_failed")
            members = self._engine.scan(present)
            skew = time.monotonic() - begun
            if skew < SKEW_S:
                break
        return members, {
            "sampler_cpu_s": Reading(time.process_time()),
            "machine_busy_s": busy,
            "machine_processors": Reading(float(self._processors.count)),
            "account_skew_s": Reading(skew),
        }

    def _sum(self, members: Iterable[int], file: str, key: bytes, scale: float) -> Reading:
        total, seen = 0.0, False
        for pid in members:
            value = _entry(f"{self._proc}/{pid}/{file}", key)
            if isinstance(value, str):
                return Reading.null(value)
            if value is not None:
                total, seen = total + value * scale, True
        return Reading(total) if seen else Reading.null("stale")

    def _disk(self, members: Iterable[int]) -> Reading:
        for pid in members:
            value = _entry(f"{self._proc}/{pid}/io", b"read_bytes:")
            if isinstance(value, str):
                return Reading.null(value)
            if value is not None:
                self._read_bytes[pid] = value
        return Reading(float(sum(self._read_bytes.values())))


def held_mib(pids: Iterable[int], proc: str = "/proc") -> float | None:
    """Proportional set size of some processes now, MiB; None if none of them can be read."""
    found = []
    for pid in pids:
        with suppress(OSError):
            found.append(_rollup(proc, pid).get(b"Pss", 0))
    return sum(found) / 1024 if found else None


def _rollup(proc: str, pid: int) -> dict[bytes, int]:
    """A process's memory by kind, KiB; OSError if it cannot be read."""
    lines = peek(f"{proc}/{pid}/smaps_rollup").splitlines()[1:]
    return {key: int(value.split()[0]) for key, _, value in (line.partition(b":") for line in lines) if value}


class TreeMemory:
    """Memory of the engine's tree by /proc/PID/smaps_rollup: PSS and USS, and its control group's account.

    Walking a large process's pages takes the kernel milliseconds and holds its map lock. The period stretches so that
    this never takes more than 1/1000 of the time.
    """

    name = "tree_memory"
    alone = True  # it may take long, and what is read ten times a second must not wait for it
    least_period_s = 1.0
    share = 1 / 1000

    def __init__(self, context: Context) -> None:
        self.period_s = self.least_period_s
        self._roots = context.roots
        self._proc = context.roots.tasks
        self._watched = context.watched
        self._tree = Tree(self._proc)
        docs = {
            "pss_mib": "proportional set size of the tree: shared pages counted once, by share",
            "uss_mib": "pages no other process shares",
            "swap_pss_mib": "what of the tree lies in swap, by share",
            "cgroup_mib": "the engine's own control group without its page cache",
            "cgroup_peak_mib": "that group's peak, page cache included",
        }
        self.fields = tuple(FieldInfo(self.name, field, "MiB", doc, "engine") for field, doc in docs.items())

    def read(self) -> Mapping[str, Reading]:
        """Every field; all null while there is no engine."""
        engine = (self._watched.engine,) if self._watched.engine else ()
        if self._tree.roots != engine:
            self._tree = Tree(self._proc, engine)
        start = time.thread_time()
        members = self._tree.scan()
        readings = nulls(self.fields, "not_found")
        if not members:
            return readings
        readings |= self._rollups(members)
        self.period_s = max(self.least_period_s, (time.thread_time() - start) / self.share)
        return readings | self._cgroup(next(iter(engine)))

    def hint(self, field: str, reason: str) -> str | None:
        """The command that would make a null a value."""
        if field.startswith("cgroup") and reason == "unsupported":
            return "systemd-run --user --scope -p MemoryAccounting=yes bench run …"
        if reason == "no_permission":
            return "run as the user that runs the engine"
        return None

    def _rollups(self, members: Iterable[int]) -> dict[str, Reading]:
        pss = private = swap = 0
        seen = False
        for pid in members:
            try:
                kib = _rollup(self._proc, pid)
            except PermissionError:
                null = Reading.null("no_permission")
                return {"pss_mib": null, "uss_mib": null, "swap_pss_mib": null}
            except OSError:
                continue  # it ended meanwhile, or is a kernel thread
            pss += kib.get(b"Pss", 0)
            private += kib.get(b"Private_Clean", 0) + kib.get(b"Private_Dirty", 0)
            swap += kib.get(b"SwapPss", 0)
            seen = True
        if not seen:
            null = Reading.null("unsupported")
            return {"pss_mib": null, "uss_mib": null, "swap_pss_mib": null}
        return {
            "pss_mib": Reading(pss / 1024),
            "uss_mib": Reading(private / 1024),
            "swap_pss_mib": Reading(swap / 1024),
        }

    def _cgroup(self, pid: int) -> dict[str, Reading]:
        group, ours = _cgroup_of(self._proc, pid), _cgroup_of(self._proc, os.getpid())
        if group is None or group == ours:
            # A group that holds the harness too says nothing about the engine.
            return {name: Reading.null("unsupported") for name in ("cgroup_mib", "cgroup_peak_mib")}
        folder = f"{self._roots.sys}/fs/cgroup{group}"
        peak = SensorFile(f"{folder}/memory.peak").read(1 / 2**20)
        current = SensorFile(f"{folder}/memory.current").read(1 / 2**20)
        cache, shared = (_entry(f"{folder}/memory.stat", key) for key in (b"file ", b"shmem "))
        if current.value is not None and isinstance(cache, int) and isinstance(shared, int):
            current = Reading(current.value - (cache - shared) / 2**20)
        return {"cgroup_mib": current, "cgroup_peak_mib": peak}


def _entry(path: str, key: bytes) -> int | str | None:
    """The number after `key` in a /proc file; None if the file is gone, a reason if it may not be read."""
    try:
        for line in peek(path, 8192).splitlines():
            if line.startswith(key):
                return int(line[len(key) :].split()[0])
    except PermissionError:
        return "no_permission"
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_of(proc: str, pid: int) -> str | None:
    try:
        lines = peek(f"{proc}/{pid}/cgroup").splitlines()
    except OSError:
        return None
    return next((line[3:].decode() for line in lines if line.startswith(b"0::")), None)
