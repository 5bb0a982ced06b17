"""What a monitor exposes, pushed to a collector by OpenTelemetry's protocol (OTLP over HTTP, protobuf).

The same series that Prometheus reads, under OpenTelemetry's names and units: `firsttoken_ttft_seconds` is
`firsttoken.ttft` in s, and the first chunk has the client-side name of the GenAI conventions. Sums and histograms are
cumulative from the monitor's start, so that a push that was lost is made up by the next one: none is sent again.

https://opentelemetry.io/docs/specs/otlp/ ; names of the GenAI semantic conventions, status Development.
"""

from __future__ import annotations

import asyncio
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otel
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from bench import __version__
from bench.errors import UsageError

CUMULATIVE = otel.AGGREGATION_TEMPORALITY_CUMULATIVE
PATIENCE_S, PERIOD_S = 5.0, 30.0
# A series' last words → the unit in UCUM's letters, as OpenTelemetry wants it. The longest that fits counts.
UNITS = {
    "_tokens_per_second": "{token}/s",
    "_timestamp_seconds": "s",
    "_seconds": "s",
    "_bytes": "By",
    "_ratio": "1",
    "_celsius": "Cel",
    "_watts": "W",
    "_tokens": "{token}",
    "_cores": "{cpu}",
}
# A registry, and attributes by endpoint for what has a name of the GenAI conventions.
Exposed = tuple[CollectorRegistry, Mapping[str, Mapping[str, str | int]]]
# Words that a name keeps: without them another one would have it.
KEPT = ("_tokens_per_second", "_timestamp_seconds", "_tokens", "_cores")
# All limits of one figure and level would come to one name, whatever their unit.
WHOLE = ("firsttoken_threshold_",)
GENAI = {"gen_ai_client_operation_time_to_first_chunk_seconds": "gen_ai.client.operation.time_to_first_chunk"}


def address(base: str) -> str:
    """Where metrics go, of a collector's base address; UsageError for what is none."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--otlp {base}: write the collector's address, for example http://127.0.0.1:4318")
    if parts.username or parts.password:
        raise UsageError("--otlp holds a password", hint="put a header into OTEL_EXPORTER_OTLP_HEADERS instead")
    return base.rstrip("/") + "/v1/metrics"


def headers(text: str) -> dict[str, str]:
    """`name=value,name=value` with percent escapes, as OTEL_EXPORTER_OTLP_HEADERS has them."""
    pairs = (one.partition("=") for one in text.split(",") if "=" in one)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def named(series: str) -> tuple[str, str]:
    """OpenTelemetry's name and unit of a series of ours."""
    end = next((end for end in UNITS if series.endswith(end)), "")
    if series in GENAI:
        return GENAI[series], UNITS[end]
    stem = series if end in KEPT or series.startswith(WHOLE) else series.removesuffix(end)
    return stem.replace("firsttoken_", "firsttoken.", 1), UNITS.get(end, "1")


def metrics(
    registry: CollectorRegistry, more: Mapping[str, Mapping[str, str | int]], began_ns: int, now_ns: int
) -> Iterator[otel.Metric]:
    """A registry's series; `more` are attributes by endpoint for those under GenAI names. Times are Unix ns."""
    for family in registry.collect():
        if not family.samples or not family.name.startswith(("firsttoken_", "gen_ai_")):
            continue
        name, unit = named(family.name)
        made = otel.Metric(name=name, unit=unit, description=family.documentation)
        genai = more if family.name in GENAI else {}
        if family.type == "histogram":
            made.histogram.aggregation_temporality = CUMULATIVE
            made.histogram.data_points.extend(_histograms(family, genai, began_ns, now_ns))
        elif family.type == "counter":
            made.sum.aggregation_temporality, made.sum.is_monotonic = CUMULATIVE, True
            made.sum.data_points.extend(_numbers(family.samples, began_ns, now_ns))
        else:
            made.gauge.data_points.extend(_numbers(family.samples, None, now_ns))
        yield made


