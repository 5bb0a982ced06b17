"""Sends requests when they are due and keeps what comes back. Everything runs on one event loop; nothing is parsed."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any

from bench.loadgen.answer import answer
from bench.loadgen.exchange import Exchange
from bench.loadgen.job import Schedule
from bench.loadgen.punctuality import Pause, Timer
from bench.loadgen.rows import Turn
from bench.loadgen.target import Target
from bench.loadgen.wire import Connection

# An open load of unknown depth starts with this many connections open; more are opened when needed.
_PREOPENED = 64
# From this many closed streams on, the client rests this long between rounds of reads.
_CROWD = 16
_REST_S = 0.001
# Between the last preparation of an open load and its first send.
_LEAD_NS = 1_000_000


@dataclass(slots=True)
class Line:
    """A place for one connection, reopened when it was lost."""

    number: int
    connection: Connection | None = None


@dataclass(slots=True)
class Driver:
    """Drives conversations (lists of turns; a lone request is a conversation of one) against a target."""

    target: Target
    headers: Mapping[str, str]
    timeout_s: float
    progress: Callable[[int], None]
    _done: int = 0
    _lines: list[Line] = field(default_factory=list)

    async def closed(self, conversations: list[list[Turn]], streams: int) -> None:
        """`streams` streams, each sending its next request when it has the answer to the one before."""
        if streams >= _CROWD:
            self.target.pause = Pause(asyncio.get_running_loop(), _REST_S)
        queue = iter(conversations)
        try:
            await self._open(min(streams, len(conversations)))
            await asyncio.gather(*(self._stream(line, queue) for line in self._lines))
        finally:
            self._close()

    async def open(self, conversations: list[list[Turn]], schedule: Schedule) -> None:
        """Conversations begin at their scheduled times, whether or not the earlier ones were answered."""
        cap = min(schedule.max_in_flight or len(conversations), len(conversations))
        await self._open(min(cap, _PREOPENED))
        free = deque(self._lines)
        waiting: deque[list[Turn]] = deque()
        finished = asyncio.Event()
        start = schedule.start_ns or monotonic_ns() + _LEAD_NS
        due = deque(zip(schedule.offsets_ns, conversations, strict=False))

        async def carry(line: Line, turns: list[Turn]) -> None:
            await self._conversation(line, turns)
            free.append(line)
            launch()

        def launch() -> None:
            while waiting and (free or len(self._lines) < cap):
                if not free:
                    self._lines.append(Line(len(self._lines)))
                    free.append(self._lines[-1])
                group.create_task(carry(free.pop(), waiting.popleft()))
            if not due and not waiting and len(free) == len(self._lines):
                finished.set()

        def tick() -> None:
            now = monotonic_ns()
            while due and start + due[0][0] <= now:
                offset, turns = due.popleft()
                turns[0].intended_ns = start + offset
                waiting.append(turns)
            if due:
                timer.set(start + due[0][0])
            launch()

        timer = Timer(asyncio.get_running_loop(), tick)
        try:
            async with asyncio.TaskGroup() as group:
                timer.set(start)
                await finished.wait()
        finally:
            timer.close()
            self._close()

    async def _open(self, count: int) -> None:
        """Connections opened before the clock starts; one that fails is tried again when a request needs it."""

        async def connected(line: Line) -> None:
            try:
                async with asyncio.timeout(self.timeout_s):
                    line.connection = await self.target.connect()
                line.connection.preopened()
            except OSError:
                pass

        # Known before they are opened: a job that is broken off meanwhile closes what is open by then.
        self._lines = [Line(number) for number in range(count)]
        try:
            await asyncio.gather(*map(connected, self._lines))
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        for line in self._lines:
            if line.connection is not None:
                line.connection.close()

    async def _stream(self, line: Line, queue: Iterator[list[Turn]]) -> None:
        for turns in queue:
            turns[0].intended_ns = monotonic_ns()
            await self._conversation(line, turns)

    async def _conversation(self, line: Line, turns: list[Turn]) -> None:
        """Ask turn by turn, each with all that was said before it; a turn without an answer ends the conversation."""
        said: list[dict[str, Any]] = []
        for number, turn in enumerate(turns):
            turn.stream = line.number
            if number:
                answered = _answered(turns[number - 1])
                turn.intended_ns = monotonic_ns()
                if answered is None:
                    turn.failure = ("cancelled", "not sent: the turn before it has no answer to go on from")
                    turn.over_ns = turn.intended_ns
                    self._count()
                    continue
                turn.body, said = _continued(turn.body, [*said, {"role": "assistant", "content": answered}])
                turn.intended_ns = monotonic_ns()
            elif len(turns) > 1:
                said = json.loads(bytes(turn.body)).get("messages", [])
            await self._ask(line, turn)
            turn.over_ns = monotonic_ns()
            self._count()

    def _count(self) -> None:
        self._done += 1
        self.progress(self._done)

    async def _ask(self, line: Line, turn: Turn) -> None:
        """Send one request; a kept connection that the server closed meanwhile is replaced, once."""
        request = self._encoded(turn)
        stale: Exchange | None = None
        for _ in range(2):
            try:
                connection = await self._connection(line)
            except OSError as error:
                turn.exchange, turn.failure = stale, self._unreachable(error, stale)
                return
            kept = connection.kept
            exchange, ended = connection.start(request)
            # Known from now on: whoever watches may look at what has come so far.
            turn.exchange = exchange
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self.timeout_s, self._give_up, connection, exchange)
            await ended
            timer.cancel()
            if not (kept and not exchange.reads and exchange.failure and exchange.failure[0] == "closed"):
                return
            stale = exchange

    def _unreachable(self, error: OSError, stale: Exchange | None) -> tuple[str, str]:
        silent = isinstance(error, TimeoutError)
        reason = f"nothing came back within {self.timeout_s:g} s" if silent else str(error)
        if stale is not None:
            return "closed", f"the server closed the connection without an answer and takes no new one: {reason}"
        return "connect", f"cannot connect to {self.target.authority}: {reason}"

    async def _connection(self, line: Line) -> Connection:
        if line.connection is None or not line.connection.open:
            async with asyncio.timeout(self.timeout_s):
                line.connection = await self.target.connect()
        return line.connection

    def _give_up(self, connection: Connection, exchange: Exchange) -> None:
        if exchange.user:
            silent = (monotonic_ns() - exchange.user[-1]) / 1e9
            what = f"the last bytes came {silent:.3g} s before"
        else:
            what = "nothing came back"
        connection.give_up("timeout", f"no end within {self.timeout_s:g} s of sending: {what}")

    def _encoded(self, turn: Turn) -> bytes:
        fields = {
            "Host": self.target.authority,
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "Content-Length": str(len(turn.body)),
            "X-Request-Id": f"firsttoken-{turn.request.request_id}",
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return b"".join((f"POST {turn.request.path} HTTP/1.1\r\n{lines}\r\n".encode(), turn.body))


def _answered(turn: Turn) -> str | None:
    """The whole answer to a turn; None if it got none."""
    if turn.exchange is None or not turn.exchange.complete:
        return None
    return answer(turn.exchange.reads).text or None


def _continued(body: bytes | memoryview, said: list[dict[str, Any]]) -> tuple[bytes, list[dict[str, Any]]]:
    """This turn's body with the whole conversation so far in front of its own question, and that conversation."""
    content = json.loads(bytes(body))
    if not content.get("messages"):
        return bytes(body), said
    content["messages"] = [*said, content["messages"][-1]]
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"), content["messages"]
