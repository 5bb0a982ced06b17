"""A proxy that makes a server slower by a known share: the ruler that a gate's power is measured with.

    slowing_proxy.py --listen 8001 --upstream 127.0.0.1:8000 --ttft 0.1 --itl 0.05 -- python -m some_server --port 8000

The command after `--` is started and ends with the proxy; without one it stands before a server that runs already. Time
from request to first token is stretched by `ttft`, every gap after it by `itl`. With 0 and 0 it only passes bytes on:
both arms of an experiment go through it, so that its own cost is in neither. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

# An event that carries text; role, usage and finish events do not.
TOKEN = re.compile(rb'"(?:content|reasoning_content|reasoning|text)"\s*:\s*"[^"]')
HEAD_LIMIT = 1 << 20
# asyncio's timers are good to about a millisecond; the rest is waited for with open eyes.
SPIN_S = 0.002


@dataclass
class Stretch:
    """When a chunk that came in at `now` is due; all in seconds of one clock."""

    asked: float
    ttft: float
    itl: float
    answering: bool = False
    came: float = 0.0
    due: float = field(default=0.0)

    def when(self, now: float, chunk: bytes) -> float:
        """The time at which to pass the chunk on."""
        if self.answering:
            self.due = max(self.due + (1 + self.itl) * (now - self.came), now)
        else:
            self.due = self.asked + (1 + self.ttft) * (now - self.asked)
            self.answering = TOKEN.search(chunk) is not None
        self.came = now
        return self.due


async def until(due: float) -> None:
    """Return at `due` to within a few microseconds; at once if it has passed."""
    if (left := due - time.perf_counter() - SPIN_S) > 0:
        await asyncio.sleep(left)
    while time.perf_counter() < due:
        pass


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, options: argparse.Namespace) -> None:
    """Serve one client connection over one upstream connection, request by request."""
    upstream: asyncio.StreamWriter | None = None
    try:
        answers, upstream = await asyncio.open_connection(options.host, options.port, limit=HEAD_LIMIT)
        for end in (writer, upstream):
            end.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while await exchange(reader, writer, answers, upstream, options):
            pass
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, OSError):
        # The client or the server has gone, or the proxy is about to: nobody is left to answer.
        pass
    finally:
        for one in (writer, upstream):
            if one is not None:
                one.close()
                with contextlib.suppress(ConnectionError, OSError):
                    await one.wait_closed()


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answers: asyncio.StreamReader,
    upstream: asyncio.StreamWriter,
    options: argparse.Namespace,
) -> bool:
    """One request and its answer; whether both sides keep the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    upstream.write(head)
    async for piece in body(head, reader, request=True):
        upstream.write(piece)
    await upstream.drain()
    stretch = Stretch(time.perf_counter(), options.ttft, options.itl)
    answer = await answers.readuntil(b"\r\n\r\n")
    streaming = b"text/event-stream" in answer.lower()
    if not streaming:
        writer.write(answer)
        async for piece in body(answer, answers):
            writer.write(piece)
        await writer.drain()
        return _kept(head) and _kept(answer)
    # Reading goes on while a chunk waits for its time: its arrival must be stamped when it happens.
    queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    sender = asyncio.create_task(send(queue, writer))
    try:
        queue.put_nowait((0.0, answer))
        async for piece in body(answer, answers):
            queue.put_nowait((stretch.when(time.perf_counter(), piece), piece))
        queue.put_nowait(None)
        await sender
    finally:
        sender.cancel()
    return _kept(head) and _kept(answer) and (_chunked(answer) or _length(answer) is not None)


async def send(queue: asyncio.Queue[tuple[float, bytes] | None], writer: asyncio.StreamWriter) -> None:
    """Write each piece at its time."""
    while (item := await queue.get()) is not None:
        due, piece = item
        await until(due)
        writer.write(piece)
        await writer.drain()


async def body(head: bytes, reader: asyncio.StreamReader, *, request: bool = False) -> AsyncIterator[bytes]:
    """The pieces of a message's body as they come, framing included."""
    if _chunked(head):
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
            if size == 0:
                return
    left = _length(head)
    if left is None and request:
        return
    while left is None or left > 0:
        piece = await reader.read(65536 if left is None else min(left, 65536))
        if not piece:
            return
        left = None if left is None else left - len(piece)
        yield piece


def _header(head: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"\r\n" + name + rb":[ \t]*([^\r\n]*)", head, re.IGNORECASE)
    return found[1].strip() if found else None


def _chunked(head: bytes) -> bool:
    return (_header(head, b"transfer-encoding") or b"").lower() == b"chunked"


def _length(head: bytes) -> int | None:
    value = _header(head, b"content-length")
    return int(value) if value is not None else None


def _kept(head: bytes) -> bool:
    return (_header(head, b"connection") or b"").lower() != b"close" and not head.startswith(b"HTTP/1.0")


async def serve(options: argparse.Namespace, child: subprocess.Popen[bytes] | None) -> int:
    """Listen once the server behind does, so that the port opens when the server is really there."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    while not stopped.is_set():
        if child is not None and child.poll() is not None:
            return child.returncode
        try:
            _, probe = await asyncio.open_connection(options.host, options.port)
        except OSError:
            await asyncio.sleep(0.005)
            continue
        probe.close()
        break
    server = await asyncio.start_server(
        lambda reader, writer: pass_on(reader, writer, options), options.host, options.listen, limit=HEAD_LIMIT
    )
    while not stopped.is_set() and (child is None or child.poll() is None):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 0.05)
    server.close()
    return stop(child) if child is not None else 0


def stop(child: subprocess.Popen[bytes]) -> int:
    """Ask the server to go, and say how it went."""
    if child.poll() is None:
        child.terminate()
    return child.wait()


def main() -> int:
    """Parse, start the server behind, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="host:port")
    parser.add_argument("--ttft", type=float, default=0.0)
    parser.add_argument("--itl", type=float, default=0.0)
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    options.host, _, port = options.upstream.rpartition(":")
    options.port = int(port)
    child = subprocess.Popen(options.command) if options.command else None
    code = asyncio.run(serve(options, child))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
