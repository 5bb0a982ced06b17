"""The simulated server's event loop: one thread, epoll and a timer file descriptor. Standard library only.

A chunk leaves within tens of microseconds of its time where the machine lets it, and what really happened is logged.
"""

from __future__ import annotations

import ctypes
import heapq
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, TextIO

from bench.emulate.server.answerer import Answerer, Request
from bench.emulate.server.stream import NEVER, Piece, document

_MILLISECOND = 1_000_000
_BILLION = 1_000_000_000
_SO_TIMESTAMPNS = 35
_CMSG = socket.CMSG_SPACE(16)
_TIMESPEC = struct.Struct("@ll")
_libc = ctypes.CDLL(None, use_errno=True)


class Connection:
    """One client: bytes in until a request is whole, bytes out when they are due."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.inbox = bytearray()
        self.outbox = b""
        self.pieces: Iterator[Piece] = iter(())
        self.piece: Piece | None = None
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
        method, path, version = lines[0].split(" ", 2)
        body = bytes(self.inbox[head_end + 4 : head_end + 4 + length])
        del self.inbox[: head_end + 4 + length]
        return Request(method, path.split("?")[0], headers, body, user_ns, kernel_ns, version)


class Server:
    """The event loop."""

    def __init__(self, listener: socket.socket, answerer: Answerer, truth: TextIO | None) -> None:
        self._listener = listener
        self._answerer = answerer
        self._idle_ns = int(answerer.base.idle_close_ms * _MILLISECOND)
        self._truth = truth
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, Connection]] = []
        self._sequence = 0
        self._poll = select.epoll()
        self._timer = _Timer()
        self._realtime_offset = _offset_ns()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._poll.register(self._timer.fd, select.EPOLLIN)

    def serve(self) -> int:
        """Run until TERM or INT, heeded between two turns so that the truth log is whole; gives the signal."""
        wake, alarm = os.pipe()
        os.set_blocking(alarm, False)
        signal.set_wakeup_fd(alarm)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._poll.register(wake, select.EPOLLIN)
        while True:
            for fd, mask in self._poll.poll():
                if fd == wake:
                    return os.read(wake, 1)[0]
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._timer.fd:
                    self._timer.clear()
                elif connection := self._connections.get(fd):
                    if mask & select.EPOLLOUT and self._push(connection):
                        self._poll.modify(fd, select.EPOLLIN)
                        self._next(connection)
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
            connection.pieces = iter([Piece(now, document(400, {"error": {"message": "not HTTP"}}), "error")])
            connection.closes = True
            self._next(connection)
            return
        if request is not None:
            self._answer(connection, request)

    def _answer(self, connection: Connection, request: Request) -> None:
        response = self._answerer.answer(request)
        connection.pieces = response.pieces
        connection.closes = response.closes or request.headers.get("connection", "").lower() == "close"
        if request.completion:
            connection.truth = {
                "request": request.headers.get("x-request-id"),
                "path": request.path,
                "received_ns": request.received_ns,
                "kernel_ns": request.kernel_ns,
                "sends": [],
            }
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        """Queue the answer's next piece, or end the answer."""
        connection.piece = next(connection.pieces, None)
        if connection.piece is not None:
            self._at(connection.piece.due_ns, connection)
            return
        self._tell(connection)
        if connection.closes:
            self._drop(connection)
        else:
            self._expire(connection)

    def _at(self, due_ns: int, connection: Connection) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (due_ns, self._sequence, connection))

    def _expire(self, connection: Connection) -> None:
        if self._idle_ns:
            self._at(connection.touched_ns + self._idle_ns, connection)

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic_ns():
            _, _, connection = heapq.heappop(self._due)
            if connection.alive:
                self._send(connection)
        if self._due and self._due[0][0] < NEVER:
            self._timer.set(self._due[0][0])

    def _send(self, connection: Connection) -> None:
        now = time.monotonic_ns()
        piece = connection.piece
        if piece is None:
            if self._idle_ns and now - connection.touched_ns >= self._idle_ns:
                self._drop(connection)
            return
        if piece.due_ns > now or connection.outbox:
            return
        connection.piece = None
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
            self._next(connection)

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


def _offset_ns() -> int:
    """CLOCK_REALTIME − CLOCK_MONOTONIC, from the tightest of a few readings."""
    readings = []
    for _ in range(9):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
