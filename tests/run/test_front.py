"""The address before changing engines: nothing lost, doubled or cut, whoever dies when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.engines.engine import Endpoint
from bench.engines.ports import free_port, is_open
from bench.errors import LaunchError
from bench.run.front import Front
from tests.waiting import until

TOKENS = 5


class Emulated:
    """A scripted server in a process of its own, with a log of what it truly sent."""

    def __init__(self, folder: Path, name: str, **script: Any) -> None:
        self.name, self.truth_file, port = name, folder / f"{name}.jsonl", free_port()
        self.endpoint = Endpoint("127.0.0.1", port, name)
        given = json.dumps({"ttft_ms": 4, "itl_ms": 1} | script)
        words = [f"--port={port}", f"--script={given}", f"--model={name}", f"--truth={self.truth_file}"]
        self.process = subprocess.Popen([sys.executable, "-m", "bench.emulate.server.program", *words])
        until(lambda: is_open("127.0.0.1", port))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def truth(self) -> list[str]:
        """The requests that it has answered to their end."""
        if not self.truth_file.exists():
            return []
        return [json.loads(line)["request"] for line in self.truth_file.read_text().splitlines()]


Started = Callable[..., Emulated]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Started]:
    made: list[Emulated] = []

    def start(name: str, **script: Any) -> Emulated:
        made.append(Emulated(tmp_path, name, **script))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def front() -> Iterator[Front]:
    with Front() as made:
        yield made


class Answer:
    """What a client got: head, body without its framing, and whether the framing came to its end."""

    def __init__(self, head: bytes, body: bytes, whole: bool) -> None:
        self.head, self.body, self.whole = head, body, whole
        self.status = int(head.split()[1]) if head else 0

    @property
    def complete(self) -> bool:
        """All tokens and the end of the stream."""
        return self.status == 200 and self.whole and self.body.count(b'"text"') >= TOKENS and b"[DONE]" in self.body

    @property
    def model(self) -> str:
        return str(json.loads(self.body.split(b"data: ")[1])["model"])


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, number: str, tokens: int = TOKENS) -> None:
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps({"prompt": [1, 2, 3], "max_tokens": tokens, "stream": True}).encode()
        self.writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-request-id: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (number.encode(), len(body), body)
        )

    async def receive(self) -> Answer:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return Answer(b"", b"", False)
        body, whole = await content(head, self.reader)
        if not whole or b"connection: close" in head.lower():
            self.close()
        return Answer(head, body, whole)

    async def ask(self, number: str, tokens: int = TOKENS) -> Answer:
        await self.send(number, tokens)
        return await self.receive()

    async def begun(self) -> None:
        """Wait for the head and the first chunk of a stream."""
        await self.reader.readuntil(b"\r\n\r\n")
        await self.reader.readexactly(int(await self.reader.readuntil(b"\r\n"), 16) + 2)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


@pytest.fixture(autouse=True)
async def connections(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Every connection that a test opens, closed at its end."""
    opened: list[asyncio.StreamWriter] = []
    connect = asyncio.open_connection

    async def noted(*words: Any, **more: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(*words, **more)
        opened.append(writer)
        return reader, writer

    monkeypatch.setattr(asyncio, "open_connection", noted)
    yield opened
    for writer in opened:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def content(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    body = b""
    try:
        if b"transfer-encoding: chunked" in head.lower():
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
            return body, True
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await reader.readexactly(int(line.split(b":")[1])), True
        return await reader.read(), True
    except asyncio.IncompleteReadError as error:
        return body + error.partial, False
    except ConnectionError:
        return body, False


async def order(work: Callable[..., None], *words: Any) -> None:
    """An order to the proxy, while clients go on."""
    await asyncio.to_thread(work, *words)


async def loaded(front: Front, engines: list[Emulated], streams: int, requests: int) -> dict[str, Answer]:
    """`requests` in all, by several streams, while each engine in turn takes over from the one before it."""
    answers: dict[str, Answer] = {}
    numbers = iter(range(requests))

    async def stream() -> None:
        client = Client(front.port)
        for number in numbers:
            answers[str(number)] = await client.ask(str(number))
        client.close()

    tasks = [asyncio.create_task(stream()) for _ in range(streams)]
    for index, one in enumerate(engines[1:], start=1):
        while len(answers) < requests * index // len(engines):
            await asyncio.sleep(0.005)
        await order(front.beside, one.name, one.endpoint)
        await order(front.over)
        while front.state != "compiled":
            await asyncio.sleep(0.002)
            await order(front.look)
    await asyncio.gather(*tasks)
    await order(front.ask)
    return answers


async def handed_over(front: Front, start: Started, streams: int, requests: int, engines: int) -> None:
    made = [start(f"e{index}") for index in range(engines)]
    front.serve("e0", made[0].endpoint)
    answers = await loaded(front, made, streams, requests)
    wrong = [number for number, answer in answers.items() if not answer.complete]
    assert (len(answers), wrong) == (requests, [])
    # Each was answered by exactly one engine, once, by its own account.
    counted = Counter(number for one in made for number in one.truth())
    assert counted == Counter(map(str, range(requests)))
    for one in made:
        passed = front.passed[one.name]
        assert (passed.begun, passed.answered, passed.died, passed.left) == (len(one.truth()),) * 2 + (0, 0)
        assert passed.begun > 0
    assert front.unserved == 0
    assert [state for state, _ in front.states if state == "compiled"] == ["compiled"] * (engines - 1)


async def test_no_request_is_lost_doubled_or_cut_while_engines_change_under_load(front: Front, engine: Started) -> None:
    await handed_over(front, engine, streams=8, requests=240, engines=4)


@pytest.mark.slow
async def test_ten_thousand_requests_through_twenty_hand_overs(front: Front, engine: Started) -> None:
    await handed_over(front, engine, streams=16, requests=10_000, engines=21)


async def test_a_running_answer_ends_where_it_began_and_a_new_one_does_not_wait_for_it(
    front: Front, engine: Started
) -> None:
    first, second = engine("first", itl_ms=30), engine("second")
    front.serve("first", first.endpoint)
    slow, quick = Client(front.port), Client(front.port)
    await slow.send("slow", tokens=20)
    await slow.begun()
    await order(front.beside, "second", second.endpoint)
    assert (await quick.ask("during")).model == "first"
    await order(front.over)
    assert front.states[-1][0] == "draining"
    # On the very connection that the first engine answered.
    assert (await quick.ask("after")).model == "second"
    body, whole = await content(b"transfer-encoding: chunked", slow.reader)
    assert whole
    assert b"[DONE]" in body
    await order(front.ask)
    assert front.state == "compiled"
    assert {one["state"]: one["engine"] for one in front.firsts} == {
        "both": "first",
        "draining": "second",
        "quick": "first",
    }
    assert (first.truth(), second.truth()) == (["during", "slow"], ["after"])
    slow.close()
    quick.close()


@asynccontextmanager
async def standing(front: Front, engine: Started, state: str) -> AsyncIterator[tuple[Emulated, Emulated, Client]]:
    """Both engines in a state of the hand-over, with a request under way at the first."""
    first, second = engine("first", itl_ms=50), engine("second", itl_ms=50)
    front.serve("first", first.endpoint)
    running = Client(front.port)
    await running.send("running", tokens=40)
    await running.begun()
    await order(front.beside, "second", second.endpoint)
    if state != "both":
        await order(front.over)
    yield first, second, running
    running.close()


@pytest.mark.parametrize("state", ["both", "draining"])
async def test_a_second_engine_that_is_killed_leaves_the_first_serving(
    front: Front, engine: Started, state: str
) -> None:
    async with standing(front, engine, state) as (_, second, running):
        on_second = Client(front.port)
        if state == "draining":
            await on_second.send("on second", tokens=40)
            await on_second.begun()
        second.kill()
        fresh = Client(front.port)
        # Before anybody has told the proxy: one that takes no connection was given nothing.
        assert (await fresh.ask("before")).model == "first"
        await order(front.gone, "second")
        assert front.state == "quick"
        assert (await fresh.ask("after")).model == "first"
        if state == "draining":
            body, whole = await content(b"transfer-encoding: chunked", on_second.reader)
            assert not whole
            assert b"is gone" in body
            assert b"[DONE]" not in body
        body, whole = await content(b"transfer-encoding: chunked", running.reader)
        assert whole
        assert b"[DONE]" in body
        await order(front.ask)
        assert front.passed["second"].died == (state == "draining")
        assert (front.passed["first"].died, front.unserved) == (0, 0)
        fresh.close()
        on_second.close()


async def test_a_first_engine_that_is_killed_beside_a_cold_second_is_told_to_its_clients(
    front: Front, engine: Started
) -> None:
    async with standing(front, engine, "both") as (first, _, running):
        first.kill()
        body, whole = await content(b"transfer-encoding: chunked", running.reader)
        assert not whole
        assert b'"error"' in body
        await order(front.gone, "first")
        answer = await Client(front.port).ask("nobody")
        assert answer.status == 503
        assert b"retry-after: 1" in answer.head
        await order(front.over)
        assert front.state == "compiled"
        assert (await Client(front.port).ask("second")).model == "second"
        await order(front.ask)
        assert (front.passed["first"].died, front.unserved) == (1, 1)


async def test_a_first_engine_that_is_killed_while_it_drains_ends_the_hand_over(front: Front, engine: Started) -> None:
    async with standing(front, engine, "draining") as (first, _, running):
        first.kill()
        _, whole = await content(b"transfer-encoding: chunked", running.reader)
        assert not whole
        await order(front.look, 1.0)
        assert front.state == "compiled"
        assert (await Client(front.port).ask("second")).model == "second"


async def test_nobody_is_left_where_the_second_is_killed_after_the_first_has_gone(
    front: Front, engine: Started
) -> None:
    first, second = engine("first"), engine("second")
    front.serve("first", first.endpoint)
    await order(front.beside, "second", second.endpoint)
    await order(front.over)
    second.kill()
    assert (await Client(front.port).ask("none")).status == 503


async def test_a_request_whose_engine_dies_before_it_answers_is_never_sent_again(front: Front, engine: Started) -> None:
    first, second = engine("first", ttft_ms=60_000, headers_with_first=True), engine("second")
    front.serve("first", first.endpoint)
    client = Client(front.port)
    await client.send("once")
    while not front.running.get("first"):
        await order(front.ask)
    await order(front.beside, "second", second.endpoint)
    await order(front.over)
    first.kill()
    answer = await client.receive()
    assert answer.status == 502
    assert "is gone" in json.loads(answer.body)["error"]["message"]
    assert second.truth() == []
    await order(front.ask)
    assert (front.passed["first"].died, front.passed["second"].begun) == (1, 0)


class Scripted:
    """A server whose every answer the test writes itself."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.left = asyncio.Event()
        self.answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any] | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if b"content-length" in head.lower() or b"chunked" in head.lower():
                self.bodies.append((await content(head, reader))[0])
            assert self.answer is not None
            await self.answer(reader, writer)
        writer.close()


@pytest.fixture
async def scripted(front: Front) -> AsyncIterator[Scripted]:
    made = Scripted()
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    front.serve("scripted", Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], "scripted"))
    yield made
    server.close()
    await asyncio.sleep(0.02)


async def raw(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    body, _ = (b"", True) if request.startswith(b"HEAD") else await content(head, reader)
    writer.close()
    return head, body


async def test_each_piece_is_passed_on_before_the_next_one_is_sent(front: Front, scripted: Scripted) -> None:
    seen = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        # The second piece only comes once the client has the first: a proxy that waits for more would hang here.
        await seen.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await writer.drain()

    scripted.answer = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readuntil(b"one\r\n")).endswith(b"\r\n\r\n3\r\none\r\n")
    seen.set()
    assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
    writer.close()


async def test_a_client_that_leaves_is_gone_at_the_engine_too(front: Front, scripted: Scripted) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        scripted.left.set()

    scripted.answer = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"one\r\n")
    writer.close()
    await asyncio.wait_for(scripted.left.wait(), 10)
    await order(front.ask)
    assert (front.passed["scripted"].left, front.running["scripted"]) == (1, 0)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "answer", "wanted"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno", (b"404", b"no")),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nto the end", (b"200", b"to the end")),
        (b"GET / HTTP/1.0\r\n\r\n", CHUNKED, (b"200", b"ab")),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", (b"200", b"")),
        (b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", (b"502", b"gone")),
        (b"nonsense\r\n\r\n", b"", (b"400", b"not HTTP")),
        (UPGRADE, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", (b"200", b"ok")),
    ],
)
async def test_answers_of_every_framing_come_whole(
    front: Front, scripted: Scripted, request_: bytes, answer: bytes, wanted: tuple[bytes, bytes]
) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    scripted.answer = say
    head, body = await raw(front.port, request_)
    assert head.split()[1] == wanted[0]
    assert wanted[1] in body


async def test_a_body_in_chunks_and_one_that_is_waited_for_reach_the_engine_whole(
    front: Front, scripted: Scripted
) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()

    scripted.answer = say
    head = b"POST / HTTP/1.1\r\nhost: x\r\n"
    await raw(front.port, head + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    large = b"x" * 3_000_000
    await raw(front.port, head + b"content-length: %d\r\n\r\n%s" % (len(large), large))
    assert scripted.bodies == [b"abcde", large]


async def test_two_requests_in_one_breath_are_answered_in_their_order(front: Front, scripted: Scripted) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = scripted.heads[-1].split()[1]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(path), path))
        await writer.drain()

    scripted.answer = say
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(5)))
    for number in range(5):
        head = await reader.readuntil(b"\r\n\r\n")
        assert await content(head, reader) == (b"/%d" % number, True)
    writer.close()


def test_a_taken_port_is_told(front: Front) -> None:
    with pytest.raises(LaunchError, match=f"port {front.port} on 127.0.0.1 cannot be had"), Front(port=front.port):
        pass


def test_it_ends_with_its_owner(front: Front) -> None:
    assert front.pid is not None
    proxy = psutil.Process(front.pid)
    front.close()
    assert not proxy.is_running()
