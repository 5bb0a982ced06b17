"""What the engine says of itself on /metrics: queue, prefill, decode, cache, and its own time to first token.

vLLM, FastDeploy, SGLang and llama.cpp give the same quantities under their own prefix; names have changed between vLLM
versions, so each field has its spellings, newest first. Histograms are kept as their sum and count: a difference of
both over any window gives that window's mean.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from importlib import import_module
from urllib.parse import urlsplit

from bench.probes.context import Context, nulls
from bench.probes.probe import Reading
from bench.record.launches import FieldInfo

PREFIXES = ("vllm:", "fastdeploy:", "sglang:", "llamacpp:")
LONGEST = 4 << 20

# field: unit, meaning, sample names without prefix
_FIELDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "running": ("1", "requests being served", ("num_requests_running", "num_running_reqs", "requests_processing")),
    "waiting": ("1", "requests in the queue", ("num_requests_waiting", "num_queue_reqs", "requests_deferred")),
    "kv_usage": (
        "1",
        "share of the KV cache in use",
        ("kv_cache_usage_perc", "gpu_cache_usage_perc", "cache_usage_perc", "token_usage"),
    ),
    "prefix_queries": (
        "tokens",
        "cumulative: prompt tokens looked up in the prefix cache",
        ("prefix_cache_queries_total", "prefix_cache_queries", "gpu_prefix_cache_queries_total"),
    ),
    "prefix_hits": (
        "tokens",
        "cumulative: prompt tokens found there",
        (
            "prefix_cache_hits_total",
            "prefix_cache_hits",
            "gpu_prefix_cache_hits_total",
            "prompt_tokens_cached_total",
        ),
    ),
    "preemptions": ("1", "cumulative: requests put back", ("num_preemptions_total",)),
    "prompt_tokens": ("tokens", "cumulative", ("prompt_tokens_total",)),
    "generation_tokens": ("tokens", "cumulative", ("generation_tokens_total", "tokens_predicted_total")),
    **{
        f"{name}_{part}": (unit, f"cumulative: {doc}", (f"{histogram}_{end}",))
        for name, histogram, doc in (
            ("ttft", "time_to_first_token_seconds", "the server's own time to first token, from arrival"),
            ("queue", "request_queue_time_seconds", "time in the queue"),
            ("prefill", "request_prefill_time_seconds", "time in prefill"),
            ("decode", "request_decode_time_seconds", "time in decode"),
            ("e2e", "e2e_request_latency_seconds", "whole requests"),
        )
        for part, unit, end in (("sum_s", "s", "sum"), ("count", "1", "count"))
    },
}
_SPELLINGS = {name: field for field, (_, _, names) in _FIELDS.items() for name in names}


def parse(page: str) -> dict[str, float]:
    """Fields found in a page of Prometheus text; several label sets of one metric are added up.

    Raises ValueError for a page that is not one.
    """
    from prometheus_client.parser import text_string_to_metric_families

    # The parser takes 20 µs a line, and a page has hundreds, most of them buckets: it is given those wanted here.
    sums = (line for line in page.splitlines() if "_bucket{" not in line and not line.startswith("#"))
    wanted = [line for line in sums if _name(line) in _SPELLINGS]
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families("\n".join(wanted) + "\n"):
        for sample in family.samples:
            by_name = found.setdefault(_SPELLINGS[_bare(sample.name)], {})
            by_name[sample.name] = by_name.get(sample.name, 0.0) + float(sample.value)
    newest = {field: next(iter(names)) for field, (_, _, names) in _FIELDS.items()}
    return {
        field: min(by_name.items(), key=lambda item: _bare(item[0]) != newest[field])[1]
        for field, by_name in found.items()
    }


def _bare(name: str) -> str:
    return next((name[len(prefix) :] for prefix in PREFIXES if name.startswith(prefix)), "")


def _name(line: str) -> str:
    return _bare(line.split("{", 1)[0].split(" ", 1)[0])


class EngineMetrics:
    """One page of metrics every other second: rendering it costs the engine time too."""

    name = "engine"
    alone = True
    period_s = 2.0
    timeout_s = 1.0

    def __init__(self, context: Context) -> None:
        # Imported here and not at the first page: the engine starts meanwhile, and this takes processor time from it.
        import_module("prometheus_client.parser")
        self._watched = context.watched
        self._connection: http.client.HTTPConnection | None = None
        self._address = ""
        self.fields = tuple(
            FieldInfo(self.name, field, unit, doc, "engine") for field, (unit, doc, _) in _FIELDS.items()
        )

    def read(self) -> Mapping[str, Reading]:
        """Every field; nothing at all while there is no address."""
        url = self._watched.metrics_url
        if not url:
            return {}
        try:
            page = self._page(url)
        except FileNotFoundError:
            return nulls(self.fields, "unsupported")  # an engine without metrics
        except (OSError, http.client.HTTPException):
            self.close()
            return nulls(self.fields, "not_found")
        try:
            values = parse(page)
        except ValueError:
            return nulls(self.fields, "parse_failed")
        return {
            info.field: Reading(values[info.field]) if info.field in values else Reading.null("unsupported")
            for info in self.fields
        }

    def _page(self, url: str) -> str:
        address = urlsplit(url)
        if self._connection is None or self._address != address.netloc:
            self.close()
            kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
            self._connection, self._address = kind(address.netloc, timeout=self.timeout_s), address.netloc
        self._connection.request("GET", address.path or "/metrics")
        response = self._connection.getresponse()
        body = response.read(LONGEST)
        if response.status != 200:
            raise FileNotFoundError(url)
        return body.decode(errors="replace")

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
