"""The result lines of `sglang.bench_serving`, which look like vLLM's and mean other things.

Its `ttft` is the first non-empty text, our TTFT. Its `itl` shares a chunk's gap among the tokens of the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.formats.figures import STATISTICS, Row, rate, times

READ_AS = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e_latency": "e2el"}
RATES = {
    "output_throughput": "output_throughput",
    "total_throughput": "total_throughput",
    "request_throughput": "request_throughput",
}
# Keys that no other tool of this descent writes.
MARKS = ("mean_e2e_latency_ms", "total_output_tokens_retokenized", "accept_length")


def is_ours(document: Any) -> bool:
    """Whether a document is such a result."""
    return isinstance(document, dict) and "completed" in document and any(mark in document for mark in MARKS)


def read(document: Mapping[str, Any]) -> list[Row]:
    """Its statistics, and its rates; nothing if no request was completed."""
    return list(_rows(document)) if document.get("completed") else []


def _rows(document: Mapping[str, Any]) -> Iterator[Row]:
    for theirs, ours in READ_AS.items():
        keys = {statistic: f"{statistic}_{theirs}_ms" for statistic in STATISTICS}
        if keys["p50"] not in document:
            keys["p50"] = f"median_{theirs}_ms"
        yield from times(ours, {statistic: (key, document.get(key)) for statistic, key in keys.items()})
    for theirs, ours in RATES.items():
        yield from rate(ours, document.get(theirs), theirs)
