import asyncio
import socket
import struct
import time
from pathlib import Path

import pytest

from bench.loadgen.exchange import Exchange
from bench.loadgen.job import Schedule
from bench.loadgen.target import Target
from tests.loadgen.driving import Asked, Scripted, Write, ask, drive, drive_at
from tests.loadgen.responses import TEXT, WHOLE, chunked, closing, sized


async def whole(_: Asked, write: Write) -> bool:
    await write(chunked(WHOLE))
    return True


async def test_one_connection_carries_all_requests_of_a_stream() -> None:
    seen = await drive(ask(4), whole)
    assert [row["text"] for row in seen.rows] == [TEXT] * 4
    assert {request.connection for request in seen.asked} == {0}
    assert [row["connect_ns"] for row in seen.rows] == [None] * 4


async def test_stamps_are_the_kernels_and_lie_between_sending_and_the_end() -> None:
    async def slow(_: Asked, write: Write) -> bool:
        response = chunked(WHOLE, size=1000)
        await write(response[:150])
        await asyncio.sleep(0.02)
        await write(response[150:])
        return True

    (row,) = (await drive(ask(1), slow)).rows
    assert row["stamp_source"] == "kernel"
    assert row["sent_ns"] <= row["sent_end_ns"] <= row["headers_ns"] < row["first_token_ns"] <= row["end_ns"]
    assert row["first_token_ns"] - row["headers_ns"] > 15_000_000
    assert 0 < row["client_lag_us"] <= row["client_lag_max_us"]


async def test_a_late_client_does_not_move_the_first_token() -> None:
    async def block(_: Asked, write: Write) -> bool:
        await write(chunked(WHOLE))
        # Server and client share this loop: while it is blocked the bytes wait in the kernel, stamped.
        time.sleep(0.2)
        return True

    seen = await drive(ask(1), block)
    (row,) = seen.rows
    assert row["client_lag_us"] > 190_000
    user = seen.columns.user_ns[0] - row["sent_ns"]
    assert row["first_token_ns"] - row["sent_ns"] < user - 190_000_000


async def test_events_that_share_a_read_are_counted() -> None:
    (row,) = (await drive(ask(1), whole)).rows
    assert (row["chunks"], row["coalesced"]) == (3, 6)


async def test_a_response_in_single_bytes_is_the_same_response() -> None:
    async def dribble(_: Asked, write: Write) -> bool:
        for byte in chunked(WHOLE):
            await write(bytes([byte]))
            await asyncio.sleep(0)
        return True

    seen = await drive(ask(2), dribble)
    assert [row["text"] for row in seen.rows] == [TEXT] * 2
    assert [row["error"] for row in seen.rows] == [None] * 2


async def test_a_server_that_closes_after_each_answer_is_reconnected_to_outside_the_clock() -> None:
    async def once(_: Asked, write: Write) -> bool:
        await write(closing(WHOLE))
        return False

    seen = await drive(ask(3), once)
    assert [row["error"] for row in seen.rows] == [None] * 3
    assert [row["connect_ns"] is None for row in seen.rows] == [True, False, False]
    assert all(row["sent_ns"] - row["intended_ns"] >= (row["connect_ns"] or 0) for row in seen.rows)
    assert seen.connections == 3


async def test_connection_close_is_obeyed_where_the_body_has_a_length() -> None:
    async def polite(_: Asked, write: Write) -> bool:
        await write(sized(WHOLE).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        return True

    seen = await drive(ask(2), polite)
    assert [row["error"] for row in seen.rows] == [None, None]
    assert {request.connection for request in seen.asked} == {0, 1}


async def test_a_kept_connection_that_the_server_has_dropped_is_replaced_without_a_failure() -> None:
    async def forgetful(asked: Asked, write: Write) -> bool:
        if asked.number == 1:
            return False
        await write(chunked(WHOLE))
        return True

    seen = await drive(ask(2), forgetful)
    assert [row["error"] for row in seen.rows] == [None, None]
    assert [request.connection for request in seen.asked] == [0, 0, 1]
    assert seen.rows[1]["connect_ns"] > 0


async def test_a_new_connection_closed_without_an_answer_is_a_failure_and_not_tried_again() -> None:
    async def silent(_: Asked, __: Write) -> bool:
        return False

    seen = await drive(ask(1), silent)
    assert (seen.rows[0]["error_kind"], len(seen.asked)) == ("closed", 1)
    assert seen.rows[0]["error"] == "the server closed the connection without an answer"


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (20, "the server closed the connection in the middle of the headers"),
        (-20, "the server closed the connection in the middle of the body, after 3 token events"),
    ],
)
async def test_an_early_close_says_where(kept: int, sentence: str) -> None:
    async def early(_: Asked, write: Write) -> bool:
        await write(chunked(WHOLE)[:kept])
        return False

    (row,) = (await drive(ask(1), early)).rows
    assert (row["error_kind"], row["error"]) == ("closed", sentence)


