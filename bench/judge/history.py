"""Lasting changes over stored sessions: where a series of sessions stepped to another level. Advice, never a verdict.

The series of log medians is cut where that explains it best: optimal partitioning with a squared-error cost and a
penalty per cut (Jackson et al. 2005), no piece shorter than three sessions, so that a single bad day is never a change.
A cut is told only if Welch's t test between its two neighbours holds at p < 0.001 and the step is at least `least`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

from bench.analyse.metrics import change, comparable, metric
from bench.analyse.run import Run
from bench.errors import UsageError
from bench.judge import baseline
from bench.judge.comparable import values_of, variant_id
from bench.phrases import counted

SHORTEST = 3
P_LIMIT = 0.001
# Half the usual margin: smaller steps are not worth anybody's morning.
LEAST = 0.025
# Per cut, in units of the series' noise variance and the log of its length.
PENALTY = 5.0


@dataclass(frozen=True, slots=True)
class Shift:
    """A lasting step: `session` is the first on the new level, `ratio` new over old level."""

    session: str
    taken: str
    ratio: float
    p: float
    worse: bool

    def __str__(self) -> str:
        word = "worse" if self.worse else "better"
        return f"{self.ratio - 1:+.1%} ({word}) from {self.session} on, p = {self.p:.1g}"


@dataclass(frozen=True, slots=True)
class History:
    """One metric over sessions, in order of time, and where it stepped."""

    metric: str
    variant: str
    sessions: int
    changes: tuple[Shift, ...]

    def __str__(self) -> str:
        head = f"{self.variant} {self.metric}: {counted(self.sessions, 'session')}"
        if self.sessions < 2 * SHORTEST:
            return f"{head}; {2 * SHORTEST} are needed to see a change"
        if not self.changes:
            return f"{head}, no lasting change"
        return f"{head}: " + "; ".join(map(str, self.changes))


def of_file(path: Path, metrics: Sequence[str] | None = None) -> list[History]:
    """The history in a baseline file."""
    stored = baseline.load(path)
    names = [metric(name).id for name in metrics or stored.margins]
    return [
        series(
            name,
            stored.variant,
            [(one.run, one.taken, one.values[name]) for one in stored.sessions if name in one.values],
        )
        for name in names
    ]


def of_runs(folder: Path, variant: str | None = None, metrics: Sequence[str] | None = None) -> list[History]:
    """The history in a folder of runs, by the time they were made; every variant unless one is named."""
    runs = [Run.open(manifest.parent) for manifest in sorted(folder.glob("[!.]*/manifest.json"))]
    if not runs:
        raise UsageError(f"{folder} holds no runs", hint="name results/<scenario>, or a baseline file")
    runs.sort(key=lambda run: run.manifest.created or "")
    names = [variant_id(runs[-1], variant)] if variant else list(runs[-1].variants)
    wanted = [metric(name).id for name in metrics or baseline.DEFAULT_MARGINS]
    return [series(name, each, list(_sessions(runs, each, name))) for each in names for name in wanted]


def series(name: str, variant: str, sessions: Sequence[tuple[str, str, float]]) -> History:
    """Find the steps in (session, day, value) triples in order of time."""
    logs = comparable(metric(name), [value for _, _, value in sessions])
    worse = -1 if metric(name).direction == "higher" else 1
    changes = tuple(
        Shift(sessions[at][0], sessions[at][1], change(metric(name), step), p, worse * step > 0)
        for at, step, p in steps(logs)
    )
    return History(name, variant, len(sessions), changes)


def steps(logs: np.ndarray, least: float = LEAST) -> list[tuple[int, float, float]]:
    """(first index of the new level, step in logs, p) of every step that lasts, is large enough and significant."""
    bounds = [0, *segments(logs), len(logs)]
    found = []
    for start, cut, end in zip(bounds, bounds[1:], bounds[2:], strict=False):
        before, after = logs[start:cut], logs[cut:end]
        step = float(after.mean() - before.mean())
        p = _p_equal(before, after)
        if p < P_LIMIT and abs(step) >= math.log1p(least):
            found.append((cut, step, p))
    return found


def segments(logs: np.ndarray) -> list[int]:
    """Where optimal partitioning cuts the series: indices of the first session after each cut."""
    n = len(logs)
    if n < 2 * SHORTEST:
        return []
    # Noise from first differences: a few steps hardly bend their median.
    noise = 1.4826 * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2)
    penalty = PENALTY * max(noise, 1e-6) ** 2 * math.log(n)
    total, squares = np.concatenate([[0.0], logs.cumsum()]), np.concatenate([[0.0], (logs**2).cumsum()])
    best, last = np.full(n + 1, math.inf), np.zeros(n + 1, dtype=int)
    best[0] = -penalty
    for end in range(SHORTEST, n + 1):
        starts = np.arange(0, end - SHORTEST + 1)
        sums = total[end] - total[starts]
        cost = squares[end] - squares[starts] - sums**2 / (end - starts)
        scores = best[starts] + cost + penalty
        last[end] = int(starts[np.argmin(scores)])
        best[end] = float(scores.min())
    cuts = []
    end = n
    while end > 0 and last[end] > 0:
        end = int(last[end])
        cuts.append(end)
    return cuts[::-1]


def _sessions(runs: Sequence[Run], variant: str, name: str) -> Iterator[tuple[str, str, float]]:
    for run in runs:
        launches = run.per_launch
        values = list(values_of(launches[launches["variant"] == variant], name).values()) if len(launches) else []
        if values and min(values) > 0:
            yield (
                run.manifest.run_id,
                (run.manifest.finished or run.manifest.created or "")[:10],
                float(np.median(values)),
            )


def _p_equal(before: np.ndarray, after: np.ndarray) -> float:
    """Two-sided p of Welch's t test: one spike gives its piece a large variance, and stays quiet."""
    errors = before.var(ddof=1) / len(before), after.var(ddof=1) / len(after)
    if sum(errors) < 1e-24:
        return 0.0
    df = sum(errors) ** 2 / (errors[0] ** 2 / (len(before) - 1) + errors[1] ** 2 / (len(after) - 1))
    return float(2 * special.stdtr(df, -abs(after.mean() - before.mean()) / math.sqrt(sum(errors))))
