"""What else ran on the processors of a launch: how much, when it was worst, and how long the engine waited for it.

    foreign(t)    = machine busy − engine − harness − sampler, of readings taken of all of them at one time
    share         = growth of foreign over the window / (processors × window)
    contention    = Σ min(wait, foreign) / Σ (run + wait), interval by interval

`wait` is what the engine's threads spent runnable without a processor, `run` what they spent on one. An engine with
more threads than processors makes its own threads wait; a neighbour cannot have caused more of that than the time it
had itself, which is why each interval's wait is bounded by the foreign time in it. Contention is so an upper bound of
what neighbours did to an engine that is in its own way, and zero without neighbours, however many threads it has.

Each figure has bounds. Counters of processes tick in hundredths of a second (proc_pid_stat(5)), accounts of one reading
lie a little apart, and of a reading's interval that lies only partly in the window nobody knows which part was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bench.analyse.series import Samples, Series

Values = npt.NDArray[np.float64]

TICK_S = 0.01
# A counter cut to ticks is off by an evenly spread part of one, a difference by ± 0.41 ticks (1 sd). Idle, I/O wait and
# steal, and user and system time of each process: twice the root of their sum.
MACHINE_COUNTERS, PROCESS_COUNTERS, HARNESS_PROCESSES = 3, 2, 3
# Shorter intervals say more about ticks than about neighbours: they are joined.
SHORTEST_S = 0.5


@dataclass(frozen=True, slots=True)
class Share:
    """A share and the bounds that enclose it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """For example 12.3 % ± 0.8."""
        off = max(self.high - self.value, self.value - self.low)
        return f"{self.value:.1%}" + (f" ± {100 * off:.1f}" if off >= 0.0005 else "")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What was found. `worst` is the share in the worst interval, which began `worst_at_s` after the window's start.

    `contention` and `worst_contention` are None where the kernel does not say how long threads waited. `lost_s` is the
    wait charged to neighbours per second of the window, `crowded` the part of the window with `worst_contention` above
    a limit that the caller names.
    """

    share: Share
    worst: Share
    worst_at_s: float
    contention: Share | None
    intervals: tuple[tuple[float, Share], ...]
    lost_s: float | None

    def crowded(self, limit: float) -> float:
        """The part of the window in which contention was surely above this."""
        return sum(part for part, share in self.intervals if share.low > limit)


@dataclass(frozen=True, slots=True)
class _Accounts:
    """Readings of all accounts at the same times; seconds, and `slack` what each reading may be off."""

    at: Values
    foreign: Values
    slack: Values
    processors: float
    run: Values | None
    wait: Values | None


def neighbours(samples: Samples, start_ns: int, end_ns: int) -> Neighbours | str:
    """Everybody else's part in a window; in words why it cannot be known."""
    found = _accounts(samples, start_ns)
    if isinstance(found, str):
        return found
    length = (end_ns - start_ns) / 1e9
    if length <= 0:
        return "the window has no length"
    edges = _joined(found.at, length)
    if len(edges) < 2:
        return "no two readings of the processors' time lie around the window"
    at = found.at[edges]
    spent, slack = np.diff(found.foreign[edges]), found.slack[edges][1:] + found.slack[edges][:-1]
    slack = slack + _ticks(samples)
    inside = np.clip(np.minimum(at[1:], length) - np.maximum(at[:-1], 0.0), 0.0, None)
    whole = np.diff(at)
    part = inside / whole
    room = found.processors * inside
    value = np.clip(spent, 0.0, None) * part
    # All that was used may have been used outside the window, as far as there was room outside; or inside it.
    low = np.clip(np.maximum(spent - slack, 0.0) - found.processors * (whole - inside), 0.0, room)
    high = np.clip(spent + slack, 0.0, room)
    value = np.clip(value, low, high)
    uncovered = max(0.0, length - float(inside.sum()))
    capacity = found.processors * length
    seen = found.processors * float(inside.sum())
    # One window's ticks are cut at its two ends, however many readings lie between: inner errors cancel.
    total = float(np.clip((spent * part).sum(), 0.0, None))
    cut = float(slack[0] + slack[-1]) / 2
    inner = part >= 1.0
    sure = float(spent[inner].sum())
    least = max(0.0, sure + float(low[~inner].sum()) - (cut if inner.any() else 0.0)) / capacity
    most = min(1.0, (max(0.0, sure) + float(high[~inner].sum()) + cut + found.processors * uncovered) / capacity)
    best = min(1.0, max(total / seen, least))
    share = Share(best, least, max(most, best))
    shares = [Share(*(float(x) for x in row)) for row in np.column_stack((value, low, high)) / room[:, None]]
    worst = max(range(len(shares)), key=lambda i: (round(shares[i].low, 2), round(shares[i].value, 2), -i))
    contention: Share | None = None
    each: list[Share] = []
    lost: float | None = None
    if found.run is not None and found.wait is not None:
        ran, waited = np.diff(found.run[edges]), np.diff(found.wait[edges])
        contention, each = _contention(ran, waited, spent, slack, part)
        lost = float((np.minimum(waited, np.maximum(spent, 0.0)) * part).sum()) / length
    parts = tuple((float(i) / length, one) for i, one in zip(inside, each, strict=bool(each)))
    return Neighbours(share, shares[worst], float(max(0.0, at[worst])), contention, parts, lost)


