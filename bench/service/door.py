"""The monitor's own HTTP door, on its event loop: /metrics, and /probe?target= in the blackbox exporter's manner.

So few connections are served at once, and one text a second is made, that a flood of scrapes leaves canaries time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from urllib.parse import parse_qs, urlsplit

from bench.errors import UsageError
from bench.phrases import why
from bench.service.exposition import CONTENT_TYPE

MOST_AT_ONCE = 32
LONGEST_HEAD = 8192
PATIENCE_S = 5.0
# A text is served again for so long.
FRESH_S = 1.0
_PLAIN = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]


class Door:
    """Serves what `metrics` says; `probe` answers for a target, or None for one that is not watched."""

    def __init__(self, metrics: Callable[[], str], probe: Callable[[str], Awaitable[str | None]]) -> None:
        self._metrics = metrics
        self._probe = probe
        self._open = 0
        self._text = b""
        self._made = float("-inf")
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Open it; the port, which for 0 is a free one. UsageError if it cannot be."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=LONGEST_HEAD)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: {why(error)}", hint="choose another: --listen"
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Close it."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > MOST_AT_ONCE:
                answer: Answer = (503, _PLAIN, b"too many at once\n")
                head = b"GET"
            else:
                async with asyncio.timeout(PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                answer = await self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
            async with asyncio.timeout(PATIENCE_S):
                writer.write(_encoded(*answer, body=not head.startswith(b"HEAD")))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Too slow, too long or gone: nobody is left to be told.
            pass
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: str) -> Answer:
        method, _, rest = line.partition(" ")
        if method not in ("GET", "HEAD"):
            return 405, _PLAIN, b"only GET\n"
        try:
            parts = urlsplit(rest.rpartition(" ")[0])
            targets = parse_qs(parts.query, max_num_fields=8).get("target", [])
        except ValueError:
            return 400, _PLAIN, b"that is no path\n"
        if parts.path == "/metrics":
            if monotonic() - self._made > FRESH_S:
                self._text, self._made = self._metrics().encode(), monotonic()
            return 200, CONTENT_TYPE, self._text
        if parts.path == "/probe":
            if len(targets) != 1:
                return 400, _PLAIN, b"one target: /probe?target=NAME\n"
            text = await self._probe(targets[0])
            if text is None:
                return 404, _PLAIN, b"that target is not in the watch list\n"
            return 200, CONTENT_TYPE, text.encode()
        if parts.path in ("/", "/-/healthy"):
            return 200, _PLAIN, b"bench monitor: /metrics, /probe?target=NAME\n"
        return 404, _PLAIN, b"there is /metrics and /probe?target=NAME\n"


def _encoded(status: int, kind: str, data: bytes, *, body: bool) -> bytes:
    words = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
    head = (
        f"HTTP/1.1 {status} {words[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode() + (data if body else b"")
