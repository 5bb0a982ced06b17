"""The one address before changing engines: passes each request to the engine that serves when it comes, and no other.

Started by `front.py` with a listening socket; orders come as JSON lines on stdin, whose end is its own, and reports go
to stdout. A request has an upstream connection of its own: none is ever sent twice, and a client whose engine dies is
told so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import uvloop

from bench import pipes
from bench.run.switch import State, Switch

# Headers that belong to one connection (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"trailer", b"upgrade")
)
BODILESS = (204, 304)
# A client's requests that are taken in before the first of them has been answered.
AHEAD = 2
REASONS = {502: "Bad Gateway", 503: "Service Unavailable", 400: "Bad Request"}


@dataclass
class Passage:
    """One request: its head, what of its body is not yet passed on, and what became of it."""

    method: bytes = b""
    url: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    keep: bool = True
    modern: bool = True
    chunked: bool = False
    whole: bool = False
    waiting: list[bytes] = field(default_factory=list)
    engine: str | None = None
    state: State = "quick"
    began_ns: int = 0
    first_ns: int | None = None
    refused: frozenset[str] = frozenset()

    def head(self) -> bytes:
        """As it goes to the engine, on a connection that is for it alone."""
        lines = [b"%s %s HTTP/1.1\r\n" % (self.method, self.url)]
        lines += [b"%s: %s\r\n" % pair for pair in self.headers if pair[0].lower() not in HOP_BY_HOP]
        if self.chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        return b"".join([*lines, b"connection: close\r\n\r\n"])


class Switchboard:
    """All connections, the switch between the engines, and the count of what became of each request."""

    def __init__(self) -> None:
        self.switch = Switch(self._changed)
        self.places: dict[str, tuple[str, int]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.unserved = 0
        self._seen: set[str] = set()

    def obey(self, order: Mapping[str, Any]) -> None:
        """Carry out an order, and say where that leads."""
        name = str(order.get("name"))
        try:
            match order["do"]:
                case "serve" | "beside" as do:
                    self.places[name] = (order["host"], order["port"])
                    self.counts[name] = Counter()
                    getattr(self.switch, do)(name)
                    self._seen.clear()
                case "over":
                    self.switch.over()
                case "gone":
                    self.switch.gone(name)
        except ValueError as error:
            report("refused", reason=str(error))
        report("account", **self.account())

    def account(self) -> dict[str, Any]:
        """Where it stands: who serves, and per engine how many requests it was given and what became of them."""
        switch = self.switch
        return {
            "state": switch.state,
            "serving": switch.serving,
            "engines": {name: dict(count) for name, count in self.counts.items()},
            "running": {name: switch.running[name] for name in self.counts},
            "unserved": self.unserved,
        }

    def begin(self, asked: Passage) -> str | None:
        """Choose the engine for a request; None, and counted, where none serves."""
        asked.engine = self.switch.begin(asked.refused)
        if asked.engine is None:
            self.unserved += 1
        else:
            asked.state = self.switch.state
        return asked.engine

    def declined(self, asked: Passage) -> None:
        """The engine took no connection: it was given nothing, and another one may be."""
        assert asked.engine is not None
        asked.refused |= {asked.engine}
        self.switch.end(asked.engine)

    def end(self, asked: Passage, outcome: str) -> None:
        """Note what became of a request: answered, died (its engine), left (its client)."""
        assert asked.engine is not None
        count = self.counts[asked.engine]
        count["begun"] += 1
        count[outcome] += 1
        if asked.method == b"POST" and outcome == "answered" and asked.state not in self._seen:
            self._seen.add(asked.state)
            report(
                "first",
                state=asked.state,
                engine=asked.engine,
                began_ns=asked.began_ns,
                first_ns=asked.first_ns,
                end_ns=time.monotonic_ns(),
            )
        self.switch.end(asked.engine)

    def _changed(self, state: State) -> None:
        report("state", state=state, t_ns=time.monotonic_ns(), serving=self.switch.serving)


def report(event: str, **told: Any) -> None:
    """One line to whoever started this; nobody may be listening any more."""
    try:
        pipes.write_all(1, json.dumps({"event": event, **told}).encode() + b"\n")
    except OSError:
        return


class Client(asyncio.Protocol):
    """One client's connection: its requests, one after the other, each to the engine that serves then."""

    def __init__(self, front: Switchboard) -> None:
        self.front = front
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.queue: deque[Passage] = deque()
        self.reading: Passage | None = None
        self.engine: Upstream | None = None
        self.task: asyncio.Task[None] | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of a request; what is no HTTP is refused."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Another protocol is not offered, and need not be (RFC 9110, 7.8): answered as plain HTTP, and closed.
            for asked in self.queue:
                asked.keep = False
        except httptools.HttpParserError as error:
            # No words fit into the middle of an answer.
            if self.engine is None and self.task is None:
                self.refuse(400, f"this is not HTTP: {error}")
            else:
                self.transport.close()
        if len(self.queue) >= AHEAD:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """A client that says no more has left, as servers of these engines take it too."""
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The client has left: so does its request at the engine."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()
        if self.engine is not None:
            self.engine.drop("left")

    def pause_writing(self) -> None:
        """The client takes no more for now: nor does its engine send."""
        if self.engine is not None:
            self.engine.hold(True)

    def resume_writing(self) -> None:
        """The client takes more again."""
        if self.engine is not None:
            self.engine.hold(False)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.reading = Passage(began_ns=time.monotonic_ns())

    def on_url(self, url: bytes) -> None:
        """Its target, perhaps in parts."""
        assert self.reading is not None
        self.reading.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        assert self.reading is not None
        self.reading.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: it may go to the engine, before its body does."""
        asked = self.reading
        assert asked is not None
        asked.method = self.parser.get_method()
        asked.keep = self.parser.should_keep_alive()
        asked.modern = self.parser.get_http_version() != "1.0"
        asked.chunked = any(name.lower() == b"transfer-encoding" for name, _ in asked.headers)
        self.queue.append(asked)
        self._next()

    def on_body(self, piece: bytes) -> None:
        """Part of the body."""
        assert self.reading is not None
        self._pass(self.reading, b"%x\r\n%s\r\n" % (len(piece), piece) if self.reading.chunked else piece)

    def on_message_complete(self) -> None:
        """The request is whole."""
        assert self.reading is not None
        self.reading.whole = True
        if self.reading.chunked:
            self._pass(self.reading, b"0\r\n\r\n")

    def _pass(self, asked: Passage, piece: bytes) -> None:
        if self.engine is not None and self.engine.asked is asked:
            self.engine.write(piece)
        else:
            asked.waiting.append(piece)

    def _next(self) -> None:
        if self.task is None and self.engine is None and self.queue and not self.gone:
            self.task = asyncio.get_running_loop().create_task(self._send(self.queue[0]))

    async def _send(self, asked: Passage) -> None:
        """Connect to the engine that serves now; only one that takes no connection at all is passed over."""
        loop = asyncio.get_running_loop()
        while (name := self.front.begin(asked)) is not None:
            try:
                await loop.create_connection(lambda: Upstream(self, asked), *self.front.places[name])
            except OSError:
                self.front.declined(asked)
            except asyncio.CancelledError:
                if self.engine is None:
                    self.front.end(asked, "left")
                raise
            else:
                self.task = None
                # A quick answer may have come before this task went on.
                self._next()
                return
        self.task = None
        self.refuse(503, "no engine serves now; ask again")

    def answered(self, asked: Passage, keep: bool) -> None:
        """One request has been answered to its end."""
        self.engine = None
        self.queue.popleft()
        # An answer that came before its question was whole leaves the rest of it in the way.
        if not (keep and asked.whole):
            self.transport.close()
            return
        self.transport.resume_reading()
        self._next()

    def refuse(self, status: int, message: str) -> None:
        """Answer in the engine's place, with the reason, and end the connection."""
        self.gone = True
        body = json.dumps({"error": {"message": message, "type": "front", "code": status}}).encode()
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
            % (status, REASONS[status].encode(), len(body), retry, body)
        )
        self.transport.close()


