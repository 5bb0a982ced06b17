"""When is a server ready, by what was measured of it: the limit that a run sets on one more warm first token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.analyse.run import Run
from bench.errors import RecordError, UnknownName
from bench.programs import ready_process
from bench.programs.ready_process import CHAT, COMPLETIONS

# How sure a healthy server shall be to pass at once. A gate that turns one request in a hundred away asks again.
LEVEL = 0.99
# The gate is a plain client, without the kernel's stamps: so much of what it reads may be its own.
CLIENT_MS = 2.0
# What the gate's own prompt has where a run does not say how long its prompts are.
WORDS = 12


@dataclass(frozen=True, slots=True)
class WarmLimit:
    """How late a warm first token may come, ms, how it is asked for, and the words that say where this is from."""

    within_ms: float
    evidence: str
    path: str | None = None
    words: int = WORDS


def of_run(run: Run, variant: str) -> WarmLimit:
    """The limit from a run's measured requests: an upper prediction bound for one more, and the client's allowance.

    Of n requests the j-th smallest bounds the next one with probability j / (n + 1), whatever the distribution; j is
    the smallest that reaches LEVEL, or n where none does, and the level that it then has is said. Of prompts of several
    lengths the shortest are taken. RecordError if nothing was measured, UnknownName for a variant that is not there.
    """
    if variant not in run.variants:
        raise UnknownName("variant", variant, run.variants)
    rows = run.requests
    valid = [launch.id for launch in run.all if launch.record.variant == variant and launch.record.status == "ok"]
    rows = rows[rows["launch"].isin(valid)]
    rows = rows[rows["measured"].astype(bool) & rows["ok"].astype(bool) & rows["ttft_ms"].notna()]
    if not len(rows):
        raise RecordError(
            f"{run.path} has no measured first token of {variant}", hint="give the limit itself: --within 200ms"
        )
    shortest = rows["bucket"].min() if rows["bucket"].notna().any() else None
    if shortest is not None:
        rows = rows[rows["bucket"] == shortest]
    bound, level = prediction_bound(rows["ttft_ms"].to_numpy(dtype=float))
    return WarmLimit(
        within_ms=bound + CLIENT_MS,
        path=CHAT if _chats(run) else COMPLETIONS,
        words=int(shortest) if shortest is not None else WORDS,
        evidence=(
            f"{bound:.1f} ms bounds one more warm request with {level:.0%}, by {len(rows)} of run "
            f"{run.manifest.run_id}, and {CLIENT_MS:g} ms are the gate's own"
        ),
    )


def prediction_bound(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """An upper bound for one more value like these, and the level that it really has."""
    ordered = np.sort(values)
    rank = min(math.ceil(level * (len(ordered) + 1)), len(ordered))
    return float(ordered[rank - 1]), rank / (len(ordered) + 1)


def check(
    target: ready_process.Target, limit: WarmLimit | None, timeout_s: float, **more: Any
) -> ready_process.Verdict:
    """Ask a server as the limit says; see `ready_process.gate`."""
    if limit is not None:
        target = ready_process.shaped(target, path=limit.path, words=limit.words)
    return ready_process.gate(target, limit.within_ms if limit else None, timeout_s, **more)


def _chats(run: Run) -> bool:
    """Whether the run asked through the chat endpoint."""
    prompts = (run.scenario.get("workload") or {}).get("prompts") or {}
    return bool(prompts.get("chat")) or prompts.get("kind") == "conversation"
