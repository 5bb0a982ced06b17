"""Drives the real client, in this process, against handlers that write bytes as they please."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.loadgen.clock import Clock
from bench.loadgen.driver import Driver
from bench.loadgen.job import Request, Schedule
from bench.loadgen.rows import Columns, Turn, row
from bench.loadgen.target import Target

Write = Callable[[bytes], Awaitable[None]]
Answerer = Callable[["Asked", Write], Awaitable[bool]]


@dataclass
class Asked:
    """A request as the server saw it."""

    connection: int
    number: int
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Seen:
    """What came of a drive, from both ends."""

    rows: list[dict[str, Any]]
    asked: list[Asked]
    columns: Columns
    connections: int = 0


@dataclass
class Scripted:
    """A server that lets `answerer` write; it keeps the connection while the answerer returns True."""

    answerer: Answerer
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")
                )
                body = await reader.readexactly(length)
                self.asked.append(Asked(number, len(self.asked), head, body))
                if not await self.answerer(self.asked[-1], write):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ask(count: int, body: dict[str, Any] | None = None) -> list[list[Turn]]:
    """So many lone requests."""
    return [
        [Turn(Request(number, f"p{number}", "measured", "/v1/x", {}), 0, 0, body=json.dumps(body or {}).encode())]
        for number in range(count)
    ]


async def drive(
    conversations: list[list[Turn]],
    answerer: Answerer,
    *,
    schedule: Schedule | None = None,
    timeout_s: float = 5.0,
    unix: Path | None = None,
    handler: Any = None,
) -> Seen:
    """Send the conversations to a scripted server (or to a raw stream handler) and read what came back."""
    scripted = Scripted(answerer)
    handlers: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await (handler or scripted.serve)(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()

    if unix is not None:
        server = await asyncio.start_unix_server(serve, unix)
        target = Target(f"unix:{unix}", 0)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        seen = await drive_at(target, conversations, schedule=schedule, timeout_s=timeout_s)
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await asyncio.sleep(0)
    seen.asked, seen.connections = scripted.asked, scripted.connections
    return seen


async def drive_at(
    target: Target, conversations: list[list[Turn]], *, schedule: Schedule | None = None, timeout_s: float = 5.0
) -> Seen:
    """Send the conversations to any address."""
    clock, columns = Clock(), Columns()
    clock.sample()
    driver = Driver(target, {}, timeout_s, lambda _: None)
    schedule = schedule or Schedule(streams=1)
    if schedule.streams is not None:
        await driver.closed(conversations, schedule.streams)
    else:
        await driver.open(conversations, schedule)
    clock.sample()
    rows = [row(turn, clock, columns, keep_text=True)[0] for turns in conversations for turn in turns]
    return Seen(rows, [], columns)
