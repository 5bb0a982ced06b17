"""The founding article's table, measured: what each trick does to the first request, and what it costs before it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analyse.coldstart import AS_ASKED, NOT_AS_ASKED
from bench.analyse.run import Run
from bench.analyse.worth import summary

# First-request latency, ms, in the order in which the article adds its tricks, and the reduction that it states.
ARTICLE_FIRST_MS = (2800.0, 1800.0, 950.0, 450.0)
ARTICLE_REDUCTION = 0.839


def table(run: Run, baseline: str) -> pd.DataFrame:
    """One row per variant: the first request, the tail, memory, what it took to get there, and the reduction.

    first_ttft_ms and first_e2el_ms of the workload's first request; p99_ms of the steady TTFT, null with a `p99_reason`
    where there are too few requests; memory_mib at its peak; before_s from spawn to warm; extra_s of it over the
    baseline; cold_ttft_s; reduction of first_ttft_ms against the baseline, as a share; state as verified.
    """
    rows = _per_variant(run)
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


def _per_variant(run: Run) -> dict[str, dict[Any, Any]]:
    """The summary's row of each variant: launches as asked where there are any."""
    rows: dict[str, dict[Any, Any]] = {}
    rank = {AS_ASKED: 0, NOT_AS_ASKED: 2}
    known = summary(run).to_dict("records")
    for row in sorted(known, key=lambda row: rank.get(row["state"], 1)):
        rows.setdefault(str(row["variant"]), row)
    return {variant: rows[variant] for variant in run.variants if variant in rows}


def _before(row: dict[Any, Any]) -> float:
    """Seconds from spawn to the end of the warm-up."""
    warmup = row["warmup_s"]
    return float(row["startup_s"]) + (0.0 if pd.isna(warmup) else float(warmup))
