"""GuideLLM's benchmarks.json. Its inter-token latency is (E2EL − TTFT)/(N − 1), our TPOT; its TPOT our NTPOT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.formats.figures import Row, rate, times

TIMES = {
    "time_to_first_token_ms": ("ttft", 1.0),
    "time_to_first_output_token_ms": ("ttfot", 1.0),
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


def read(document: Mapping[str, Any]) -> list[Row]:
    """Every benchmark in the file, numbered in `benchmark`; successful requests only."""
    return [
        {"benchmark": number, **row}
        for number, one in enumerate(document["benchmarks"])
        for row in _rows(f"benchmarks[{number}].metrics", one["metrics"])
    ]


def _rows(where: str, metrics: Mapping[str, Any]) -> Iterator[Row]:
    for theirs, (ours, scale) in TIMES.items():
        found = _successful(metrics, theirs)
        percentiles = found.get("percentiles") or {}
        values = {"mean": found.get("mean"), "p50": percentiles.get("p50", found.get("median"))}
        values |= {name: percentiles.get(name) for name in ("p90", "p95", "p99")}
        yield from times(ours, {name: (f"{where}.{theirs} {name}", value) for name, value in values.items()}, scale)
    for theirs, ours in RATES.items():
        yield from rate(ours, _successful(metrics, theirs).get("mean"), f"{where}.{theirs} mean")


def _successful(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The distribution over successful requests; empty where there was none of them."""
    found = (metrics.get(name) or {}).get("successful") or {}
    return {} if found.get("count") == 0 else found
