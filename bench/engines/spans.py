"""A local sink for OpenTelemetry spans: OTLP over HTTP in protobuf, on its own thread, bounded in every direction."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.engines.engine import Span

MAX_BODY = 4 << 20
MAX_TOTAL = 64 << 20
READ_TIMEOUT_S = 5.0
# The wall clock is compared with CLOCK_MONOTONIC this often; a jump beyond a millisecond is a step.
CLOCK_PERIOD_S = 0.2
STEP_NS = 1_000_000


class SpanSink:
    """Collects spans at `url` until closed; a context manager.

    What comes first is kept: beyond MAX_TOTAL bytes bodies are answered and dropped. `received`, `dropped` and
    `rejected` (no OTLP, or too large) count bodies.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.received = self.dropped = self.rejected = 0
        self._bodies: list[bytes] = []
        self._bytes = 0
        self._clock = WallClock()
        self._server = _Server((host, 0), self)
        self.url = f"http://{host}:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(CLOCK_PERIOD_S,), name="spans", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; what was received stays."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def drain(self) -> list[Span]:
        """All spans so far, by start, on CLOCK_MONOTONIC."""
        spans: list[Span] = []
        for body in list(self._bodies):
            try:
                spans += decode(body, self._clock)
            except (DecodeError, UnicodeDecodeError):
                self.rejected += 1
                self._bodies.remove(body)
        return sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))

    def take(self, body: bytes) -> None:
        """Keep a body, or count it as dropped."""
        self.received += 1
        if self._bytes + len(body) > MAX_TOTAL:
            self.dropped += 1
            return
        self._bytes += len(body)
        self._bodies.append(body)

    def tick(self) -> None:
        """Compare the clocks."""
        self._clock.look()


class WallClock:
    """CLOCK_REALTIME as seen from CLOCK_MONOTONIC: which offset held from when on."""

    def __init__(self) -> None:
        # No span of a launch begins before the sink that waits for it was there.
        now = time.monotonic_ns()
        self._epochs: list[tuple[int, int]] = [(now, now - time.time_ns())]

    @property
    def steps(self) -> int:
        """How often the wall clock was set while we looked."""
        return len(self._epochs) - 1

    def look(self, monotonic_ns: int | None = None, wall_ns: int | None = None) -> None:
        """Note the offset if it jumped; slow adjustment by NTP moves the last one along."""
        now = time.monotonic_ns() if monotonic_ns is None else monotonic_ns
        offset = now - (time.time_ns() if wall_ns is None else wall_ns)
        since, last = self._epochs[-1]
        if abs(offset - last) > STEP_NS:
            self._epochs.append((now, offset))
        else:
            self._epochs[-1] = (since, offset)

    def monotonic(self, wall_ns: int) -> int:
        """A wall time on CLOCK_MONOTONIC; where a step makes it ambiguous, by the earliest offset that fits."""
        ends = [since for since, _ in self._epochs[1:]] + [None]
        for (since, offset), until in zip(self._epochs, ends, strict=True):
            moment = wall_ns + offset
            if moment >= since and (until is None or moment < until):
                return moment
        return wall_ns + self._epochs[-1][1]


def decode(body: bytes, clock: WallClock) -> Iterator[Span]:
    """The spans of one OTLP body; DecodeError if it is none."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for resource in request.resource_spans:
        about = _attributes(resource.resource.attributes)
        name, pid = about.get("vllm.process_name", about.get("service.name", "")), about.get("vllm.process_id", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    start_ns=clock.monotonic(span.start_time_unix_nano),
                    end_ns=clock.monotonic(span.end_time_unix_nano),
                    process=f"{name} {pid}".strip(),
                    parent=span.parent_span_id.hex() or None,
                    attributes=_attributes(span.attributes) | {"span_id": span.span_id.hex()},
                )


def _attributes(pairs: Sequence[Any]) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = getattr(pair.value, kind) if kind in _PLAIN else str(pair.value).strip()
    return found


_PLAIN = ("string_value", "bool_value", "int_value", "double_value")


class _Server(HTTPServer):
    """One connection at a time, so that a flood waits in the kernel's queue instead of in our threads."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sink: SpanSink) -> None:
        self.sink = sink
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up its own host name, which can take seconds without a network.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def service_actions(self) -> None:
        self.sink.tick()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    timeout = READ_TIMEOUT_S
    server: _Server

    def do_POST(self) -> None:
        sink = self.server.sink
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_BODY:
            sink.rejected += 1
            self._answer(413)
            return
        body = self.rfile.read(length)
        if self.headers.get("Content-Encoding") == "gzip":
            inflated = _inflate(body)
            if inflated is None:
                sink.rejected += 1
                self._answer(400)
                return
            body = inflated
        sink.take(body)
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def _inflate(body: bytes) -> bytes | None:
    """Unpacked, or None where it is no gzip or unpacks to more than a body may be."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        data = decompressor.decompress(body, MAX_BODY)
    except zlib.error:
        return None
    return None if decompressor.unconsumed_tail else data