def _contention(
    ran: Values, waited: Values, spent: Values, slack: Values, part: Values
) -> tuple[Share | None, list[Share]]:
    """The wait that neighbours can have caused, as a share of the time that threads wanted: in all, and by interval.

    Bounds come from the foreign time's; the wait itself is kept in nanoseconds.
    """
    wanted = ran + waited
    charged = [np.minimum(waited, np.clip(spent + off, 0.0, None)) for off in (0.0, -slack, slack)]
    demand = float((wanted * part).sum())
    if demand <= 0:
        return None, []
    whole = Share(*(float((one * part).sum()) / demand for one in charged))
    each = [
        Share(*(float(one[i] / wanted[i]) for one in charged)) if wanted[i] > 0 else Share(0.0, 0.0, 0.0)
        for i in range(len(wanted))
    ]
    return whole, each


def _accounts(samples: Samples, start_ns: int) -> _Accounts | str:
    """Foreign time at every reading that has all its parts."""
    engine, harness = samples.of("tree", "cpu_s"), samples.of("tree", "harness_cpu_s")
    if not len(engine):
        return "processor time of the engine was not recorded"
    machine = samples.of("tree", "machine_busy_s")
    known = [series for series in (machine, harness) if len(series)]
    stamps = engine.t_ns
    for series in known:
        stamps = np.intersect1d(stamps, series.t_ns)
    if len(stamps) < 2:
        return "processor time was read less than twice while the engine ran"
    if len(machine):
        busy, processors = _at(machine, stamps), float(samples.of("tree", "machine_processors").value.max())
        slack = _at(samples.of("tree", "account_skew_s"), stamps) * processors / 2
        own = _at(samples.of("tree", "sampler_cpu_s"), stamps)
    else:
        # A record of an earlier version: two probes, each with its own clock.
        names = ("cpu_busy_s", "cpu_idle_s", "cpu_iowait_s", "cpu_steal_s")
        host = [samples.of("host", name) for name in names]
        if any(len(one) < 2 for one in host):
            return "the machine's processor time was not recorded"
        rates = [rate for one in host if (rate := one.rate()) is not None]
        processors = float(max(1, round(sum(rates))))
        busy = _at(host[0], stamps)
        slack = np.full(len(stamps), processors * float(np.diff(host[0].t_ns).max()) / 1e9 / 2)
        sampler = samples.of("sampler", "cpu_s")
        own = _at(sampler, stamps) if len(sampler) else np.zeros(len(stamps))
    foreign = busy - _at(engine, stamps) - own - (_at(harness, stamps) if len(harness) else 0.0)
    run, wait = samples.of("tree", "run_s"), samples.of("tree", "wait_s")
    told = len(run) > 1 and len(wait) > 1
    return _Accounts(
        (stamps - start_ns) / 1e9,
        foreign,
        slack,
        processors,
        _at(run, stamps) if told else None,
        _at(wait, stamps) if told else None,
    )


def _at(series: Series, stamps: npt.NDArray[np.int64]) -> Values:
    return np.asarray(np.interp(stamps, series.t_ns, series.value), dtype=np.float64)


def _ticks(samples: Samples) -> float:
    """What ticks leave open of a difference of accounts, s."""
    processes = samples.of("tree", "processes").value
    members = float(processes.max()) if len(processes) else 1.0
    counters = MACHINE_COUNTERS + PROCESS_COUNTERS * (members + HARNESS_PROCESSES)
    return float(2 * TICK_S * np.sqrt(counters / 6))


def _joined(at: Values, length: float) -> list[int]:
    """The readings that bound the intervals over the window: those inside and the nearest on each side, thinned out."""
    first = max(0, int(np.searchsorted(at, 0.0, side="right")) - 1)
    last = min(len(at) - 1, int(np.searchsorted(at, length, side="left")))
    if last <= first:
        return []
    edges = [first]
    for index in range(first + 1, last):
        if at[index] - at[edges[-1]] >= SHORTEST_S and at[last] - at[index] >= SHORTEST_S:
            edges.append(index)
    return [*edges, last]
