"""Rules about the load itself: its opening wave, two populations of TTFT, and first tokens that were let go together.

They warn and never make a launch invalid: what they find is how the server behaved, and every figure has it inside.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.analyse import waves
from bench.judge.evidence import Evidence, Rule, Said

# An opening wave this many times as slow as what follows, or as fast, moves the tails.
OPENING = 1.25
# Populations whose prompts, or whose uncached parts, differ by this much are explained by it.
EXPLAINED = 1.5


def opening_wave(e: Evidence) -> Said | None:
    """Every stream's first request left at once, into an engine that had drained."""
    arrivals = e.workload.get("arrivals")
    if not isinstance(arrivals, dict) or (arrivals.get("closed") or 1) < 2:
        return None
    seen = waves.opening(e.steady.to_pandas())
    if seen is None:
        return "unknown", "no request was answered after each stream's first"
    words = (
        f"TTFT p50 {seen.ttft_ms:.1f} ms in the first {seen.requests}, {seen.later_ms:.1f} ms in the {seen.later} later"
    )
    ratio = seen.ttft_ms / seen.later_ms if seen.later_ms > 0 else 1.0
    return ("ok" if 1 / OPENING < ratio < OPENING else "warning"), words


def one_population(e: Evidence) -> Said | None:
    """TTFT has two peaks: a median stands for one of them, and a mean for neither."""
    table = e.steady.to_pandas()
    found = waves.modes(table)
    if found is None:
        return None if len(waves.answered(table)) < 4 * waves.FEWEST else ("ok", "TTFT has one peak")
    words = (
        f"two populations: {found.fast} requests around {found.fast_ms:.1f} ms, {found.slow} around {found.slow_ms:.1f}"
    )
    if reason := _explained(waves.answered(table), found):
        return "ok", f"{words}; {reason}"
    return "warning", words


def _explained(seen: pd.DataFrame, found: waves.Modes) -> str | None:
    """Whether the slower ones simply had more to compute."""
    slow = seen["request_id"].isin(found.slow_ids)
    work = seen["prompt_tokens"].astype(float) - seen["cached_tokens"].astype(float).fillna(0.0)
    more, less = float(np.nanmedian(work[slow])), float(np.nanmedian(work[~slow]))
    if work.isna().any() or more < EXPLAINED * max(less, 1.0):
        return None
    return f"the slower ones had {more:.0f} uncached prompt tokens, the others {less:.0f}"


def released_together(e: Evidence) -> Said | None:
    """First tokens of requests that left apart came in the same millisecond: something held them and let them go."""
    table = e.steady.to_pandas()
    if len(waves.answered(table)) < 2 * waves.FEWEST:
        return None
    found = waves.released(table)
    if found is None:
        return "ok", "first tokens came together no more often than by chance"
    return "warning", (
        f"{found.requests} first tokens came in {found.groups} groups within 1 ms, up to {found.largest} at once, from "
        f"requests that left apart ({found.pairs} pairs, by chance at most {found.chance}); "
        f"their TTFT p50 is {found.ttft_ms:.1f} ms"
    )


LOAD_RULES = (
    Rule(
        "opening_wave",
        f"the first request of each stream within {OPENING} times the TTFT of later ones",
        "read the tails beside the opening wave, which the report shows apart; more requests, or an open load",
        opening_wave,
    ),
    Rule(
        "one_population",
        "TTFT has one peak, or what was to be computed explains two",
        "look at the distribution and not at one figure: a queue, a stall, or a cache that only some requests met",
        one_population,
    ),
    Rule(
        "released_together",
        f"first tokens within 1 ms as seldom as in all of {waves.DEALS} random deals",
        "something stalls the server and lets go of several at once: look at what it does at that time",
        released_together,
    ),
)