def _numbers(samples: Iterable[Sample], began_ns: int | None, now_ns: int) -> Iterator[otel.NumberDataPoint]:
    for one in samples:
        yield otel.NumberDataPoint(
            attributes=_attributes(one.labels),
            start_time_unix_nano=began_ns or 0,
            time_unix_nano=now_ns,
            as_double=float(one.value),
        )


def _histograms(
    family: Metric, more: Mapping[str, Mapping[str, str | int]], began_ns: int, now_ns: int
) -> Iterator[otel.HistogramDataPoint]:
    points: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for one in family.samples:
        labels = {name: value for name, value in one.labels.items() if name != "le"}
        point = points.setdefault(tuple(labels.items()), {"labels": labels, "upto": []})
        if one.name.endswith("_bucket"):
            point["upto"].append((float(one.labels["le"]), one.value))
        else:
            point[one.name.rpartition("_")[2]] = one.value
    for point in points.values():
        ordered = sorted(point["upto"])
        counts = [upto - before for (_, upto), before in zip(ordered, [0.0, *(n for _, n in ordered)], strict=False)]
        yield otel.HistogramDataPoint(
            attributes=_attributes({**point["labels"], **more.get(point["labels"].get("endpoint", ""), {})}),
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=round(point["count"]),
            sum=point["sum"],
            explicit_bounds=[bound for bound, _ in ordered if math.isfinite(bound)],
            bucket_counts=[round(count) for count in counts],
        )


def _attributes(values: Mapping[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(
            key=name,
            value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value),
        )
        for name, value in values.items()
    ]


def request(found: Iterable[otel.Metric]) -> bytes:
    """One push of everything: families of the same name of several registries are one metric."""
    merged: dict[str, otel.Metric] = {}
    for one in found:
        if one.name in merged:
            merged[one.name].MergeFrom(one)
        else:
            merged[one.name] = one
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    resource.resource.attributes.extend(_attributes({"service.name": "firsttoken", "service.version": __version__}))
    scope = resource.scope_metrics.add()
    scope.scope.name, scope.scope.version = "bench.service.otlp", __version__
    scope.metrics.extend(merged.values())
    data: bytes = message.SerializeToString()
    return data


class _Stays(urllib.request.HTTPRedirectHandler):
    """A collector that points elsewhere is not followed: a header may be a key."""

    def redirect_request(self, *_: Any) -> None:
        """None: do not follow."""


def push(url: str, data: bytes, more: Mapping[str, str], timeout_s: float = PATIENCE_S) -> str | None:
    """Send it; why it failed or was taken in part, without the headers. None if all is well."""
    sent = urllib.request.Request(url, data, {"Content-Type": "application/x-protobuf", **more})
    try:
        with urllib.request.build_opener(_Stays).open(sent, timeout=timeout_s) as answer:
            said = ExportMetricsServiceResponse.FromString(answer.read(1 << 16))
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return getattr(reason, "strerror", None) or type(reason).__name__
    except DecodeError:
        return "it answered what is no OTLP: is it a collector's HTTP port (4318)?"
    part = said.partial_success
    if part.rejected_data_points:
        return f"it refused {part.rejected_data_points} points: {part.error_message[:200]}"
    return None


class Pusher:
    """Pushes again and again; a collector that is down costs nobody else anything."""

    def __init__(self, url: str, more: Mapping[str, str], period_s: float = PERIOD_S) -> None:
        self._url, self._more, self._period_s = url, more, period_s
        self._began_ns = time.time_ns()

    async def run(self, exposed: Callable[[], Iterable[Exposed]], told: Callable[[str], None]) -> None:
        """Push for ever; `told` hears why one was not taken, and an empty text once one was."""
        while True:
            await asyncio.sleep(self._period_s)
            told(await self.once(exposed()) or "")

    async def once(self, exposed: Iterable[Exposed]) -> str | None:
        """Push all there is; why it was not taken, or None."""
        found: list[otel.Metric] = []
        for registry, more in exposed:
            found += metrics(registry, more, self._began_ns, time.time_ns())
            # Of hundreds of endpoints each takes a while: canaries come between them.
            await asyncio.sleep(0)
        return await asyncio.to_thread(push, self._url, request(found), self._more)
