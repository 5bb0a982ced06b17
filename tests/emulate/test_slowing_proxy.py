"""The proxy stretches a stream by what it was told, and passes everything else on as it is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest

from bench.emulate.slowing_proxy import Stretch
from bench.engines.engine import Endpoint, LaunchSpec
from bench.engines.ports import free_port
from bench.engines.slowed import PROXY, slowed
from bench.errors import LaunchError
from bench.scenario.variant import Slowdown

FIRST_S, GAP_S, TOKENS = 0.08, 0.02, 6
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server with a role event at once, a first token after FIRST_S, and then one every GAP_S."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/health" in head:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                continue
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            chunk(writer, ROLE)
            await asyncio.sleep(FIRST_S)
            for number in range(TOKENS):
                if number:
                    await asyncio.sleep(GAP_S)
                chunk(writer, TOKEN)
            chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        pass
    finally:
        writer.close()


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


@pytest.fixture
async def upstream() -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    # The handlers see their clients go before the loop does.
    await asyncio.sleep(0.05)


async def through(upstream: int, **shares: float) -> list[float]:
    """Arrival times of the tokens since the request, through a proxy process."""
    port = free_port()
    options = [f"--{name}={share}" for name, share in shares.items()]
    command = [sys.executable, str(PROXY), f"--listen={port}", f"--upstream=127.0.0.1:{upstream}", *options]
    proxy = await asyncio.create_subprocess_exec(*command)
    try:
        reader, writer = await connected(port)
        writer.write(b"GET /health HTTP/1.1\r\n\r\n")
        assert (await reader.readexactly(40)).endswith(b"ok")
        writer.write(b"POST /v1/completions HTTP/1.1\r\n\r\n")
        asked = time.perf_counter()
        stamps, seen = [], b""
        while b"\r\n0\r\n\r\n" not in seen:
            data = await reader.read(65536)
            stamps += [time.perf_counter() - asked] * data.count(b'"content":"x"')
            seen += data
        writer.close()
        await writer.wait_closed()
        return stamps
    finally:
        proxy.terminate()
        assert await proxy.wait() == 0


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(400):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.025)
    raise AssertionError("the proxy never listened")


async def test_it_stretches_the_first_token_and_the_gaps(upstream: int) -> None:
    plain = await through(upstream)
    slow = await through(upstream, ttft=0.5, itl=1.0)
    assert len(plain) == len(slow) == TOKENS
    assert slow[0] / plain[0] == pytest.approx(1.5, abs=0.2)
    assert (slow[-1] - slow[0]) / (plain[-1] - plain[0]) == pytest.approx(2.0, abs=0.3)


def test_a_chunk_is_due_later_by_the_share_it_was_told() -> None:
    stretch = Stretch(asked=100.0, ttft=0.1, itl=0.5)
    assert stretch.when(100.2, ROLE) == pytest.approx(100.22)
    assert stretch.when(101.0, TOKEN) == pytest.approx(101.1)
    assert stretch.when(101.2, TOKEN) == pytest.approx(101.4)
    assert stretch.when(101.3, TOKEN) == pytest.approx(101.55)


def test_without_a_share_nothing_is_held_back() -> None:
    stretch = Stretch(asked=0.0, ttft=0.0, itl=0.0)
    assert [stretch.when(t, TOKEN) for t in (1.0, 1.2, 1.7)] == [1.0, 1.2, 1.7]


def spec(**more: object) -> LaunchSpec:
    return LaunchSpec(("python", "-m", "server"), {"A": "1"}, Endpoint("127.0.0.1", 8000, "m", tls=bool(more)))


def test_a_slowed_launch_is_the_same_launch_behind_another_port() -> None:
    wrapped = slowed(spec(), Slowdown(ttft=0.1), 9000)
    assert wrapped.argv[-4:] == ("--", "python", "-m", "server")
    assert "--upstream=127.0.0.1:8000" in wrapped.argv
    assert (wrapped.endpoint.port, wrapped.env) == (9000, {"A": "1"})


def test_a_server_behind_tls_is_not_slowed() -> None:
    with pytest.raises(LaunchError, match="TLS"):
        slowed(spec(tls=True), Slowdown(), 9000)
