"""The span sink takes what comes, refuses what is too much, and puts every span on our clock."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.engines import spans
from bench.engines.spans import SpanSink, WallClock


def body(*names: str, start_ns: int | None = None, process: str = "EngineCore", pid: str = "7", size: int = 0) -> bytes:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    for key, value in (("vllm.process_name", process), ("vllm.process_id", pid)):
        pair = resource.resource.attributes.add(key=key)
        pair.value.string_value = value
    begun = time.time_ns() if start_ns is None else start_ns
    for name in names:
        span = resource.scope_spans.add().spans.add(name=name, span_id=b"12345678")
        span.start_time_unix_nano, span.end_time_unix_nano = begun, begun + 5_000_000
        if size:
            span.attributes.add(key="filler").value.string_value = "x" * size
    return bytes(request.SerializeToString())


def post(url: str, data: bytes, **headers: str) -> int:
    request = urllib.request.Request(url, data, {"Content-Type": "application/x-protobuf", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_spans_arrive_on_the_monotonic_clock_with_their_process() -> None:
    before = time.monotonic_ns()
    with SpanSink() as sink:
        assert post(sink.url, body("Load weights")) == 200
        (span,) = sink.drain()
    assert span.name == "Load weights"
    assert span.process == "EngineCore 7"
    assert before - 1_000_000 <= span.start_ns <= time.monotonic_ns()
    assert span.end_ns - span.start_ns == 5_000_000


def test_compressed_bodies_are_read() -> None:
    with SpanSink() as sink:
        assert post(sink.url, gzip.compress(body("a", "b")), **{"Content-Encoding": "gzip"}) == 200
        assert [span.name for span in sink.drain()] == ["a", "b"]


def test_rubbish_is_counted_and_breaks_nothing() -> None:
    with SpanSink() as sink:
        post(sink.url, b"\xff\xff\xff\xff not protobuf")
        post(sink.url, b"not gzip", **{"Content-Encoding": "gzip"})
        post(sink.url, body("good"))
        assert [span.name for span in sink.drain()] == ["good"]
        assert sink.rejected == 2
        assert [span.name for span in sink.drain()] == ["good"]


def test_a_bomb_is_not_unpacked() -> None:
    with SpanSink() as sink:
        assert post(sink.url, gzip.compress(bytes(spans.MAX_BODY + 1)), **{"Content-Encoding": "gzip"}) == 400
        assert sink.drain() == []


def test_a_flood_keeps_what_came_first_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_TOTAL", 50_000)
    with SpanSink() as sink:
        first = body("first")
        post(sink.url, first)
        flood = body("flood", size=5_000)
        threads = [threading.Thread(target=lambda: [post(sink.url, flood) for _ in range(10)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = sink.drain()
        assert sink.received == 41
        assert sink.dropped > 25
        assert sum(span.name == "first" for span in kept) == 1
        assert len(kept) == sink.received - sink.dropped


def test_a_client_that_hangs_up_in_the_middle_does_not_stop_the_sink() -> None:
    with SpanSink() as sink:
        host, port = sink.url.removeprefix("http://").split("/")[0].split(":")
        with socket.create_connection((host, int(port))) as torn:
            torn.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf")
        assert post(sink.url, body("after")) == 200
        assert "after" in [span.name for span in sink.drain()]


def test_closing_frees_the_port_and_keeps_the_spans() -> None:
    with SpanSink() as sink:
        post(sink.url, body("kept"))
        url = sink.url
    assert [span.name for span in sink.drain()] == ["kept"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, b"x", timeout=2)


def test_a_wall_clock_that_is_set_moves_no_span() -> None:
    clock = WallClock()
    mono, wall = time.monotonic_ns(), time.time_ns()
    clock.look(mono, wall)
    hour = 3600 * 10**9
    # An hour forward, ten seconds after the start.
    clock.look(mono + 10 * 10**9, wall + 10 * 10**9 + hour)
    assert clock.steps == 1
    assert clock.monotonic(wall + 5 * 10**9) == pytest.approx(mono + 5 * 10**9, abs=10**6)
    assert clock.monotonic(wall + 12 * 10**9 + hour) == pytest.approx(mono + 12 * 10**9, abs=10**6)


def test_a_wall_clock_that_is_set_back_moves_no_later_span() -> None:
    clock = WallClock()
    mono, wall = time.monotonic_ns(), time.time_ns()
    clock.look(mono, wall)
    hour = 3600 * 10**9
    clock.look(mono + 10 * 10**9, wall + 10 * 10**9 - hour)
    assert clock.monotonic(wall + 12 * 10**9 - hour) == pytest.approx(mono + 12 * 10**9, abs=10**6)
