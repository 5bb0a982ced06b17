"""The founding article's table, measured: what each trick does to the first request, and what it costs before it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analyse.claims import Finding, judged
from bench.analyse.run import Run
from bench.analyse.worth import against, by_variant

# First-request latency, ms, in the order in which the article adds its tricks, and the reduction that it states.
ARTICLE_FIRST_MS = (2800.0, 1800.0, 950.0, 450.0)
ARTICLE_REDUCTION = 0.839


def table(run: Run, baseline: str) -> pd.DataFrame:
    """One row per variant: the first request, the tail, memory, what it took to get there, and the reduction.

    first_ttft_ms and first_e2el_ms of the workload's first request; p99_ms of the steady TTFT, null with a `p99_reason`
    where there are too few requests; memory_mib at its peak; before_s from spawn to warm; extra_s of it over the
    baseline; cold_ttft_s; reduction of first_ttft_ms against the baseline, as a share; state as verified.
    """
    rows = by_variant(run)
    if baseline not in rows:
        return pd.DataFrame()
    base = rows[baseline]
    tails = {str(row["variant"]): row for row in run.summary().to_dict("records") if row["metric"] == "ttft.p99"}
    out = []
    for variant, row in rows.items():
        tail: dict[Any, Any] = tails.get(variant, {})
        before = _before(row)
        out.append(
            {
                "variant": variant,
                "launches": int(row["launches"]),
                "state": row["state"],
                "first_ttft_ms": row["first_ttft_ms"],
                "first_e2el_ms": row["first_e2el_ms"],
                "p99_ms": tail.get("value"),
                "p99_reason": tail.get("reason"),
                "memory_mib": row["memory_mib"],
                "before_s": before,
                "extra_s": before - _before(base),
                "cold_ttft_s": row["cold_ttft_s"],
                "reduction": 1 - row["first_ttft_ms"] / base["first_ttft_ms"],
            }
        )
    return pd.DataFrame(out)


def findings(run: Run, baseline: str) -> tuple[Finding, ...]:
    """The article's steps, each against the baseline on this machine; empty for a run that has not tried them all.

    A step is a variant that does this one thing to the baseline; `all` does everything. Intervals are of the ratio of
    first requests, paired by block, 95 %.
    """
    steps = _steps(run)
    if set(steps) < {"kv", "compile", "stages", "all"} or baseline not in run.variants:
        return ()
    start, kv, compiled, stages = ARTICLE_FIRST_MS
    compared = {str(row["variant"]): row for row in against(run, baseline).to_dict("records")}
    claims = (
        (f"KV preallocation shortens the first request by {1 - kv / start:.0%}", "kv", kv / start),
        (f"compiling shortens it by {1 - compiled / kv:.0%}", "compile", compiled / kv),
        (f"multi-stage warm-up shortens it by {1 - stages / compiled:.0%}", "stages", stages / compiled),
        (f"all of them shorten it by {ARTICLE_REDUCTION:.1%}", "all", 1 - ARTICLE_REDUCTION),
    )
    found = [_judged(claim, compared.get(steps[step]), "first_ratio", limit) for claim, step, limit in claims]
    sooner = "after all of them the first token also comes sooner, counted from the engine's start"
    return (*found, _judged(sooner, compared.get(steps["all"]), "cold_ratio", 1.0))


def _steps(run: Run) -> dict[str, str]:
    """Which variant takes which of the article's steps."""
    found: dict[str, str] = {}
    for variant in run.manifest.variants:
        done = {step["strategy"] for step in variant.get("warmup", ())}
        compiled = bool((variant.get("engine", {}).get("args") or {}).get("compile"))
        if {"kv-preallocate", "multi-stage"} <= done and compiled:
            found["all"] = variant["id"]
        elif done == {"none"} and compiled:
            found["compile"] = variant["id"]
        elif done == {"kv-preallocate"} and not compiled:
            found["kv"] = variant["id"]
        elif done == {"multi-stage"} and not compiled:
            found["stages"] = variant["id"]
    return found


def _judged(claim: str, row: dict[Any, Any] | None, figure: str, limit: float) -> Finding:
    value, low, high = (row[f"{figure}{end}"] if row else None for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return Finding(claim, "not shown", "too few launches as asked")
    first, lowest, highest = (f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}" for ratio in (value, low, high))
    seen = f"{first} times the baseline's, between {lowest} and {highest}"
    return judged(claim, seen, low, high, limit, less=True)


def _before(row: dict[Any, Any]) -> float:
    """Seconds from spawn to the end of the warm-up."""
    warmup = row["warmup_s"]
    return float(row["startup_s"]) + (0.0 if pd.isna(warmup) else float(warmup))
