"""AIPerf's profile_export_aiperf.json. Its inter-token latency is our TPOT; its inter-chunk latency is our ITL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TIMES = {
    "time_to_first_token": "ttft",
    "time_to_first_output_token": "ttfot",
    "inter_token_latency": "tpot",
    "inter_chunk_latency": "itl",
    "request_latency": "e2el",
}
RATES = {
    "output_token_throughput": "output_throughput",
    "total_token_throughput": "total_throughput",
    "request_throughput": "request_throughput",
    "goodput": "goodput",
}
TO_MS = {"ms": 1.0, "s": 1000.0, "sec": 1000.0, "us": 1e-3, "ns": 1e-6}


def is_ours(document: Any) -> bool:
    """Whether a file is AIPerf's."""
    return isinstance(document, dict) and isinstance(_records(document).get("time_to_first_token"), dict)


def read(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its statistics, and its rates."""
    return list(_rows(_records(document)))


def _records(document: Mapping[str, Any]) -> Mapping[str, Any]:
    records = document.get("records")
    return records if isinstance(records, dict) else document


def _rows(records: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for theirs, ours in TIMES.items():
        found = records.get(theirs) or {}
        scale = TO_MS.get(str(found.get("unit", "ms")), 1.0)
        for statistic, key in (("mean", "avg"), ("p50", "p50"), ("p90", "p90"), ("p95", "p95"), ("p99", "p99")):
            if found.get(key) is not None:
                yield {"metric": f"{ours}.{statistic}", "unit": "ms", "value": scale * float(found[key])}
    for theirs, ours in RATES.items():
        value = (records.get(theirs) or {}).get("avg")
        if value is not None:
            yield {"metric": ours, "unit": "/s", "value": float(value)}
