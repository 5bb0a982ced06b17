"""Where a server is, and how a connection to it is opened so that the kernel stamps what it receives."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any

from bench.loadgen.punctuality import Pause
from bench.loadgen.wire import Connection, SocketConnection, StreamConnection

# Missing from Python's socket module. This number is the layout of two longs, which 64-bit kernels write.
SO_TIMESTAMPNS = 35


@dataclass(slots=True)
class Target:
    """A server's address: a name or number, or unix:/path."""

    host: str
    port: int
    tls: bool = False
    # Given to the connections of a crowd of streams; see Pause.
    pause: Pause | None = None
    # Bytes of one answer that are taken in at most; no bound where everything that comes is to be measured.
    most: int | None = None
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    async def connect(self) -> Connection:
        """Open a connection; OSError if there is none to be had."""
        try:
            connection = await self._connect()
        except UnicodeError as error:
            raise OSError(f"{self.host!r} is no host name: {error}") from error
        connection.most = self.most
        return connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self.tls:
            self._context = self._context or ssl.create_default_context()
            _, connection = await loop.create_connection(
                lambda: StreamConnection(loop), self.host, self.port, ssl=self._context
            )
            return connection
        began, refusal = monotonic_ns(), OSError(f"{self.host} has no address")
        for family, address in await self._addresses(loop):
            try:
                sock = await _connected(loop, family, address)
            except OSError as error:
                # A name may stand for IPv6 and IPv4, and the server listen on one of them.
                refusal = error
            else:
                return SocketConnection(loop, sock, monotonic_ns() - began, self.pause)
        raise refusal

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> list[tuple[socket.AddressFamily, Any]]:
        if self.host.startswith("unix:"):
            return [(socket.AF_UNIX, self.host.removeprefix("unix:"))]
        found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.host.startswith("unix:"):
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def _connected(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask_for_stamps(sock)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def ask_for_stamps(sock: socket.socket) -> None:
    """Have the kernel stamp what it receives; where it can't, the reads come without and the user's stamps serve."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
