"""Answers in the shapes in which servers were reported to send them, and the rows that they must become."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.loadgen.clock import Clock
from bench.loadgen.exchange import Exchange
from bench.loadgen.job import Request
from bench.loadgen.rows import KINDS, Columns, Turn, row
from tests.loadgen.responses import chunked, closing, delta, sized, sse

MS = 1_000_000
DONE = "[DONE]"
LENGTH = delta(finish="length")


def counted(n: Any, prompt: Any = 12, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": n, **more}}


def seen(reads: list[bytes], every_ms: int = 10) -> dict[str, Any]:
    """The row of a response whose reads came so far apart; the first came when the request was sent, at 0."""
    exchange = Exchange()
    exchange.sent_ns = 0
    for number, data in enumerate(reads):
        exchange.feed(data, number * every_ms * MS, None)
    if not exchange.complete:
        exchange.eof()
    exchange.finish()
    columns = Columns()
    turn = Turn(Request(0, "p", "measured", "/v1/x", {}, output_tokens=8), 0, 0, exchange)
    made = row(turn, Clock([0], [0]), columns, keep_text=True)[0]
    assert set(columns.kind) <= set(range(len(KINDS)))
    return made


def stream(*contents: Any) -> dict[str, Any]:
    """The row of a stream of events, one to a read: the n-th, from 1, came at n × 10 ms."""
    return seen([closing(b""), *(one if isinstance(one, bytes) else sse(one) for one in contents)])


WORDS = [delta(content=f" w{i}") for i in range(8)]


def test_an_empty_finish_reason_is_no_end() -> None:
    empty = [delta(finish="", role="assistant", content=f" w{i}") for i in range(8)]
    cut, whole = stream(*empty[:3]), stream(*empty, counted(8), DONE)
    assert (cut["error_kind"], cut["finish_reason"]) == ("closed", None)
    assert cut["error"] == "the stream ended without finish_reason or [DONE], after 3 token events"
    assert (whole["error_kind"], whole["finish_reason"], whole["completion_tokens"]) == (None, None, 8)


@pytest.mark.parametrize(
    "reason",
    ["abort", "ABORTED", "cancelled", "canceled", "error", "timeout", "timed_out", "not_finished", "failed",
     "insufficient_system_resource", "preempted"],
)  # fmt: skip
def test_an_answer_that_the_engine_broke_off_is_a_failure_with_its_reason(reason: str) -> None:
    said = stream(*WORDS[:2], delta(finish=reason, content=" w2"), counted(3), DONE)
    assert said["error_kind"] == "aborted"
    assert said["error"] == f"the server broke the answer off (finish_reason {reason!r}), after 3 token events"
    assert (said["chunks"], said["finish_reason"]) == (3, reason)


@pytest.mark.parametrize(
    "reason", ["stop", "length", "tool_calls", "content_filter", "eos_token", "stop_sequence", "max_tokens", "end_turn"]
)
def test_an_answer_that_ended_as_answers_do_is_a_success(reason: str) -> None:
    assert stream(*WORDS, delta(finish=reason))["error_kind"] is None


def test_a_break_stays_one_whatever_is_said_after_it() -> None:
    both = {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}, {"index": 1, "finish_reason": "stop"}]}
    assert stream(*WORDS, both, delta(finish="stop"), DONE)["error_kind"] == "aborted"


def test_a_reason_that_is_an_object_is_read_with_its_message() -> None:
    fine = stream(*WORDS, {"choices": [{"delta": {}, "finish_reason": {"type": "length", "length": 8}}]})
    assert (fine["error_kind"], fine["finish_reason"]) == (None, "length")
    gone = {"choices": [{"delta": {}, "finish_reason": {"type": "abort", "message": "the queue is full"}}]}
    said = stream(*WORDS[:2], gone, DONE)
    assert (said["error_kind"], said["finish_reason"]) == ("server_event", "abort")
    assert said["error"].endswith("the queue is full")


def test_a_stop_that_is_followed_by_more_was_none() -> None:
    thought = delta(finish="stop", reasoning_content="hm")
    assert stream(thought, *WORDS[:3])["error_kind"] == "closed"
    assert stream(thought, *WORDS[:3], LENGTH)["finish_reason"] == "length"
    two = [{"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": end}]} for index, end in
           ((0, None), (0, "stop"), (1, None))]  # fmt: skip
    assert stream(*two)["error_kind"] is None


SENTENCE = (
    "the prompt is longer than the context of this server; raise it, or shorten the prompt to 512 tokens" + "!" * 400
)
OBJECT = {"code": 400, "message": SENTENCE, "type": "exceed_context_size_error"}


@pytest.mark.parametrize(
    "failure",
    [
        f"error: {json.dumps(OBJECT)}\n\n".encode(),
        f"error: {SENTENCE}\n\n".encode(),
        f"error:{json.dumps(OBJECT, indent=1)}\n\n".encode(),
        json.dumps({"error": OBJECT}).encode(),
        json.dumps({"error": OBJECT}, indent=2).encode() + b"\n\n",
        json.dumps({"error": SENTENCE, "error_type": "generation"}).encode(),
        json.dumps({"detail": SENTENCE}).encode() + b"\n",
        sse({"error": OBJECT}),
        sse({"error": OBJECT, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}),
        sse({"choices": [{"index": 0, "delta": {}, "error": OBJECT, "finish_reason": "error"}]}),
        sse(json.dumps([{"error": OBJECT}])),
        f"event: error\ndata: {json.dumps(OBJECT)}\n\n".encode(),
        f"event: error\n\ndata: {json.dumps(OBJECT)}\n\n".encode(),
        b"event: error\r\ndata: " + SENTENCE.encode() + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("before", [(), WORDS[:2]])
@pytest.mark.parametrize("after", [(), (DONE,)])
def test_a_failure_inside_an_answer_keeps_the_servers_whole_sentence(failure: bytes, before: Any, after: Any) -> None:
    if after and not failure.endswith(b"\n\n"):
        failure += b"\n\n"
    said = stream(*before, failure, *after)
    assert said["error_kind"] == "server_event"
    assert said["error"] == f"the server reported an error inside the stream: {SENTENCE}"
    assert said["chunks"] == len(before)


def test_a_failure_in_a_document_with_status_200_is_a_failure() -> None:
    for kind in ("application/json", "text/event-stream"):
        said = seen([sized(json.dumps({"error": OBJECT}).encode(), kind=kind)])
        assert (said["error_kind"], said["error"].endswith(SENTENCE)) == ("server_event", True)


def test_a_sentence_without_end_is_cut_where_it_stops_being_one() -> None:
    said = stream(sse({"error": {"message": "x" * 1_000_000}}))
    assert 1000 < len(said["error"]) < 3000
    assert said["error"].endswith("x …")


def test_words_that_nothing_announces_as_an_error_are_quoted_where_no_token_came() -> None:
    said = stream({"code": 503, "msg": "all slots are busy"}, DONE)
    assert said["error_kind"] == "empty"
    assert "all slots are busy" in said["error"]
    plain = stream(b"upstream connect error or disconnect/reset before headers. " + b"reset reason: overflow\n\n")
    assert plain["error_kind"] == "protocol"
    assert "reset reason: overflow" in plain["error"]


def thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def test_parts_of_content_are_read_and_thinking_parts_are_reasoning() -> None:
    said = stream(
        delta(role="assistant", content=""),
        *(delta(content=[thinking(f" t{i}")]) for i in range(3)),
        delta(content=[{"type": "text", "text": " a0"}]),
        delta(content=" a1"),
        delta(finish="length", content=[thinking("") | {"closed": True}, {"type": "text", "text": " a2"}]),
        counted(6),
    )
    marks = [said[f"{name}_ns"] // MS for name in ("first_chunk", "first_token", "first_answer", "last_token")]
    assert marks == [10, 20, 50, 70]
    assert (said["text"], said["chunks"], said["error_kind"]) == (" a0 a1 a2", 6, None)


@pytest.mark.parametrize(
    "field",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"thinking": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"content": None, "reasoning_content": "hm"},
        {"content": "", "reasoning_content": "hm"},
        {"content": [], "reasoning": "hm"},
    ],
)
def test_reasoning_is_found_under_every_name_it_goes_by(field: dict[str, Any]) -> None:
    said = stream(delta(**field), delta(content="a"), LENGTH)
    assert (said["first_token_ns"], said["first_answer_ns"], said["text"]) == (10 * MS, 20 * MS, "a")


def test_the_end_of_thinking_and_the_first_word_in_one_event_are_a_first_answer() -> None:
    said = stream(delta(reasoning_content="hm"), delta(reasoning_content=".", content="a"), LENGTH)
    assert (said["first_token_ns"], said["first_answer_ns"]) == (10 * MS, 20 * MS)


def test_every_choice_of_an_event_is_read() -> None:
    late = {"choices": [{"index": 1, "delta": {"role": "assistant"}}, {"index": 0, "delta": {"content": "b"}}]}
    both = {"choices": [{"index": 0, "delta": {"content": "c"}}, {"index": 1, "delta": {"content": "x"}}]}
    twice = {"choices": [{"index": 0, "delta": {"content": "d"}}, {"index": 0, "delta": {"content": "e"}}]}
    ends = {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}, None]}
    said = stream(late, both, twice, ends)
    assert (said["text"], said["chunks"], said["first_token_ns"]) == ("bcde", 3, 10 * MS)
    assert (said["finish_reason"], said["error_kind"]) == ("length", None)


def test_a_delta_that_carries_nothing_does_not_give_the_whole_message_once_more() -> None:
    last = {"choices": [{"delta": {}, "message": {"content": " w0 w1"}, "finish_reason": "stop"}]}
    said = stream(*WORDS[:2], last)
    assert (said["text"], said["chunks"], said["last_token_ns"]) == (" w0 w1", 2, 20 * MS)


def call(index: int = 0, **function: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, "type": "function", "function": function}])


def test_an_answer_that_is_only_a_tool_call_has_outputs_and_no_token_of_text() -> None:
    said = stream(
        delta(role="assistant", content=None),
        call(name="weather", arguments=""),
        call(arguments='{"city"'),
        call(arguments=': "Bonn"}'),
        delta(finish="tool_calls"),
        counted(8),
        DONE,
    )
    assert (said["error_kind"], said["error"]) == (None, None)
    marks = ("first_chunk_ns", "first_argument_ns", "last_token_ns", "first_token_ns", "first_answer_ns")
    assert [said[mark] for mark in marks] == [10 * MS, 30 * MS, 40 * MS, None, None]
    assert (said["chunks"], said["completion_tokens"], said["text"]) == (3, 8, "")


@pytest.mark.parametrize(
    "whole",
    [
        call(name="weather", arguments='{"city": "Bonn"}'),
        call(name="weather", arguments={"city": "Bonn"}),
        delta(content="", tool_calls=[{"id": "1", "function": {"name": "weather", "arguments": "{}"}}]),
        delta(function_call={"name": "weather", "arguments": "{}"}),
    ],
)
def test_a_tool_call_in_one_event_is_a_first_argument(whole: dict[str, Any]) -> None:
    said = stream(delta(role="assistant"), whole, delta(finish="stop"))
    assert (said["first_argument_ns"], said["chunks"], said["error_kind"]) == (20 * MS, 1, None)


def test_a_tool_call_after_text_moves_the_last_output() -> None:
    said = stream(delta(content="Let me look."), call(name="f", arguments="{}"), delta(finish="tool_calls"))
    assert (said["first_token_ns"], said["first_argument_ns"], said["last_token_ns"]) == (10 * MS, 20 * MS, 20 * MS)


def test_a_tool_call_that_says_nothing_yet_is_none() -> None:
    said = stream(delta(tool_calls=[{"index": 0}]), delta(tool_calls=[None, 3]), delta(finish="tool_calls"))
    assert (said["chunks"], said["error_kind"]) == (0, "empty")


def test_counted_tokens_of_which_none_came_are_named() -> None:
    said = stream(delta(role="assistant", content=""), LENGTH, counted(8), DONE)
    assert said["error"] == "the server answered 200 and ended without a single token, though it counted 8"


ZERO = counted(0, 0)


def test_zeros_beside_text_are_no_counts() -> None:
    said = stream(*WORDS, LENGTH, ZERO, DONE)
    assert (said["completion_tokens"], said["prompt_tokens"], said["error_kind"]) == (None, None, None)
    assert said["count_reason"] == (
        "the server counted 0 output tokens beside 8 events of output; the server counted 0 prompt tokens"
    )


def test_a_later_zero_overwrites_no_count() -> None:
    said = stream(*WORDS, LENGTH | {"usage": counted(8)["usage"]}, ZERO, DONE)
    assert (said["completion_tokens"], said["prompt_tokens"], said["count_reason"]) == (8, 12, None)


@pytest.mark.parametrize(
    ("usages", "why"),
    [
        ([3], "the server counted 3 output tokens beside 8 events of output"),
        ([8, 5], "the server counted 8 output tokens and later 5"),
        ([1, 1, 1], "the server counted 1 output tokens beside 8 events of output"),
    ],
)
def test_a_count_that_cannot_be_true_is_none(usages: list[int], why: str) -> None:
    said = stream(*WORDS, LENGTH, *map(counted, usages), DONE)
    assert (said["completion_tokens"], said["count_reason"], said["error_kind"]) == (None, why, None)
    assert said["prompt_tokens"] == 12


@pytest.mark.parametrize("n", [8, 9, 200])
def test_a_count_that_can_be_true_is_kept(n: int) -> None:
    assert stream(*WORDS, LENGTH, counted(n))["completion_tokens"] == n


def test_a_parser_may_make_two_events_of_one_token() -> None:
    assert stream(*WORDS, LENGTH, counted(7))["completion_tokens"] == 7


def test_fewer_tokens_than_the_events_list_are_no_count() -> None:
    listing = [{"choices": [{"index": 0, "text": " ab", "token_ids": [5, 6]}]} for _ in range(4)]
    said = stream(*listing, {"choices": [{"text": "", "finish_reason": "length"}]}, counted(4))
    assert (said["completion_tokens"], said["first_tokens"]) == (None, 2)
    assert said["count_reason"] == "the server counted 4 output tokens while its events list 8"


def test_an_answer_that_lists_its_prompt_too_is_counted_right() -> None:
    echoed = {"choices": [{"text": "a b c", "logprobs": {"tokens": ["a", " b", " c"]}, "finish_reason": "length"}]}
    assert stream(echoed, counted(1, 2))["completion_tokens"] == 1


def test_more_cached_tokens_than_the_prompt_has_are_none() -> None:
    said = stream(*WORDS, LENGTH, counted(8, prompt_tokens_details={"cached_tokens": 99}))
    assert (said["cached_tokens"], said["prompt_tokens"]) == (None, 12)
    assert said["count_reason"] == "the server counted 99 cached of 12 prompt tokens"


@pytest.mark.parametrize(
    "end",
    [
        {"choices": [], "x_groq": {"usage": {"prompt_tokens": 12, "completion_tokens": 8}}},
        {"choices": [{"index": 0, "delta": {}, "usage": {"prompt_tokens": 12, "completion_tokens": 8}}]},
        {"choices": [], "timings": {"prompt_n": 12, "predicted_n": 8}},
    ],
)
def test_counts_are_found_where_servers_put_them(end: dict[str, Any]) -> None:
    assert stream(*WORDS, LENGTH, end)["completion_tokens"] == 8


def test_the_tokens_of_the_first_event_are_known_where_usage_counts_along() -> None:
    steps = [(5, " a b c d e"), (6, " f"), (7, " g"), (8, " h")]
    said = stream(
        delta(role="assistant", content="") | {"usage": {"prompt_tokens": 12, "completion_tokens": 0}},
        *(delta(content=text) | {"usage": {"completion_tokens": n}} for n, text in steps),
        LENGTH,
    )
    assert (said["first_tokens"], said["completion_tokens"]) == (5, 8)


def test_what_the_server_counts_nowhere_is_estimated_as_a_share_of_the_text_alone() -> None:
    said = stream(delta(content="12345"), *(delta(content=text) for text in "678"), LENGTH, counted(8))
    assert (said["first_tokens"], said["first_share"]) == (None, pytest.approx(5 / 8))


def test_reasoning_that_was_counted_and_never_sent_came_before_the_first_token() -> None:
    hidden = counted(108, completion_tokens_details={"reasoning_tokens": 100})
    assert stream(*WORDS, LENGTH, hidden)["first_tokens"] == 101
    shown = [delta(reasoning="t") for _ in range(100)]
    assert stream(*shown, *WORDS, LENGTH, hidden)["first_tokens"] is None
    as_text = [delta(content="t") for _ in range(100)]
    assert stream(*as_text, *WORDS, LENGTH, hidden)["first_tokens"] is None


KEEPALIVES = [
    b": ping\n\n", b":\n\n", b": OPENROUTER PROCESSING\n\n", b": ping\n", b"data:\n\n", b"data: \n\n",
    b"retry: 3000\n\n", b"id: 7\n\n", b"event: ping\ndata: {}\n\n", b'event: ping\ndata: {"type": "ping"}\n\n',
    b"\n\n", b"\r\n",
    sse(delta(content="")), sse(delta(content=None)), sse({"choices": [{"index": 0, "delta": None}]}),
    sse({"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}), sse({"choices": []}), sse({"choices": None}),
    sse({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
]  # fmt: skip


@pytest.mark.parametrize("alive", KEEPALIVES)
def test_what_only_keeps_a_connection_alive_is_neither_token_nor_fault(alive: bytes) -> None:
    plain = stream(*WORDS, LENGTH, counted(8), DONE)
    said = stream(alive, *WORDS[:4], alive, *WORDS[4:], LENGTH, alive, counted(8), alive, DONE)
    same = ("error", "chunks", "text", "completion_tokens", "finish_reason", "count_reason")
    assert [said[name] for name in same] == [plain[name] for name in same]
    assert (said["first_token_ns"], said["last_token_ns"]) == (20 * MS, 100 * MS)


ENDS = [
    [LENGTH, counted(8), DONE], [LENGTH, counted(8)], [LENGTH | {"usage": counted(8)["usage"]}],
    [LENGTH, LENGTH, counted(8), counted(8), DONE, DONE], [counted(8), LENGTH, DONE], [LENGTH, DONE, counted(8)],
    [counted(8), DONE], [LENGTH, counted(8), b"data:[DONE]\n\n"], [LENGTH, counted(8), b"data: [DONE]"],
    [LENGTH, counted(8), b'data: "[DONE]"\n\n'], [LENGTH, counted(8), b"data: [DONE] \r\n\r\n"],
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_every_form_of_a_proper_end_is_one(end: list[Any]) -> None:
    said = stream(*WORDS, *end)
    assert (said["error"], said["completion_tokens"], said["last_token_ns"]) == (None, 8, 80 * MS)


def test_the_last_token_may_come_with_the_finish_reason_and_the_counts() -> None:
    last = delta(finish="length", content=" w7") | {"usage": counted(8)["usage"]}
    said = stream(*WORDS[:7], last)
    assert (said["last_token_ns"], said["finish_reason"], said["completion_tokens"]) == (80 * MS, "length", 8)


@pytest.mark.parametrize("frame", [closing, chunked, sized])
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain", "application/octet-stream"])
def test_a_stream_is_one_whatever_its_type_says(frame: Any, kind: str) -> None:
    body = sse(*WORDS, LENGTH, counted(8), DONE)
    response = frame(body).replace(b"text/event-stream", kind.encode(), 1)
    half = response.index(b" w4")
    said = seen([response[:half], response[half:]])
    assert (said["error"], said["chunks"]) == (None, 8)
    assert (said["first_token_ns"], said["last_token_ns"]) == (0, 10 * MS)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain"])
@pytest.mark.parametrize("lead", ["", "\n", " \r\n"])
def test_a_whole_answer_is_one_whatever_its_type_says(kind: str, lead: str) -> None:
    message = {"role": "assistant", "content": "w0 w1\n\nw2"}
    document = {"choices": [{"index": 0, "message": message, "finish_reason": "length"}], "usage": counted(8)["usage"]}
    body = lead.encode() + json.dumps(document, indent=2).encode()
    said = seen([sized(body, kind=kind)[:-9], body[-9:]])
    assert (said["error"], said["text"], said["chunks"], said["completion_tokens"]) == (None, "w0 w1\n\nw2", 1, 8)
    assert said["first_token_ns"] == said["last_token_ns"] == 10 * MS


def packed(how: str, body: bytes) -> bytes:
    made = gzip.compress(body) if how == "gzip" else zlib.compress(body)
    return f"HTTP/1.1 200 OK\r\nContent-Encoding: {how}\r\nContent-Type: text/event-stream\r\n\r\n".encode() + made


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_a_body_that_was_compressed_unasked_is_unpacked(how: str) -> None:
    response = packed(how, sse(*WORDS, LENGTH, counted(8), DONE))
    said = seen([response[at : at + 20] for at in range(0, len(response), 20)])
    assert (said["error"], said["chunks"], said["completion_tokens"]) == (None, 8, 8)


def test_a_compression_that_nobody_asked_for_and_we_cannot_take_off_is_named() -> None:
    said = seen([packed("br", b"x")])
    assert (said["error_kind"], said["error"]) == (
        "protocol",
        "the server compressed its answer (br) although it was asked not to",
    )
    damaged = seen([packed("gzip", b"").split(b"\x1f\x8b")[0] + b"data: this is no gzip"])
    assert damaged["error_kind"] == "protocol"
    assert damaged["error"].startswith("the server's compressed answer cannot be unpacked")


def test_lines_of_bare_json_are_a_failure_that_shows_them() -> None:
    said = seen([closing(b""), *(json.dumps(one).encode() + b"\n" for one in WORDS)])
    assert said["error_kind"] == "protocol"
    assert " w0" in said["error"]


def test_data_in_several_lines_are_one_event() -> None:
    lines = json.dumps(delta(content="a", finish="length"), indent=1).splitlines()
    said = stream("".join(f"data: {line}\n" for line in lines).encode() + b"\n")
    assert (said["error"], said["text"]) == (None, "a")


def test_a_mark_before_the_first_byte_and_every_line_ending_are_the_formats() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        body = b"\xef\xbb\xbf" + sse(*WORDS, LENGTH).replace(b"\n", end)
        assert (seen([closing(body)])["error"], seen([closing(body)])["chunks"]) == (None, 8)


EVENTS = st.one_of(
    st.sampled_from([*WORDS, LENGTH, DONE, delta(role="assistant", content=""), delta(reasoning="t"), call(name="f")]),
    st.sampled_from([call(arguments="{}"), delta(content=[thinking("t")]), delta(finish=""), delta(finish="abort")]),
    st.sampled_from(KEEPALIVES),
    st.integers(0, 12).map(counted),
    st.integers(0, 12).map(lambda n: delta(content="w") | {"usage": {"completion_tokens": n}}),
)


@given(st.lists(EVENTS, max_size=14))
def test_whatever_the_order_no_row_contradicts_itself(events: list[Any]) -> None:
    said = stream(*events)
    marks = [said[f"{name}_ns"] for name in ("first_chunk", "first_token", "first_answer", "last_token")]
    known = [mark for mark in marks if mark is not None]
    assert known == sorted(known)
    assert (said["last_token_ns"] is None) == (said["chunks"] == 0)
    assert said["completion_tokens"] != 0 or not said["chunks"]
    assert said["first_share"] is None or 0 <= said["first_share"] <= 1
    ended = any(one == DONE or (isinstance(one, dict) and one == LENGTH) for one in events)
    assert said["error_kind"] is not None or (ended and said["chunks"])
    aborted = any(isinstance(one, dict) and one == delta(finish="abort") for one in events)
    assert not aborted or said["error_kind"] is not None
