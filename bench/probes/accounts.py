"""Whose processor time it was: what the kernel says of all processors and of an engine's threads, to be read at once.

Two accounts of one span can only be subtracted where they were read at the same moment: a counter read a second later
makes a neighbour out of the engine's own work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from bench.probes.roots import SensorFile, peek
from bench.probes.tree import TICK_S


class Processors:
    """Time that the machine's processors spent on anything.

    Not the sum of user and system time: the kernel samples that at its ticks, and work that begins and ends between
    two of them is in it by chance alone. Idle time is measured where the kernel stops its ticks (CONFIG_NO_HZ, as all
    distributions have it), so what was not idle is known to the resolution of /proc/stat, one hundredth of a second.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self.count = os.sysconf("SC_NPROCESSORS_ONLN")
        self._stat = SensorFile(f"{proc}/stat", 256)

    def busy_s(self) -> float:
        """Seconds neither idle nor stolen, from an arbitrary beginning on; OSError or ValueError if they cannot be
        read.
        """
        before = time.monotonic()
        words = self._stat.raw().split(None, 9)
        now = (before + time.monotonic()) / 2
        idle, wait, steal = int(words[4]), int(words[5]), int(words[8])
        return self.count * now - (idle + wait + steal) * TICK_S


class Threads:
    """How long a tree's threads ran, and how long they waited for a processor to run on.

    /proc/PID/task/TID/schedstat, kept by CONFIG_SCHED_INFO: nanoseconds on a processor, nanoseconds runnable without
    one. A process's own schedstat is its main thread's alone, so every thread is asked. What a thread did after the
    last look at it is lost with it.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}
        self._ended = (0, 0)

    def read(self, pids: Iterable[int]) -> tuple[float, float] | None:
        """Seconds run and seconds waited, both never falling; None where the kernel does not keep them."""
        now: dict[tuple[int, int], tuple[int, int]] = {}
        for pid in pids:
            folder = f"{self._proc}/{pid}/task"
            try:
                threads = os.listdir(folder)  # noqa: PTH208 (every second, for hundreds of threads)
            except OSError:
                continue
            for thread in threads:
                try:
                    ran, waited, *_ = peek(f"{folder}/{thread}/schedstat", 96).split()
                except (OSError, ValueError):
                    continue  # it ended, or the kernel has no such file
                now[pid, int(thread)] = int(ran), int(waited)
        for key, last in self._seen.items():
            # A thread that is gone, or whose number went to another one.
            if key not in now or now[key][0] < last[0]:
                self._ended = self._ended[0] + last[0], self._ended[1] + last[1]
        self._seen = now
        run_ns = self._ended[0] + sum(one[0] for one in now.values())
        wait_ns = self._ended[1] + sum(one[1] for one in now.values())
        # A kernel without the accounting shows zeros, and no process is alive without ever having run.
        return (run_ns / 1e9, wait_ns / 1e9) if run_ns else None
