"""What is pushed is what is exposed: a real receiver decodes it, and finds names, units, times and counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otel

from bench.errors import UsageError
from bench.service.exposition import BOUNDS, COUNTERS, GAUGES, HISTOGRAMS, Exposed
from bench.service.monitor import Monitor
from bench.service.otlp import Pusher, address, headers, metrics, named, push, request
from bench.service.watchlist import parse
from tests.service.test_monitor import ONE, Watching
from tests.service.test_ready import scripted
from tests.waiting import until

CHUNK = "gen_ai.client.operation.time_to_first_chunk"


class Collector:
    """Takes pushes as a collector does, and answers as it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], ExportMetricsServiceRequest]] = []
        self.status, self.answer = 200, b""
        self.more: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.heard.append((self.path, dict(self.headers), ExportMetricsServiceRequest.FromString(body)))
                self.send_response(outer.status)
                for name, value in outer.more.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def last(self) -> dict[str, otel.Metric]:
        """The metrics of the last push by name."""
        (resource,) = self.heard[-1][2].resource_metrics
        (scope,) = resource.scope_metrics
        names = [one.name for one in scope.metrics]
        assert len(set(names)) == len(names), "each metric stands once"
        return {one.name: one for one in scope.metrics}


def attributes(point: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in point.attributes}


def pushed(*exposed: Exposed) -> dict[str, otel.Metric]:
    more: dict[str, dict[str, str | int]] = {"a": {"gen_ai.request.model": "m", "server.port": 8000}}
    found = [one for each in exposed for one in metrics(each.registry, more, 5, 7)]
    message = ExportMetricsServiceRequest.FromString(request(found))
    return {one.name: one for one in message.resource_metrics[0].scope_metrics[0].metrics}


def test_a_histogram_keeps_its_bounds_and_counts_each_value_once() -> None:
    one, two = Exposed("a"), Exposed("b")
    for seconds in (0.0005, 0.001, 0.02, 0.021, 5000.0):
        one.observe("gen_ai_client_operation_time_to_first_chunk_seconds", "warm", seconds)
    two.observe("gen_ai_client_operation_time_to_first_chunk_seconds", "idle", 0.5)
    made = pushed(one, two)[CHUNK]
    assert made.unit == "s"
    assert made.histogram.aggregation_temporality == otel.AGGREGATION_TEMPORALITY_CUMULATIVE
    first, second = made.histogram.data_points
    assert attributes(first) == {"endpoint": "a", "stream": "warm", "gen_ai.request.model": "m", "server.port": 8000}
    assert attributes(second) == {"endpoint": "b", "stream": "idle"}
    assert tuple(first.explicit_bounds) == BOUNDS
    # Two up to 1 ms, one up to 20 ms, one up to 40 ms, one beyond the last bound.
    assert list(first.bucket_counts) == [2, 0, 0, 0, 1, 1, *[0] * (len(BOUNDS) - 6), 1]
    assert (first.count, first.sum) == (5, pytest.approx(5000.0425))
    assert (first.start_time_unix_nano, first.time_unix_nano) == (5, 7)


def test_counters_are_sums_that_only_rise_and_gauges_have_their_units() -> None:
    exposed = Exposed("a")
    exposed.count("firsttoken_canaries", "warm", "ok", by=3)
    exposed.gauge("firsttoken_memory_bytes", 2.0**30)
    exposed.gauge("firsttoken_throughput_tokens_per_second", 41.5)
    made = pushed(exposed)
    (point,) = made["firsttoken.canaries"].sum.data_points
    assert (point.as_double, attributes(point)) == (3.0, {"endpoint": "a", "stream": "warm", "result": "ok"})
    assert made["firsttoken.canaries"].sum.is_monotonic
    assert (made["firsttoken.memory"].unit, made["firsttoken.memory"].gauge.data_points[0].as_double) == ("By", 2**30)
    assert made["firsttoken.throughput_tokens_per_second"].unit == "{token}/s"
    assert "firsttoken.availability" not in made, "what is not known is not pushed"


def test_every_series_has_a_name_of_its_own() -> None:
    series = [*GAUGES, *COUNTERS, *HISTOGRAMS]
    names = [named(one)[0] for one in series]
    assert len(set(names)) == len(series)
    assert named("firsttoken_ttft_seconds") == ("firsttoken.ttft", "s")
    assert named("firsttoken_board_temperature_celsius") == ("firsttoken.board_temperature", "Cel")
    # A canary is a client: it speaks of no server's own metric.
    assert not [name for name in names if name.startswith("gen_ai.server")]


