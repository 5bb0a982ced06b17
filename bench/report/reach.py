"""What the founding article says about reaching a server, beside what was measured: page, name, health check.

A claim applies where a run holds both sides of it: the chat page by polling and by a WebSocket, a server by its name
and by its number, an engine whose first completion followed its health check with no warm-up between.
"""

from __future__ import annotations

import numpy as np

from bench.analyse.estimate import mean
from bench.analyse.run import Run
from bench.analyse.worth import launches
from bench.judge.added import CHAT, MEASURES, NUMBER, POLLING, STRAIGHT, between
from bench.phrases import counted
from bench.report.claims import Finding, judged
from bench.report.numbers import interval, number

FIRST = MEASURES[0]
# "A WebSocket instead of polling saves 300 ms."
SAVED_MS = 300.0
# The other two name no figure. These are ours: what could be noticed at all, and how much later than later ones the
# first answer of a server that is ready may begin.
NOTICED_MS, READY_RATIO = 1.0, 2.0
WEBSOCKET = f"a WebSocket instead of polling brings a page's first token {SAVED_MS:.0f} ms sooner"
NAME = f"without a name to look up (DNS) the first token comes sooner, by {NOTICED_MS:g} ms at least"
HEALTH = f"a health check that answers means ready: the first answer takes at most {READY_RATIO:g} times later ones"


def of_the_way(run: Run) -> tuple[Finding, ...]:
    """One finding for each claim that applies to a run."""
    socket = _sooner(run, WEBSOCKET, (POLLING, CHAT), SAVED_MS)
    return (*socket, *_sooner(run, NAME, (STRAIGHT, NUMBER), NOTICED_MS), *_health(run))


def _sooner(run: Run, claim: str, ways: tuple[str, str], limit_ms: float) -> tuple[Finding, ...]:
    """By how much the second way's first token comes before that of the first, block by block."""
    before, after = ways
    if not {before, after} <= set(run.variants):
        return ()
    seen = between(run, after, before, FIRST)
    if seen.interval is None:
        return (Finding(claim, "not shown", seen.reason),)
    low, high = seen.interval.low, seen.interval.high
    words = f"{number(seen.interval.estimate)} ms sooner ({interval(low, high)}), {counted(seen.blocks, 'block')}"
    if after == NUMBER:
        words += "; of kept connections, which look up nothing"
    return (judged(claim, words, (low, high), limit_ms, less=False),)


def _health(run: Run) -> tuple[Finding, ...]:
    """The first completion of new engines that were not warmed, against the steady ones of the same launch."""
    cold = [
        one.id for one in run.manifest.variants if one.start is None and [s.strategy for s in one.warmup] == ["none"]
    ]
    rows = launches(run)
    rows = rows[rows["variant"].isin(cold) & (rows["status"] == "ok")] if cold and not rows.empty else rows[:0]
    ratios = np.log((rows["first_ttft_ms"] / rows["ttft_ms"]).dropna().to_numpy(float)) if len(rows) else np.array([])
    if not len(ratios):
        return ()
    seen, told = mean(ratios).exp(), counted(len(ratios), "launch")
    if seen.low is None or seen.high is None:
        return (Finding(HEALTH, "not shown", f"{number(seen.value)} times later ones, {told}: no interval"),)
    words = f"{number(seen.value)} times later ones ({interval(seen.low, seen.high)}), {told} without a warm-up"
    return (judged(HEALTH, words, (seen.low, seen.high), READY_RATIO, less=True),)
