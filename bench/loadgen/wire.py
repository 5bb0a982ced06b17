"""Bytes in, stamps out: HTTP/1.1 connections whose every read carries the time at which the kernel received it.

Nothing is parsed here but what finds the response's end; the meaning of the bytes is read after driving.
"""

from __future__ import annotations

import asyncio
import socket
from time import monotonic_ns
from typing import cast

from bench.loadgen.exchange import Exchange
from bench.loadgen.punctuality import Pause

_READ_BYTES = 1 << 18
# A connection that was opened longer ago than this, and not used yet, may have been dropped.
_FRESH_NS = 1_000_000_000
_ANCILLARY_BYTES = socket.CMSG_SPACE(16)
# One buffer for all sockets of the process: reads never overlap, and what is kept is copied at its true size.
_VIEW = memoryview(bytearray(_READ_BYTES))
_BUFFERS = (_VIEW,)


class Connection:
    """Carries one exchange at a time. Subclasses bring the bytes in and out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect_ns: int) -> None:
        self.open = True
        self.most: int | None = None
        self._used = False
        self._opened_ns = monotonic_ns()
        self._loop = loop
        self._connect_ns: int | None = connect_ns
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def kept(self) -> bool:
        """Whether it has been open long enough for the server to have dropped it meanwhile."""
        return self._used or monotonic_ns() - self._opened_ns > _FRESH_NS

    def start(self, request: bytes) -> tuple[Exchange, asyncio.Future[None]]:
        """Send a request; the future is done when the exchange is over, and never fails."""
        exchange = self._exchange = Exchange(self.most)
        ended = self._ended = self._loop.create_future()
        # A connection opened before the clock started costs its first request nothing.
        exchange.connect_ns, self._connect_ns = self._connect_ns, None
        self._send(exchange, request)
        return exchange, ended

    def preopened(self) -> None:
        """Forget how long opening took: it happened before the clock started."""
        self._connect_ns = None

    def give_up(self, kind: str, sentence: str) -> None:
        """End the exchange in failure, and the connection with it."""
        if self._exchange is not None:
            self._exchange.failure = (kind, sentence)
            self._over()

    def close(self) -> None:
        """Close it, whatever it carries."""
        self.open = False

    def _send(self, exchange: Exchange, request: bytes) -> None:
        """Hand the request to the kernel, stamping the first and the last byte."""

    def _unsent(self) -> bool:
        """Whether part of the request is still here."""
        return False

    def _over(self) -> None:
        exchange, ended = self._exchange, self._ended
        self._exchange = self._ended = None
        if exchange is None or ended is None:
            return
        self._used = True
        if not exchange.finish() or self._unsent():
            self.close()
        if not ended.done():
            ended.set_result(None)

    def _lost(self, error: OSError | None) -> None:
        exchange = self._exchange
        self.close()
        if exchange is None:
            return
        if error is None:
            exchange.eof()
        elif exchange.failure is None:
            exchange.failure = ("closed", f"the connection broke: {error.strerror or error}")
        self._over()


class SocketConnection(Connection):
    """A plain socket on the event loop, stamped by the kernel where the kernel does that (TCP)."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, connect_ns: int, pause: Pause | None = None
    ) -> None:
        super().__init__(loop, connect_ns)
        self._pause = pause
        self._socket = sock
        self._receive = sock.recvmsg_into
        self._rest: memoryview | None = None
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Close the socket."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _send(self, exchange: Exchange, request: bytes) -> None:
        self._rest = memoryview(request)
        exchange.sent_ns = monotonic_ns()
        self._write()
        if self._rest is not None:
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _write(self) -> None:
        assert self._rest is not None
        try:
            sent = self._socket.send(self._rest)
        except BlockingIOError:
            return
        except OSError:
            # The reason stands in what the server sent before it closed, or in the read that fails next.
            self._rest = None
            return
        if sent < len(self._rest):
            self._rest = self._rest[sent:]
            return
        self._rest = None
        if self._exchange is not None:
            self._exchange.sent_end_ns = monotonic_ns()

    def _writable(self) -> None:
        if self._rest is not None:
            self._write()
        if self._rest is None and self.open:
            self._loop.remove_writer(self._socket.fileno())

    def _unsent(self) -> bool:
        return self._rest is not None

    def _readable(self) -> None:
        try:
            size, ancillary, _, _ = self._receive(_BUFFERS, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        now = monotonic_ns()
        if not size:
            self._lost(None)
        elif self._exchange is None:
            # Bytes that nobody asked for: what follows on this connection could not be trusted.
            self.close()
        else:
            # Only a read that the kernel stamped may wait for others.
            if ancillary and self._pause is not None:
                self._pause.soon()
            if self._exchange.feed(_VIEW[:size].tobytes(), now, ancillary[0][2] if ancillary else None):
                self._over()


class StreamConnection(Connection, asyncio.Protocol):
    """A TLS connection: the kernel's stamps lie under the encryption, so the user's have to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, 0)
        self._began = monotonic_ns()
        self._transport: asyncio.Transport | None = None
        self._writing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop once the handshake is done."""
        # uvloop's transports have this interface and not this base class.
        self._transport = cast(asyncio.Transport, transport)
        # Writing pauses while there is anything left to write, and resumes when there is nothing.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._connect_ns = monotonic_ns() - self._began

    def data_received(self, data: bytes) -> None:
        """Called by the loop with decrypted bytes."""
        now = monotonic_ns()
        if self._exchange is None:
            self.close()
        elif self._exchange.feed(data, now, None):
            self._over()

    def eof_received(self) -> bool:
        """Called by the loop: nothing more will come."""
        self._lost(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._lost(exc if exc is None or isinstance(exc, OSError) else OSError(str(exc)))

    def pause_writing(self) -> None:
        """Called by the loop while the request does not fit."""
        self._writing = True

    def resume_writing(self) -> None:
        """Called by the loop when the last byte has gone."""
        self._writing = False
        if self._exchange is not None:
            self._exchange.sent_end_ns = monotonic_ns()

    def close(self) -> None:
        """Close the transport."""
        if self.open:
            self.open = False
            if self._transport is not None:
                self._transport.abort()

    def _send(self, exchange: Exchange, request: bytes) -> None:
        assert self._transport is not None
        exchange.sent_ns = monotonic_ns()
        self._transport.write(request)
        if not self._writing:
            exchange.sent_end_ns = monotonic_ns()

    def _unsent(self) -> bool:
        return self._writing
