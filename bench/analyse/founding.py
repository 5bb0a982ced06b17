"""The founding article's table, measured: what each trick does to the first request, and what it costs before it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analyse.run import Run
from bench.analyse.worth import by_variant


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


def _before(row: dict[Any, Any]) -> float:
    """Seconds from spawn to the end of the warm-up."""
    warmup = row["warmup_s"]
    return float(row["startup_s"]) + (0.0 if pd.isna(warmup) else float(warmup))
