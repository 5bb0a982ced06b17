"""The summary of a run: per variant and metric a value, its interval, and what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.analyse.estimate import Estimate, finite, median_of_launches, needed, quantile
from bench.analyse.metrics import FAMILIES, METRICS, STATISTICS, Metric, Values
from bench.analyse.metrics import metric as named
from bench.analyse.pace import Gaps

COLUMNS = (
    "variant",
    "metric",
    "title",
    "unit",
    "value",
    "low",
    "high",
    "interval",
    "n",
    "launches",
    "launch_min",
    "launch_max",
    "reason",
)


# What needs the server's count of tokens.
COUNTED = ("ntpot", "tokens_per_chunk", "output_throughput", "total_throughput", "cached_tokens", "energy.per_token")


def summarise(
    variants: Sequence[str],
    per_launch: pd.DataFrame,
    pooled: Mapping[str, Mapping[str, Values]],
    gaps: Mapping[str, Gaps],
) -> pd.DataFrame:
    """Request quantiles are taken over the pooled requests of a variant's valid launches, with order-statistic 95 %
    intervals; `launch_min` and `launch_max` say how far the launches themselves lie apart. Metrics with one value per
    launch are medians over launches. The unit of replication is the launch: compare variants with `bench compare`."""
    rows = [
        row for variant in variants for row in _variant(variant, per_launch, pooled.get(variant, {}), gaps.get(variant))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _variant(
    variant: str, per_launch: pd.DataFrame, pooled: Mapping[str, Values], gaps: Gaps | None
) -> Iterator[dict[str, Any]]:
    valid = per_launch[(per_launch["variant"] == variant) & (per_launch["status"] == "ok")]
    by_length = (named(f"{family}.{name}") for family in pooled if family not in FAMILIES for name in STATISTICS)
    for metric in (*METRICS.values(), *by_length):
        by_launch = finite(valid[metric.id].to_numpy(dtype=float)) if metric.id in valid else np.empty(0)
        estimate, interval = _estimate(metric, pooled.get(metric.family, np.empty(0)), by_launch)
        yield {
            "variant": variant,
            "metric": metric.id,
            "title": metric.title,
            "unit": metric.unit,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "interval": interval,
            "n": estimate.n,
            "launches": len(valid),
            "launch_min": float(by_launch.min()) if len(by_launch) else None,
            "launch_max": float(by_launch.max()) if len(by_launch) else None,
            "reason": (estimate.n == 0 and gaps and _untold(metric, gaps)) or estimate.reason
            if len(valid)
            else "no valid launch",
        }


def _untold(metric: Metric, gaps: Gaps) -> str | None:
    """Why there is no value, where the answers themselves are why."""
    if metric.family == "tpot":
        return gaps.unpaced
    return gaps.uncounted if metric.family in COUNTED else None


def _estimate(metric: Metric, pool: Values, by_launch: Values) -> tuple[Estimate, str | None]:
    if metric.kind == "quantile" and metric.q is not None:
        estimate = quantile(pool, metric.q)
        return estimate, None if estimate.low is None else "order-statistic 95 %"
    if metric.kind == "quantile":
        mean = float(pool.mean()) if len(pool) else None
        return Estimate(mean, None, None, len(pool), None if len(pool) else "no values"), None
    estimate = median_of_launches(by_launch)
    return estimate, "order-statistic 95 %" if len(by_launch) >= needed(0.5) else (
        "range" if len(by_launch) > 1 else None
    )
