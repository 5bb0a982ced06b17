"""AIPerf's profile_export_aiperf.json. Its inter-token latency is our TPOT; its inter-chunk latency is our ITL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.errors import RecordError
from bench.formats.figures import Row, rate, times

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
    if not isinstance(document, dict):
        return False
    # Without streaming there is no first token.
    return any(isinstance(_records(document).get(name), dict) for name in ("time_to_first_token", "request_latency"))


def read(document: Mapping[str, Any]) -> list[Row]:
    """Its statistics, and its rates; RecordError for a unit that is none of time."""
    return list(_rows(_records(document)))


def _records(document: Mapping[str, Any]) -> Mapping[str, Any]:
    records = document.get("records")
    return records if isinstance(records, dict) else document


def _rows(records: Mapping[str, Any]) -> Iterator[Row]:
    for theirs, ours in TIMES.items():
        found = records.get(theirs) or {}
        unit = str(found.get("unit", "ms"))
        if unit not in TO_MS:
            raise RecordError(f"{theirs} is in {unit!r}, which is no unit of time that we know")
        keys = {"mean": "avg", **{name: name for name in ("p50", "p90", "p95", "p99")}}
        yield from times(ours, {name: (f"{theirs} {key}", found.get(key)) for name, key in keys.items()}, TO_MS[unit])
    for theirs, ours in RATES.items():
        yield from rate(ours, (records.get(theirs) or {}).get("avg"), f"{theirs} avg")
