"""A scripted OpenAI-compatible server: what it sends, and when, is decided beforehand, and what it did is logged.

Standard library only. One thread, epoll and a timer file descriptor, so that a chunk leaves within tens of microseconds
of its time; the truth log says when its bytes really left.
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from bench.engines.workers.simulated_answers import Answerer, Piece, Request, Timing, document, words
from bench.engines.workers.simulated_script import BadScript, Script, script

_MILLISECOND = 1_000_000
_BILLION = 1_000_000_000
_NEVER = 1 << 62
_SO_TIMESTAMPNS = 35
_CMSG = socket.CMSG_SPACE(16)
_TIMESPEC = struct.Struct("@ll")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Connection:
    """One client: bytes in until a request is whole, bytes out when they are due."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.inbox = bytearray()
        self.outbox = b""
        self.pieces: list[Piece] = []
        self.truth: dict[str, Any] | None = None
        self.closes = False
        self.alive = True
        self.touched_ns = time.monotonic_ns()

    def request(self, user_ns: int, kernel_ns: int | None) -> Request | None:
        """The request whose last byte has just come, if it has; ValueError if it is none."""
        head_end = self.inbox.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        lines = self.inbox[:head_end].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        if len(self.inbox) < head_end + 4 + length:
            return None
        method, path, _ = lines[0].split(" ", 2)
        body = bytes(self.inbox[head_end + 4 : head_end + 4 + length])
        del self.inbox[: head_end + 4 + length]
        return Request(method, path.split("?")[0], headers, body, user_ns, kernel_ns)


class Server:
    """The event loop."""

    def __init__(self, listener: socket.socket, answerer: Answerer, truth: TextIO | None) -> None:
        self._listener = listener
        self._answerer = answerer
        self._truth = truth
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, Connection]] = []
        self._sequence = 0
        self._poll = select.epoll()
        self._timer = _Timer()
        self._realtime_offset = _offset_ns()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._poll.register(self._timer.fd, select.EPOLLIN)

    def serve(self) -> None:
        """Run until the process ends."""
        while True:
            for fd, mask in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._timer.fd:
                    self._timer.clear()
                elif connection := self._connections.get(fd):
                    if mask & select.EPOLLOUT and self._push(connection):
                        self._poll.modify(fd, select.EPOLLIN)
                        self._sent(connection)
                    if mask & ~select.EPOLLOUT and connection.alive:
                        self._read(connection)
            self._send_due()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._connections[sock.fileno()] = Connection(sock)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self._expire(self._connections[sock.fileno()])

    def _read(self, connection: Connection) -> None:
        try:
            data, ancillary, _, _ = connection.socket.recvmsg(1 << 18, _CMSG)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        now = time.monotonic_ns()
        if not data:
            self._drop(connection)
            return
        connection.inbox += data
        connection.touched_ns = now
        kernel = None
        if ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            kernel = seconds * 1_000_000_000 + nanoseconds - self._realtime_offset
        try:
            request = connection.request(now, kernel)
        except ValueError:
            connection.pieces = [Piece(now, document(400, {"error": {"message": "not HTTP"}}), "error")]
            connection.closes = True
            self._schedule(connection)
            return
        if request is not None:
            self._answer(connection, request)

    def _answer(self, connection: Connection, request: Request) -> None:
        answerer = self._answerer
        start = request.kernel_ns or request.received_ns
        closes = request.headers.get("connection", "").lower() == "close"
        route = request.path.rsplit("/v1", 1)[-1] if "/v1/" in request.path else request.path
        if request.method == "POST" and route in ("/completions", "/chat/completions"):
            pieces, ends = answerer.pieces(request, start)
            closes = closes or ends
            connection.truth = {
                "request": request.headers.get("x-request-id"),
                "path": request.path,
                "received_ns": request.received_ns,
                "kernel_ns": request.kernel_ns,
                "sends": [],
            }
        else:
            pieces = [Piece(start, self._plain(request, route), "document")]
        connection.pieces, connection.closes = pieces, closes
        self._schedule(connection)

    def _plain(self, request: Request, route: str) -> bytes:
        base = self._answerer.base
        if route in ("/health", "/"):
            return document(503 if base.never_ready else 200, {"status": "starting" if base.never_ready else "ok"})
        if route == "/models":
            return document(200, {"object": "list", "data": [{"id": self._answerer.model, "object": "model"}]})
        if route == "/tokenize" and request.method == "POST":
            try:
                tokens = words(json.loads(request.body)["prompt"])
            except (ValueError, KeyError, TypeError, AttributeError):
                return document(400, {"error": {"message": "needs a JSON object with `prompt`"}})
            ids = [random.Random(word).randrange(base.vocab_size) for word in tokens]
            return document(200, {"tokens": ids, "count": len(ids), "max_model_len": 1 << 20})
        return document(404, {"error": {"message": f"nothing at {request.method} {request.path}"}})

    def _schedule(self, connection: Connection) -> None:
        """Put the connection's next piece in the queue."""
        if connection.pieces and connection.alive:
            self._sequence += 1
            heapq.heappush(self._due, (connection.pieces[0].due_ns, self._sequence, connection))

    def _expire(self, connection: Connection) -> None:
        idle = self._answerer.base.idle_close_ms
        if idle:
            self._sequence += 1
            at = connection.touched_ns + int(idle * _MILLISECOND)
            heapq.heappush(self._due, (at, self._sequence, connection))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic_ns():
            _, _, connection = heapq.heappop(self._due)
            if connection.alive:
                self._send(connection)
        if self._due and self._due[0][0] < _NEVER:
            self._timer.set(self._due[0][0])

    def _send(self, connection: Connection) -> None:
        now = time.monotonic_ns()
        if not connection.pieces:
            idle = self._answerer.base.idle_close_ms * _MILLISECOND
            if idle and now - connection.touched_ns >= idle:
                self._drop(connection)
            return
        if connection.pieces[0].due_ns > now or connection.outbox:
            return
        piece = connection.pieces.pop(0)
        connection.touched_ns = now
        if piece.kind == "reset":
            # Linger of zero seconds: the client gets RST instead of FIN.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._drop(connection)
            return
        connection.outbox = piece.data
        before = time.monotonic_ns()
        whole = self._push(connection)
        after = time.monotonic_ns()
        if connection.truth is not None:
            connection.truth["sends"].append((piece.due_ns, before, after, piece.kind, piece.tokens))
        if whole:
            self._sent(connection)

    def _push(self, connection: Connection) -> bool:
        """Hand over what is in the outbox; true once it is empty."""
        try:
            sent = connection.socket.send(connection.outbox) if connection.outbox else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return False
        connection.outbox = connection.outbox[sent:]
        if connection.outbox:
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return not connection.outbox

    def _sent(self, connection: Connection) -> None:
        """A piece has gone: line up the next one, or end the answer."""
        if connection.pieces:
            self._schedule(connection)
            return
        self._tell(connection)
        if connection.closes:
            self._drop(connection)
        else:
            self._expire(connection)

    def _tell(self, connection: Connection) -> None:
        if connection.truth is not None and self._truth is not None:
            self._truth.write(json.dumps(connection.truth) + "\n")
            self._truth.flush()
        connection.truth = None

    def _drop(self, connection: Connection) -> None:
        if connection.alive:
            connection.alive = False
            self._tell(connection)
            self._poll.unregister(connection.socket.fileno())
            del self._connections[connection.socket.fileno()]
            connection.socket.close()