def test_a_monitor_pushes_what_it_exposes_and_keys_go_into_headers_alone(tmp_path: Path) -> None:
    collector = Collector()
    pusher = Pusher(address(collector.url + "/"), headers("authorization=Bearer%20hush, x-more=1"), period_s=0.2)
    with collector.listening(), scripted(ttft_ms=20, itl_ms=2) as url:
        with Watching(ONE.format(url=url), tmp_path, pusher) as watching:
            until(lambda: collector.heard and CHUNK in collector.last())
            until(lambda: sum(point.count for point in collector.last()[CHUNK].histogram.data_points) >= 6)
            shown = watching.value('firsttoken_judged_canaries_total{endpoint="e"}') or 0
        assert watching.said == []
        made = collector.last()
    path, sent, message = collector.heard[-1]
    assert (path, sent["Content-Type"]) == ("/v1/metrics", "application/x-protobuf")
    assert (sent["authorization".title()], sent["X-More"]) == ("Bearer hush", "1")
    assert b"hush" not in message.SerializeToString()
    assert attributes(message.resource_metrics[0].resource)["service.name"] == "firsttoken"
    points = {attributes(point)["stream"]: point for point in made[CHUNK].histogram.data_points}
    assert set(points) == {"idle", "warm", "cached"}
    told = attributes(points["warm"])
    assert told["server.port"] == int(url.rpartition(":")[2])
    assert (told["server.address"], told["gen_ai.operation.name"]) == ("127.0.0.1", "chat")
    assert told["gen_ai.request.model"]
    # No first chunk came before the server's 20 ms; times are Unix times.
    assert points["warm"].sum / points["warm"].count >= 0.02
    assert 0 <= time.time_ns() - points["warm"].time_unix_nano < 60e9
    assert points["warm"].start_time_unix_nano < points["warm"].time_unix_nano
    assert 0 < made["firsttoken.judged_canaries"].sum.data_points[0].as_double <= shown + 5
    assert made["firsttoken.build_info"].gauge.data_points[0].as_double == 1


def test_a_collector_that_is_down_is_said_once_and_canaries_go_on(tmp_path: Path) -> None:
    with scripted(ttft_ms=5, itl_ms=1) as url:
        pusher = Pusher(address("http://127.0.0.1:1"), {}, period_s=0.1)
        with Watching(ONE.format(url=url), tmp_path, pusher) as watching:
            until(lambda: any("refused" in one.lower() for one in watching.said))
            before = watching.value("firsttoken_good_canaries_total") or 0
            until(lambda: (watching.value("firsttoken_good_canaries_total") or 0) > before + 3)
    assert len(watching.said) == 1
    assert watching.said[0].startswith("the OTLP collector takes nothing: ")


def test_what_a_collector_answers_is_understood() -> None:
    collector = Collector()
    with collector.listening():
        url = address(collector.url)
        assert push(url, b"", {}) is None
        collector.answer = ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
        ).SerializeToString()
        assert push(url, b"", {}) == "it refused 3 points: too old"
        collector.answer = b"<html>hello"
        assert "is it a collector's HTTP port" in (push(url, b"", {}) or "")
        collector.status, collector.answer = 503, b""
        assert push(url, b"", {}) == "it answered 503"
        collector.status, collector.more = 302, {"Location": f"{collector.url}/elsewhere"}
        assert push(url, b"", {}) == "it answered 302"
    assert {path for path, _, _ in collector.heard} == {"/v1/metrics"}


def test_an_address_that_is_none_or_holds_a_password_is_refused() -> None:
    with pytest.raises(UsageError, match=r"for example http://127\.0\.0\.1:4318"):
        address("127.0.0.1:4318")
    with pytest.raises(UsageError, match="holds a password"):
        address("http://me:hush@collector:4318")
    assert address("https://collector/otlp/") == "https://collector/otlp/v1/metrics"


def test_without_it_a_monitor_carries_nothing_of_it(tmp_path: Path) -> None:
    text = ONE.format(url="http://127.0.0.1:1")
    assert Monitor(parse(text), text, tmp_path, print).pusher is None
