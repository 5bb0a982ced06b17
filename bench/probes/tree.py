"""A process and all that came from it, followed through /proc.

Children that re-parent are kept: membership is decided once, by parent, process group or session, and lasts until the
process is gone. Each scan looks only at processes it has not met, so it stays cheap on a busy machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from bench.probes.roots import peek

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Task:
    """One process as /proc/PID/stat gives it; times in seconds, own and with reaped children's."""

    pid: int
    parent: int
    group: int
    session: int
    cpu_s: float
    children_cpu_s: float
    major_faults: int
    threads: int
    start: int
    rss_mib: float
    stopped: bool = False

    @classmethod
    def read(cls, proc: str, pid: int) -> Task | None:
        """The process, or None if it is gone."""
        try:
            data = peek(f"{proc}/{pid}/stat", 1024)
        except OSError:
            return None
        # The name may hold blanks and parentheses: fields are counted from the last ')'.
        part = data[data.rfind(b")") + 2 :].split()
        if len(part) < 22 or part[0] in (b"Z", b"X"):
            return None
        return cls(
            pid=pid,
            parent=int(part[1]),
            group=int(part[2]),
            session=int(part[3]),
            cpu_s=(int(part[11]) + int(part[12])) * TICK_S,
            children_cpu_s=(int(part[13]) + int(part[14])) * TICK_S,
            major_faults=int(part[9]),
            threads=int(part[17]),
            start=int(part[19]),
            rss_mib=int(part[21]) * PAGE / 2**20,
            stopped=part[0] == b"T",
        )


def processes(proc: str) -> set[int]:
    """Every process there is; none where that cannot be read."""
    try:
        # os.listdir takes a quarter of Path.iterdir's time, and this runs every second.
        return {int(name) for name in os.listdir(proc) if name.isdigit()}  # noqa: PTH208
    except OSError:
        return set()


class Tree:
    """The living members of a tree, and what its dead ones used.

    `apart` are pids whose own trees are left out (an engine inside the harness's tree, the sampler). `reaped` counts
    the time of children that ended between two scans; for the harness it must be off, or every earlier engine would be
    charged to it.
    """

    def __init__(
        self, proc: str = "/proc", roots: tuple[int, ...] = (), *, apart: tuple[int, ...] = (), reaped: bool = True
    ) -> None:
        self.proc = proc
        self.roots = roots
        self.apart = apart
        self.reaped = reaped
        self.members: dict[int, Task] = {}
        self._strangers: set[int] = set()
        self._dead_cpu_s = 0.0
        self._dead_faults = 0
        self._cpu_s = 0.0

    def scan(self, present: set[int] | None = None) -> dict[int, Task]:
        """Bring the members up to date; `present` are all processes there are, where somebody has just looked."""
        if not self.roots:
            return self.members
        for pid, known in list(self.members.items()):
            task = Task.read(self.proc, pid)
            if task is not None and task.start == known.start:
                self.members[pid] = task
            else:
                self._bury(self.members.pop(pid))
        if present is None:
            present = processes(self.proc)
        self._strangers &= present
        unknown = present - self._strangers - self.members.keys()
        fresh = {pid: task for pid in unknown if (task := Task.read(self.proc, pid))}
        while joined := [pid for pid, task in fresh.items() if self._belongs(task)]:
            for pid in joined:
                self.members[pid] = fresh.pop(pid)
        self._strangers |= fresh.keys()
        return self.members

    def _belongs(self, task: Task) -> bool:
        own = (task.pid, task.group, task.session)
        if any(number in self.apart for number in own):
            return False
        # A root that leads a session or group of its own takes in what has re-parented out of its tree.
        return task.parent in self.members or any(number in self.roots for number in own)

    def _bury(self, task: Task) -> None:
        self._dead_faults += task.major_faults
        if not self.reaped:
            self._dead_cpu_s += task.cpu_s
        elif task.parent not in self.members:
            # Otherwise its parent has waited for it and carries its time.
            self._dead_cpu_s += task.cpu_s + task.children_cpu_s

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the tree, never falling."""
        alive = sum(task.cpu_s + task.children_cpu_s * self.reaped for task in self.members.values())
        self._cpu_s = max(self._cpu_s, alive + self._dead_cpu_s)
        return self._cpu_s

    @property
    def major_faults(self) -> int:
        """Page faults that had to wait for a disk."""
        return self._dead_faults + sum(task.major_faults for task in self.members.values())