class _Timer:
    """A timer file descriptor at absolute CLOCK_MONOTONIC times; Python has its own only from 3.13."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self, at_ns: int) -> None:
        value = struct.pack("@llll", 0, 0, at_ns // _BILLION, at_ns % _BILLION)
        _libc.timerfd_settime(self.fd, 1, value, None)

    def clear(self) -> None:
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return


class _Events:
    """Start-up phases as JSON lines, for the harness to read."""

    def __init__(self, path: str | None) -> None:
        self._file = Path(path).open("a", encoding="utf-8") if path else None  # noqa: SIM115

    def phase(self, name: str, start_ns: int, end_ns: int) -> None:
        self.event(name, t_ns=start_ns, end_ns=end_ns)

    def event(self, name: str, **more: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"name": name, "t_ns": time.monotonic_ns()} | more) + "\n")
            self._file.flush()


def _offset_ns() -> int:
    before = time.monotonic_ns()
    real = time.time_ns()
    return real - (before + time.monotonic_ns()) // 2


def _listener(host: str, port: int, unix: str | None) -> socket.socket:
    if unix:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(unix)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    listener.listen(1024)
    return listener


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; it is printed")
    parser.add_argument("--unix", help="listen at this path instead")
    parser.add_argument("--script", default="{}", help="JSON object; see Script")
    parser.add_argument("--model", default="simulated")
    parser.add_argument("--truth", help="append to this file what was sent, and when")
    parser.add_argument("--events", help="append start-up events to this file")
    parser.add_argument("--launch", default="0", help="draws this launch's noise, together with the seed")
    parser.add_argument("--block", type=int, default=0)
    parser.add_argument("--position", type=int, default=0)
    parser.add_argument("--die-with-parent", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Start up as scripted, then serve until told to end."""
    began = time.monotonic_ns()
    arguments = _arguments()
    if arguments.die_with_parent:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    events = _Events(arguments.events)
    try:
        plan: Script = script(json.loads(arguments.script))
    except (BadScript, ValueError) as error:
        print(f"bad script: {error}", file=sys.stderr)
        return 2
    events.event("script", script=asdict(plan))
    events.phase("imports", began, time.monotonic_ns())
    for name, length in plan.start_phases_ms.items():
        start = time.monotonic_ns()
        time.sleep(length / 1e3)
        events.phase(name, start, time.monotonic_ns())
    try:
        listener = _listener(arguments.host, arguments.port, arguments.unix)
    except OSError as error:
        print(f"cannot listen on {arguments.unix or f'{arguments.host}:{arguments.port}'}: {error}", file=sys.stderr)
        return 1
    events.event("listening")
    where = arguments.unix or f"http://{arguments.host}:{listener.getsockname()[1]}"
    print(f"listening on {where}", flush=True)
    truth = Path(arguments.truth).open("a", encoding="utf-8") if arguments.truth else None  # noqa: SIM115
    timing = Timing(plan.noise, arguments.launch, arguments.block, arguments.position)
    try:
        Server(listener, Answerer(plan, timing, arguments.model), truth).serve()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
