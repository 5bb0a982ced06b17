"""The six figures of one endpoint, from its canaries and, where its processes are on this machine, from those."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from bench.engines.ports import owner
from bench.probes.tree import Task, Tree
from bench.run.front import PROGRAM
from bench.service.canary import Outcome
from bench.service.states import FIGURES
from bench.service.watchlist import Stream

LOCAL = ("127.0.0.1", "localhost", "::1")
# Canaries that availability is taken from and over at most, and that quantiles are taken over.
AVAILABLE_FROM, AVAILABLE_OVER, WINDOW = 5, 20, 100
# Looking for who listens takes a scan of all processes: at most so often.
_LOOK_S = 60.0
QUANTILES = (0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Vital:
    """A figure's value in its limit's unit; None with a reason where there is none."""

    value: float | None = None
    reason: str | None = None


@dataclass(slots=True)
class Vitals:
    """What is known of an endpoint now."""

    streams: Sequence[Stream]
    now: dict[str, Vital] = field(default_factory=dict)
    answered: deque[bool] = field(default_factory=lambda: deque(maxlen=AVAILABLE_OVER))
    recent: dict[Stream, deque[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = {figure: Vital(reason="no canary was answered yet") for figure in FIGURES}
        for figure, stream in (("latency", "warm"), ("throughput", "warm"), ("first_after_idle", "idle")):
            if stream not in self.streams:
                self.now[figure] = Vital(reason=f"the stream {stream} is not asked")

    def take(self, outcome: Outcome) -> dict[str, float | None]:
        """Take a canary in; the figures that it has something to say of."""
        self.answered.append(outcome.ok)
        enough = len(self.answered) >= AVAILABLE_FROM
        said: dict[str, float | None] = {"availability": sum(self.answered) / len(self.answered) if enough else None}
        if outcome.ttft_ms is not None:
            self.recent.setdefault(outcome.stream, deque(maxlen=WINDOW)).append(outcome.ttft_ms)
        if outcome.stream == "idle":
            said["first_after_idle"] = outcome.ttft_ms
        if outcome.stream == "warm":
            said["latency"] = outcome.ttft_ms
            said["throughput"] = None if (tpot := outcome.tpot_ms) is None else 1000.0 / tpot
        for figure, value in said.items():
            self.now[figure] = Vital(value, None if value is not None else self._why(figure, outcome))
        return said

    def machine(self, memory_mib: float | None, cores: float | None, reason: str | None) -> None:
        """Take in what the engine's processes hold and use."""
        self.now["memory"] = Vital(memory_mib, None if memory_mib is not None else reason)
        self.now["processor"] = Vital(cores, None if cores is not None else reason or "it takes two readings")

    def quantile(self, stream: Stream, share: float) -> float | None:
        """Of the last canaries of a stream, the smallest first token that this share did not exceed, ms."""
        values = sorted(self.recent.get(stream, ()))
        return values[math.ceil(share * len(values)) - 1] if values else None

    def _why(self, figure: str, outcome: Outcome) -> str:
        if figure == "availability":
            return f"fewer than {AVAILABLE_FROM} canaries"
        if not outcome.ok:
            return f"the last canary failed ({outcome.result})"
        return "the server does not say how many tokens it made" if figure == "throughput" else "no stamp"


class EngineProcesses:
    """Memory and processor use of whoever listens on a local port, with all that came from it."""

    def __init__(self, host: str, port: int, wanted: bool = True) -> None:
        self._port = port
        self._why = None if wanted and host in LOCAL else "not to be seen from outside"
        if not wanted:
            self._why = "`process: false`"
        self._tree: Tree | None = None
        self._looked = -math.inf
        self._before: tuple[float, float] | None = None

    def read(self) -> tuple[float | None, float | None, str | None]:
        """MiB resident, processors busy since the reading before, and why there is none."""
        if self._why is not None:
            return None, None, self._why
        now = monotonic()
        if self._tree is None or not self._tree.scan():
            self._tree, self._before = None, None
            if now - self._looked < _LOOK_S:
                return None, None, "nobody was seen listening"
            self._looked = now
            pid = owner(self._port)
            if pid is None:
                return None, None, "who listens there may not be looked into, or nobody does"
            self._tree = Tree(roots=(_serving(pid),))
            if not self._tree.scan():
                return None, None, "its process ended"
        memory = sum(task.rss_mib for task in self._tree.members.values())
        spent, before = self._tree.cpu_s, self._before
        self._before = (now, spent)
        cores = (spent - before[1]) / (now - before[0]) if before and now > before[0] else None
        return memory, cores, None


def _serving(pid: int) -> int:
    """Whose tree the server is: the listener's, or, where that only passes on for `bench serve`, that command's own."""
    try:
        passes_on = PROGRAM.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return pid
    listener = Task.read("/proc", pid) if passes_on else None
    return listener.parent if listener else pid