async def test_a_reset_connection_is_a_failed_row() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    (row,) = (await drive(ask(1), whole, handler=reset)).rows
    assert row["error_kind"] == "closed"
    assert "Connection reset by peer" in row["error"]


async def test_silence_ends_with_the_time_limit() -> None:
    async def mute(_: Asked, __: Write) -> bool:
        await asyncio.sleep(1)
        return False

    (row,) = (await drive(ask(1), mute, timeout_s=0.1)).rows
    assert (row["error_kind"], row["error"]) == ("timeout", "no end within 0.1 s of sending: nothing came back")
    assert row["end_ns"] - row["sent_ns"] == pytest.approx(100_000_000, rel=0.5)


async def test_a_stream_that_stalls_keeps_what_it_gave() -> None:
    async def stall(_: Asked, write: Write) -> bool:
        await write(chunked(WHOLE)[:-30])
        await asyncio.sleep(1)
        return False

    (row,) = (await drive(ask(1), stall, timeout_s=0.2)).rows
    assert row["error_kind"] == "timeout"
    assert "the last bytes came" in row["error"]
    assert "after 3 token events" in row["error"]
    assert row["text"] == TEXT
    assert row["first_token_ns"] is not None


async def test_nobody_listening_is_a_connect_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        (row,) = (await drive_at(Target("127.0.0.1", taken.getsockname()[1]), ask(1))).rows
    assert row["error_kind"] == "connect"
    assert "cannot connect to 127.0.0.1:" in row["error"]
    assert row["sent_ns"] is None


async def test_a_name_with_several_addresses_is_tried_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(Scripted(whole).serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def both(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.2", port)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", both)
    seen = await drive_at(Target("either", port), ask(1))
    server.close()
    await asyncio.sleep(0.05)
    assert seen.rows[0]["text"] == TEXT


async def test_a_name_that_cannot_be_one_is_a_connect_failure() -> None:
    (row,) = (await drive_at(Target("a" * 70 + ".example", 80), ask(1))).rows
    assert row["error_kind"] == "connect"


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert Target("::1", 8000).authority == "[::1]:8000"


async def test_a_name_that_does_not_resolve_is_a_connect_failure() -> None:
    (row,) = (await drive_at(Target("no-such-host.invalid", 80), ask(1))).rows
    assert row["error_kind"] == "connect"


async def test_a_request_larger_than_the_socket_buffers_goes_out_whole() -> None:
    size = 8 << 20

    async def slow_reader(asked: Asked, write: Write) -> bool:
        assert len(asked.body) > size
        await write(chunked(WHOLE))
        return True

    seen = await drive(ask(2, {"prompt": "x" * size}), slow_reader)
    assert [row["error"] for row in seen.rows] == [None, None]
    assert all(row["sent_end_ns"] - row["sent_ns"] > 100_000 for row in seen.rows)


async def test_a_refusal_before_the_request_was_read_is_still_heard() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(b'{"error": "too large"}', 413, "application/json"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    (row,) = (await drive(ask(1, {"prompt": "x" * (16 << 20)}), whole, handler=refuse)).rows
    assert (row["error_kind"], row["error"]) == ("http", "the server answered 413: too large")


async def test_a_unix_socket_works_and_admits_that_its_stamps_are_the_users(tmp_path: Path) -> None:
    (row,) = (await drive(ask(1), whole, unix=tmp_path / "s")).rows
    assert (row["error"], row["text"], row["stamp_source"], row["client_lag_us"]) == (None, TEXT, "user", None)


async def test_bytes_that_nobody_asked_for_end_the_connection_not_the_next_request() -> None:
    async def chatty(_: Asked, write: Write) -> bool:
        await write(chunked(WHOLE))
        await asyncio.sleep(0.02)
        await write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        return True

    seen = await drive(ask(2), chatty, schedule=Schedule(None, (0, 100_000_000), 1))
    assert [row["status"] for row in seen.rows] == [200, 200]
    assert {request.connection for request in seen.asked} == {0, 1}


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_the_end_is_found_wherever_the_bytes_were_split(size: int) -> None:
    for response in (chunked(WHOLE), sized(WHOLE)):
        exchange = Exchange()
        parts = [response[at : at + size] for at in range(0, len(response), size)]
        assert [exchange.feed(part, 0, None) for part in parts] == [False] * (len(parts) - 1) + [True]
        assert exchange.finish()


def test_a_body_without_a_length_ends_with_the_connection_which_cannot_be_kept() -> None:
    exchange = Exchange()
    assert not exchange.feed(closing(WHOLE), 0, None)
    exchange.eof()
    assert exchange.complete
    assert exchange.failure is None
    assert not exchange.finish()
