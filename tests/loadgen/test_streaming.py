import json
import socket
from typing import Any

import pytest

from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job, Request
from bench.scenario.model import Arrivals
from tests.loadgen.jobs import job

CHAT: dict[str, Any] = {"chat": True}


@pytest.mark.parametrize(
    ("simulate", "kinds"),
    [
        ({}, ["content"] * 4),
        ({"role_first": True}, ["role"] + ["content"] * 4),
        ({"reasoning_tokens": 2}, ["reasoning"] * 2 + ["content"] * 2),
        ({"reasoning_tokens": 1, "reasoning_field": "reasoning"}, ["reasoning"] + ["content"] * 3),
        ({"tokens_per_chunk": 3}, ["content"] * 2),
        ({"sse_comments": 2}, ["comment", "content", "content", "comment", "content", "content"]),
        ({"transfer": "length"}, ["content"] * 4),
        ({"transfer": "close"}, ["content"] * 4),
        ({"crlf": True}, ["content"] * 4),
        ({"split_bytes": 7}, ["content"] * 4),
        ({"headers_with_first": True}, ["content"] * 4),
        ({"headers_ms": 4}, ["content"] * 4),
    ],
    ids=str,
)
def test_every_way_of_streaming_gives_the_same_answer(
    generator: LoadGenerator, port: int, simulate: dict[str, Any], kinds: list[str]
) -> None:
    driven = generator.drive(job(port, 2, simulate=simulate, **CHAT))
    for row in driven.requests:
        assert (row["error"], row["completion_tokens"], row["status"]) == (None, 4, 200)
    assert driven.chunks["kind"] == [*kinds, "usage", "done"] * 2


def test_the_first_tokens_are_told_apart(generator: LoadGenerator, port: int) -> None:
    simulate = {"role_first": True, "role_lead_ms": 20, "ttft_ms": 30, "itl_ms": 20, "reasoning_tokens": 1}
    (row,) = generator.drive(job(port, simulate=simulate, **CHAT)).requests
    after = [(row[name] - row["sent_ns"]) / 1e6 for name in ("first_chunk_ns", "first_token_ns", "first_answer_ns")]
    # A busy machine makes the server late, never early.
    assert all(seen >= due for seen, due in zip(after, (9.9, 29.9, 49.9), strict=True))
    assert after[0] < after[1] < after[2]


def test_what_the_server_counts_is_read_back(generator: LoadGenerator, port: int) -> None:
    simulate = {"prefix_cache": True, "server_ttft": True, "continuous_usage": True, "tokens_per_chunk": 2}
    driven = generator.drive(job(port, 2, simulate=simulate))
    assert [row["cached_tokens"] for row in driven.requests] == [0, 2]
    assert [row["server_ttft_ms"] for row in driven.requests] == [5.0, 5.0]
    assert driven.chunks["tokens"] == [2, 2, None, None] * 2


def test_a_prompt_of_a_hundred_thousand_tokens_goes_out_and_its_answer_comes_back(
    generator: LoadGenerator, port: int
) -> None:
    body = {"prompt": list(range(100_000)), "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    asked = tuple(Request(number, "long", "measured", "/v1/completions", body) for number in range(20))
    driven = generator.drive(Job("127.0.0.1", port, asked, Arrivals(closed=1), timeout_s=20))
    assert [row["prompt_tokens"] for row in driven.requests] == [100_000] * 20
    assert [row["error"] for row in driven.requests] == [None] * 20
    assert driven.client["rss_mib"] < 150


def test_conversations_carry_their_answers(generator: LoadGenerator, port: int) -> None:
    first = {"role": "user", "content": "one"}
    asked = []
    for turn in range(3):
        body = {
            "messages": [first] * (turn + 1),
            "max_tokens": 2,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        asked.append(
            Request(turn, "c", "measured", "/v1/chat/completions", body, turn=turn, after=turn - 1 if turn else None)
        )
    driven = generator.drive(Job("127.0.0.1", port, tuple(asked), Arrivals(closed=1)))
    # Each question is one word, each answer of two tokens is two.
    assert [row["prompt_tokens"] for row in driven.requests] == [1, 4, 7]


def test_open_arrivals_keep_their_times(generator: LoadGenerator, port: int) -> None:
    driven = generator.drive(job(port, 30, arrivals=Arrivals(poisson=100.0), seed=3))
    delays = sorted(row["sent_ns"] - row["intended_ns"] for row in driven.requests)
    assert delays[0] >= 0
    assert delays[15] < 20_000_000
    assert driven.client["missed"] == sum(delay > 1_000_000 for delay in delays)


def test_lone_surrogates_and_other_odd_text_do_not_break_the_way_back(generator: LoadGenerator, port: int) -> None:
    text = json.loads('"\\ud83d half"')
    (row,) = generator.drive(job(port, tokens=1, simulate={"text": text})).requests
    assert row["error"] is None
    assert row["text"] == "? half"


def test_a_second_turn_finds_the_first_ones_prompt_and_answer_in_the_cache(generator: LoadGenerator, port: int) -> None:
    def ask(number: int, *said: str) -> Request:
        simulate = {"prefix_cache": True, "prefix_block": 2}
        messages = [{"role": "user", "content": text} for text in said]
        body = {"messages": messages, "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
        path = "/v1/chat/completions"
        after = number - 1 if number else None
        return Request(number, "p", "measured", path, body | {"simulate": simulate}, turn=number, after=after)

    talk = (ask(0, "cache me if you can"), ask(1, "cache me if you can", "and again"))
    rows = generator.drive(Job("127.0.0.1", port, talk, Arrivals(closed=1), timeout_s=5.0)).requests
    # 5 words asked and 3 answered are 8 in blocks of 2; the second turn brings 2 more.
    assert [(row["prompt_tokens"], row["cached_tokens"]) for row in rows] == [(5, 0), (10, 8)]


def test_a_client_of_before_chunks_gets_a_body_that_ends_with_the_connection(port: int) -> None:
    body = json.dumps({"model": "simulated", "prompt": "x", "stream": True, "max_tokens": 2})
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, said = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close" in head
    assert said.startswith(b"data: {")
    assert said.endswith(b"data: [DONE]\n\n")
