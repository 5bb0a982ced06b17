import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest

from bench.loadgen.job import Request, Schedule
from bench.loadgen.rows import Turn
from tests.loadgen.driving import Asked, Write, ask, drive
from tests.loadgen.responses import WHOLE, chunked, delta, sse

MILLISECOND = 1_000_000


async def quick(_: Asked, write: Write) -> bool:
    await write(chunked(WHOLE))
    return True


def slow(seconds: float) -> Any:
    async def answer(_: Asked, write: Write) -> bool:
        await asyncio.sleep(seconds)
        await write(chunked(WHOLE))
        return True

    return answer


def talk(*questions: str, first_id: int = 0) -> list[Turn]:
    """A conversation as prompts.requests makes it: each turn's body holds all questions up to its own."""
    turns = []
    for number in range(len(questions)):
        messages = [{"role": "user", "content": question} for question in questions[: number + 1]]
        request = Request(first_id + number, "p", "measured", "/v1/x", {}, turn=number)
        turns.append(Turn(request, 0, 0, body=json.dumps({"messages": messages, "max_tokens": 5}).encode()))
    return turns


async def test_closed_streams_each_keep_one_request_open() -> None:
    seen = await drive(ask(12), slow(0.03), schedule=Schedule(streams=4))
    assert {row["stream"] for row in seen.rows} == {0, 1, 2, 3}
    assert seen.connections == 4
    for stream in range(4):
        rows = sorted((row for row in seen.rows if row["stream"] == stream), key=lambda row: row["sent_ns"])
        assert all(later["sent_ns"] >= earlier["end_ns"] for earlier, later in pairwise(rows))


async def test_no_more_connections_are_opened_than_there_are_requests() -> None:
    assert (await drive(ask(2), quick, schedule=Schedule(streams=8))).connections == 2


async def test_an_open_load_sends_at_its_times_whether_or_not_it_was_answered() -> None:
    offsets = tuple(number * 20 * MILLISECOND for number in range(6))
    seen = await drive(ask(6), slow(0.5), schedule=Schedule(None, offsets))
    first = seen.rows[0]["intended_ns"]
    assert [row["intended_ns"] - first for row in seen.rows] == list(offsets)
    assert all(0 <= row["sent_ns"] - row["intended_ns"] < 250 * MILLISECOND for row in seen.rows)
    assert seen.rows[5]["sent_ns"] < seen.rows[1]["end_ns"]


async def test_a_cap_makes_requests_wait_and_the_wait_stays_visible() -> None:
    seen = await drive(ask(4), slow(0.05), schedule=Schedule(None, (0, 0, 0, 0), max_in_flight=2))
    delays = [row["sent_ns"] - row["intended_ns"] for row in seen.rows]
    assert min(delays[2:]) > 40 * MILLISECOND
    assert max(delays[:2]) < min(delays[2:])
    assert seen.connections == 2


async def test_an_open_load_opens_more_connections_when_it_needs_them() -> None:
    seen = await drive(ask(80), slow(0.2), schedule=Schedule(None, (0,) * 80))
    assert seen.connections == 80
    assert sum(row["connect_ns"] is not None for row in seen.rows) == 16


async def test_each_turn_carries_the_answers_before_it() -> None:
    async def count(asked: Asked, write: Write) -> bool:
        await write(chunked(sse(delta(content=f"answer {asked.number}"), delta(finish="stop"), "[DONE]")))
        return True

    seen = await drive([talk("one", "two", "three")], count)
    assert [message["content"] for message in seen.asked[2].json["messages"]] == [
        "one",
        "answer 0",
        "two",
        "answer 1",
        "three",
    ]
    assert [message["role"] for message in seen.asked[1].json["messages"]] == ["user", "assistant", "user"]
    assert seen.asked[2].json["max_tokens"] == 5
    assert [row["turn"] for row in seen.rows] == [0, 1, 2]
    assert all(later["intended_ns"] >= earlier["end_ns"] for earlier, later in pairwise(seen.rows))


async def test_conversations_run_side_by_side_each_in_order() -> None:
    seen = await drive([talk("a", "b"), talk("c", "d", first_id=2)], slow(0.02), schedule=Schedule(streams=2))
    assert [row["error"] for row in seen.rows] == [None] * 4
    assert [row["stream"] for row in seen.rows] == [0, 0, 1, 1]


async def test_a_turn_whose_predecessor_failed_is_not_sent_and_says_so() -> None:
    async def refuse(_: Asked, write: Write) -> bool:
        await write(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
        return True

    seen = await drive([talk("one", "two", "three")], refuse)
    assert [row["error_kind"] for row in seen.rows] == ["http", "cancelled", "cancelled"]
    assert [row["sent_ns"] is None for row in seen.rows] == [False, True, True]
    assert len(seen.asked) == 1


async def test_a_turn_that_was_cut_short_is_not_gone_on_from() -> None:
    async def cut_short(_: Asked, write: Write) -> bool:
        await write(chunked(WHOLE)[:-20])
        return False

    seen = await drive([talk("one", "two")], cut_short)
    assert [row["error_kind"] for row in seen.rows] == ["closed", "cancelled"]


async def test_a_mistake_of_our_own_ends_the_open_load_instead_of_hanging_it() -> None:
    broken = ask(2)
    broken[1][0].body = None  # type: ignore[assignment]
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(drive(broken, quick, schedule=Schedule(None, (0, 1000))), 5)


async def test_a_server_that_dies_between_requests_fails_the_rest_by_connect_and_the_load_ends() -> None:
    async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    seen = await drive(ask(3), quick, handler=die)
    assert {row["error_kind"] for row in seen.rows} == {"closed"}


async def test_the_request_is_plain_http_with_its_own_id() -> None:
    seen = await drive(ask(1, {"model": "m"}), quick)
    head = seen.asked[0].head
    assert head.startswith("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "\r\nX-Request-Id: firsttoken-0\r\n" in head
    assert "\r\nAccept-Encoding: identity\r\n" in head
    assert seen.asked[0].json == {"model": "m"}


@pytest.mark.parametrize("streams", [1, 3])
async def test_every_request_gets_its_row(streams: int) -> None:
    seen = await drive(ask(7), quick, schedule=Schedule(streams=streams))
    assert sorted(row["request_id"] for row in seen.rows) == list(range(7))
