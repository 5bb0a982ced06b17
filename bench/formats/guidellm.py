"""GuideLLM's benchmarks.json. Its inter-token latency is (E2EL − TTFT)/(N − 1), our TPOT; its TPOT our NTPOT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TIMES = {
    "time_to_first_token_ms": ("ttft", 1.0),
    "inter_token_latency_ms": ("tpot", 1.0),
    "time_per_output_token_ms": ("ntpot", 1.0),
    "request_latency": ("e2el", 1000.0),
}
RATES = {
    "output_tokens_per_second": "output_throughput",
    "tokens_per_second": "total_throughput",
    "requests_per_second": "request_throughput",
}


def is_ours(document: Any) -> bool:
    """Whether a file is GuideLLM's."""
    benchmarks = document.get("benchmarks") if isinstance(document, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        return False
    return isinstance(benchmarks[0], dict) and "metrics" in benchmarks[0]


def read(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every benchmark in the file, numbered in `benchmark`; successful requests only."""
    return [row for number, one in enumerate(document["benchmarks"]) for row in _rows(number, one["metrics"])]


def _rows(number: int, metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for theirs, (ours, scale) in TIMES.items():
        found = (metrics.get(theirs) or {}).get("successful") or {}
        percentiles = found.get("percentiles") or {}
        values = {"mean": found.get("mean")} | {name: percentiles.get(name) for name in ("p50", "p90", "p95", "p99")}
        for statistic, value in values.items():
            if value is not None:
                yield {"benchmark": number, "metric": f"{ours}.{statistic}", "unit": "ms", "value": scale * value}
    for theirs, ours in RATES.items():
        value = ((metrics.get(theirs) or {}).get("successful") or {}).get("mean")
        if value is not None:
            yield {"benchmark": number, "metric": ours, "unit": "/s", "value": float(value)}