class Upstream(asyncio.Protocol):
    """One request at its engine: the answer goes to the client piece by piece, as it comes."""

    def __init__(self, client: Client, asked: Passage) -> None:
        self.client, self.asked = client, asked
        self.parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = self.chunked = self.events = self.sized = self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The engine has taken the connection: from now on the request is its own."""
        self.transport = cast("asyncio.Transport", transport)
        self.client.engine = self
        self.write(b"".join([self.asked.head(), *self.asked.waiting]))
        self.asked.waiting.clear()

    def write(self, piece: bytes) -> None:
        """Part of the request."""
        if not self.over:
            self.transport.write(piece)

    def pause_writing(self) -> None:
        """The engine takes no more for now."""
        self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        """The engine takes more again."""
        self.client.transport.resume_reading()

    def hold(self, held: bool) -> None:
        """Read no more of the answer until the client has room, or go on."""
        if not self.over:
            (self.transport.pause_reading if held else self.transport.resume_reading)()

    def data_received(self, data: bytes) -> None:
        """Part of the answer."""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.over:
                self._broken(f"its answer is not HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """The engine has closed: a proper end only for an answer that is as long as its connection."""
        if self.over:
            return
        if error is None and self.begun and not self.chunked and not self.sized:
            self.on_message_complete()
        else:
            self._broken(str(error) if error is not None else "it closed the connection")

    def on_status(self, reason: bytes) -> None:
        """The words beside the status."""
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers.append((name, value))
        name, value = name.lower(), value.lower()
        self.chunked |= name == b"transfer-encoding" and b"chunked" in value
        self.sized |= name == b"content-length"
        self.events |= name == b"content-type" and value.startswith(b"text/event-stream")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self.over:
            return
        status = self.parser.get_status_code()
        if status < 200:
            # An interim answer, such as to Expect: 100-continue; the real one follows.
            self.client.transport.write(b"HTTP/1.1 %d %s\r\n\r\n" % (status, self.reason))
            self.headers.clear()
            return
        self.begun = True
        bare = status in BODILESS or self.asked.method == b"HEAD"
        framed = not bare and not self.sized
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, self.reason)]
        lines += [b"%s: %s\r\n" % pair for pair in self.headers if pair[0].lower() not in HOP_BY_HOP]
        self.framing = framed and self.asked.modern
        if self.framing:
            lines.append(b"transfer-encoding: chunked\r\n")
        self.keep = self.asked.keep and (self.framing or not framed)
        if not self.keep:
            lines.append(b"connection: close\r\n")
        self.client.transport.write(b"".join([*lines, b"\r\n"]))
        if bare:
            self.on_message_complete()

    def on_body(self, piece: bytes) -> None:
        """Part of the body, passed on at once."""
        if self.over:
            return
        if self.asked.first_ns is None:
            self.asked.first_ns = time.monotonic_ns()
        self.client.transport.write(b"%x\r\n%s\r\n" % (len(piece), piece) if self.framing else piece)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.over or not self.begun:
            return
        self.over = True
        if self.framing:
            self.client.transport.write(b"0\r\n\r\n")
        self.transport.close()
        self.client.front.end(self.asked, "answered")
        self.client.answered(self.asked, self.keep)

    def drop(self, outcome: str) -> None:
        """End the request at the engine, for which it was told nothing more."""
        if not self.over:
            self.over = True
            self.transport.abort()
            self.client.front.end(self.asked, outcome)

    def _broken(self, why: str) -> None:
        """Tell the client that its request died with the engine: it may have been begun, and is never sent again."""
        self.drop("died")
        client = self.client
        client.engine = None
        message = f"the engine that answered this request is gone ({why}); it was not sent to another one"
        if not self.begun:
            client.refuse(502, message)
            return
        if self.events and self.framing:
            event = b"data: %s\n\n" % json.dumps({"error": {"message": message, "type": "front", "code": 502}}).encode()
            client.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        # Without the end that its framing asks for: no client takes this for a whole answer.
        client.transport.close()


async def serve(listener: socket.socket) -> None:
    """Pass requests on until stdin ends."""
    loop, front, stopped = asyncio.get_running_loop(), Switchboard(), asyncio.Event()
    unread = b""

    def orders() -> None:
        nonlocal unread
        data = os.read(0, 65536)
        if not data:
            loop.remove_reader(0)
            stopped.set()
            return
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            front.obey(json.loads(line))

    loop.add_reader(0, orders)
    await loop.create_server(lambda: Client(front), sock=listener)
    report("listening")
    await stopped.wait()


def main() -> None:
    """Take the listening socket over and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the listening socket")
    uvloop.run(serve(socket.socket(fileno=parser.parse_args().socket)))


if __name__ == "__main__":
    main()
