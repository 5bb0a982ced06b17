"""The load generator's process: jobs in on stdin, rows out on stdout. Lean: no pandas, no pydantic, no numpy."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import uvloop

from bench import pipes
from bench.loadgen import rows
from bench.loadgen.answer import answer
from bench.loadgen.clock import Clock
from bench.loadgen.driver import Driver
from bench.loadgen.job import Frame, Request, Schedule, receive, send
from bench.loadgen.punctuality import Timer, first_in_line
from bench.loadgen.target import Target, ask_for_stamps

_PR_SET_PDEATHSIG = 1
_TICK_NS = 20_000_000
_PROGRESS_NS = 200_000_000
# An open-loop request that leaves later than this after its time, for no other reason than us, was missed.
_LATE_NS = 1_000_000


def main() -> None:
    """Serve jobs until stdin closes."""
    parent = int(sys.argv[1])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent that gives up on a silent worker aborts it: what it was at goes to stderr, and from there to the user.
    faulthandler.enable()
    # While any socket asks for receive stamps the kernel stamps every packet: none is missed at the start of a job.
    keeper = socket.socket()
    ask_for_stamps(keeper)
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    while (frame := receive(lambda most: pipes.read_some(stdin, most))) is not None:
        try:
            head, payload = _serve(*frame)
        except Exception:
            head, payload = {"failed": traceback.format_exc()}, b""
        send(stdout, head, payload)


def _serve(head: dict[str, Any], payload: bytes) -> Frame:
    conversations = _conversations(head["requests"], payload)
    count = sum(map(len, conversations))
    schedule = Schedule(head["streams"], tuple(head["offsets_ns"]), head["max_in_flight"], head["start_ns"])
    watch = _Watch(count, conversations[0][0] if head["tell_first"] else None)
    driver = Driver(Target(head["host"], head["port"], head["tls"]), head["headers"], head["timeout_s"], watch.progress)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with first_in_line() as watch.client["scheduling"]:
            uvloop.run(watch.over(driver, conversations, schedule))
    finally:
        # Watching stdin left it non-blocking, and the next job may be some time in coming.
        os.set_blocking(sys.stdin.fileno(), True)
        gc.enable()
        gc.unfreeze()
    return _results(head, conversations, watch)


def _conversations(requests: list[dict[str, Any]], payload: bytes) -> list[list[rows.Turn]]:
    """Turns in conversations, in order of their first turn; each with its slice of the payload as body."""
    conversations: list[list[rows.Turn]] = []
    bodies, at = memoryview(payload), 0
    holding: dict[int, list[rows.Turn]] = {}
    for fields in requests:
        size = fields.pop("size")
        request = Request(body={}, **fields)
        turn = rows.Turn(request, stream=0, intended_ns=0, body=bodies[at : at + size])
        at += size
        conversation = holding.get(request.after) if request.after is not None else None
        if conversation is None:
            conversation = []
            conversations.append(conversation)
        conversation.append(turn)
        holding[request.request_id] = conversation
    return conversations


class _Watch:
    """The client's account of itself while it drives: processor time, loop lag, memory, the two clocks."""

    def __init__(self, count: int, awaited: rows.Turn | None = None) -> None:
        self.clock = Clock()
        self.client: dict[str, Any] = {}
        self._count = count
        # The request whose first token is told while it is answered, until that has come.
        self._awaited = awaited
        self._looked = 0
        self._lags: list[int] = []
        self._due = 0
        self._reported = 0

    async def over(self, driver: Driver, conversations: list[list[rows.Turn]], schedule: Schedule) -> None:
        """Drive, watching."""
        loop = asyncio.get_running_loop()
        # The parent says nothing while a job runs: stdin becomes readable only by closing, with the parent's death.
        loop.add_reader(sys.stdin.fileno(), os._exit, 1)
        self.clock.sample()
        timer = self._timer = Timer(loop, self._tick)
        self._due = time.monotonic_ns() + _TICK_NS
        timer.set(self._due)
        wall, cpu = time.monotonic_ns(), time.process_time_ns()
        try:
            if schedule.streams is not None:
                await driver.closed(conversations, schedule.streams)
            else:
                await driver.open(conversations, schedule)
        finally:
            spent = time.process_time_ns() - cpu
            self.client["cpu_s"] = spent / 1e9
            self.client["wall_s"] = (time.monotonic_ns() - wall) / 1e9
            self.client["rss_mib"] = _rss_mib()
            timer.close()
            loop.remove_reader(sys.stdin.fileno())
            self.clock.sample()
        self.client["loop_lag_p99_ms"] = _p99(self._lags) / 1e6 if self._lags else None
        self.client["clock"] = self.clock.account()

    def progress(self, done: int) -> None:
        """Tell the parent now and then, and never wait for it."""
        now = time.monotonic_ns()
        if now - self._reported > _PROGRESS_NS and select.select((), (sys.stdout,), (), 0)[1]:
            self._reported = now
            send(sys.stdout.fileno(), {"done": done, "of": self._count})

    def _first(self, turn: rows.Turn) -> None:
        """Tell the parent that the first token of a request has come, once; between reads, so that no stamp waits."""
        reads = turn.exchange.reads if turn.exchange is not None else []
        if len(reads) == self._looked:
            return
        self._looked = len(reads)
        if answer(reads).first_token_read is not None and select.select((), (sys.stdout,), (), 0)[1]:
            self._awaited = None
            send(sys.stdout.fileno(), {"first_token": True})

    def _tick(self) -> None:
        now = time.monotonic_ns()
        self._lags.append(now - self._due)
        if len(self._lags) % 5 == 0:
            self.clock.sample()
        self._due = now + _TICK_NS
        self._timer.set(self._due)
        if self._awaited is not None:
            self._first(self._awaited)


def _results(head: dict[str, Any], conversations: list[list[rows.Turn]], watch: _Watch) -> Frame:
    cpu = time.process_time_ns()
    columns = rows.Columns()
    table: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    events = 0
    for turns in conversations:
        for turn in turns:
            fields, said = rows.row(turn, watch.clock, columns, keep_text=head["keep_text"])
            table.append(fields)
            events += len(said.chunks)
            if head["keep_logprobs"] and (document := rows.logprobs(turn.request, said)):
                documents.append(document)
            # The raw bytes have said what they had to say.
            turn.exchange, turn.body = None, b""
    table.sort(key=lambda fields: int(fields["request_id"]))
    rows.release(table, conversations, head["max_in_flight"] if head["streams"] is None else None)
    late = [
        row["sent_ns"] - (row["released_ns"] or row["intended_ns"]) - (row["connect_ns"] or 0)
        for row in table
        if row["sent_ns"] is not None
    ]
    watch.client |= {
        "events": events,
        "cpu_us_per_event": watch.client["cpu_s"] * 1e6 / events if events else None,
        "parse_cpu_s": (time.process_time_ns() - cpu) / 1e9,
        "missed": sum(delay > _LATE_NS for delay in late) if head["streams"] is None else 0,
    }
    arrays = {name: getattr(columns, name) for name in columns.__slots__}
    layout = [[name, values.typecode, len(values)] for name, values in arrays.items()]
    head = {"requests": table, "client": watch.client, "logprobs": documents, "layout": layout}
    return head, b"".join(values.tobytes() for values in arrays.values())


def _rss_mib() -> float:
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _p99(values: list[int]) -> int:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


if __name__ == "__main__":
    main()
