import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.loadgen.answer import Answer, answer
from tests.loadgen.responses import TEXT, WHOLE, chunked, closing, cut, delta, sized, sse


def kinds(said: Answer) -> list[str]:
    return [chunk.kind for chunk in said.chunks]


def meaning(said: Answer) -> tuple[Any, ...]:
    """All that does not depend on how the bytes were split."""
    return (
        said.status,
        kinds(said),
        [chunk.tokens for chunk in said.chunks],
        said.text,
        said.prompt_tokens,
        said.completion_tokens,
        said.cached_tokens,
        said.finish_reason,
        said.done,
        said.server_error,
        said.malformed,
        [mark is None for mark in (said.first_chunk_read, said.first_token_read, said.first_answer_read)],
    )


@pytest.mark.parametrize("frame", [chunked, sized, closing])
def test_a_chat_answer_is_read_whatever_its_framing(frame: Any) -> None:
    said = answer([frame(WHOLE)])
    assert kinds(said) == ["role", "reasoning", "content", "content", "finish", "usage", "done"]
    assert said.text == TEXT
    assert (said.prompt_tokens, said.completion_tokens, said.cached_tokens) == (9, 5, 4)
    assert (said.status, said.finish_reason, said.done, said.malformed, said.server_error) == (
        200,
        "stop",
        True,
        None,
        None,
    )


def test_the_three_first_tokens_are_told_apart_by_the_read_that_completed_them() -> None:
    said = answer(
        [
            closing(b""),
            sse(delta(role="assistant", content="")),
            sse(delta(reasoning="let me see")),
            sse(delta(content="yes")),
            sse(delta(content=" indeed")),
            sse(delta(finish="stop")),
        ]
    )
    assert (said.first_chunk_read, said.first_token_read, said.first_answer_read, said.last_token_read) == (1, 2, 3, 4)


def test_an_event_belongs_to_the_read_that_brought_its_blank_line() -> None:
    event = sse(delta(content="水"))
    said = answer([closing(event[:10]), event[10:-1], event[-1:]])
    assert [chunk.read for chunk in said.chunks] == [2]


def test_completions_carry_their_text_directly() -> None:
    said = answer(
        [chunked(sse({"choices": [{"text": "a"}]}, {"choices": [{"text": "", "finish_reason": "length"}]}, "[DONE]"))]
    )
    assert (kinds(said), said.text, said.finish_reason) == (["content", "finish", "done"], "a", "length")


def test_a_token_that_comes_with_the_finish_reason_is_a_token() -> None:
    assert kinds(answer([chunked(sse(delta(finish="length", content="end")))])) == ["content"]


def test_tool_calls_are_no_text() -> None:
    assert kinds(answer([chunked(sse(delta(tool_calls=[{"index": 0}])))])) == ["other"]


def test_usage_counted_along_gives_tokens_per_event() -> None:
    events = [
        delta(content="a") | {"usage": {"completion_tokens": 1}},
        delta(content="bcd") | {"usage": {"completion_tokens": 4}},
    ]
    assert [chunk.tokens for chunk in answer([chunked(sse(*events))]).chunks] == [1, 3]


def test_token_ids_and_logprobs_give_tokens_per_event() -> None:
    ids = {"choices": [{"text": "ab", "token_ids": [5, 6]}]}
    values = {"choices": [{"text": "c", "logprobs": {"tokens": ["c"], "token_logprobs": [-0.5]}}]}
    said = answer([chunked(sse(ids, values))])
    assert [chunk.tokens for chunk in said.chunks] == [2, 1]
    assert said.logprobs == [{"tokens": ["c"], "token_logprobs": [-0.5]}]


def test_nothing_is_guessed_where_the_server_counts_nothing() -> None:
    said = answer([chunked(sse(delta(content="two words"), "[DONE]"))])
    assert (said.chunks[0].tokens, said.completion_tokens, said.prompt_tokens, said.cached_tokens) == (None,) * 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"choices": [{"delta": {"content": "a"}, "arrival_time": 0.125}]}, 125.0),
        ({"choices": [{"delta": {"content": "a"}}], "timings": {"prompt_ms": 43.2, "cache_n": 60}}, 43.2),
        ({"choices": [], "usage": {}, "metrics": {"time_to_first_token_ms": 85.2}}, 85.2),
        ({"choices": [], "metrics": {"time_to_first_token_ms": "soon"}}, None),
    ],
)
def test_the_servers_own_figure_is_taken_where_it_gives_one(content: Any, expected: float | None) -> None:
    assert answer([chunked(sse(content))]).server_ttft_ms == expected


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        # 4 tokens: the first came with the prompt, three more took the rest.
        ({"prompt_ms": 512.6, "predicted_n": 4, "predicted_ms": 1163.4}, 387.8),
        ({"predicted_n": 1, "predicted_ms": 0.0}, None),
        ({"predicted_n": 4}, None),
    ],
)
def test_the_servers_own_pace_leaves_the_first_token_out(timings: Any, expected: float | None) -> None:
    content = {"choices": [{"text": "a"}], "timings": timings}
    assert answer([chunked(sse(content))]).counts.server_tpot_ms == pytest.approx(expected)


def test_an_answer_that_was_not_streamed_is_one_event() -> None:
    body = json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}
    ).encode()
    said = answer([sized(body, kind="application/json")])
    assert (kinds(said), said.text, said.done) == (["content"], "yes", True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "no such model", "code": 404}}', "no such model"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (b"", ""),
    ],
)
def test_a_refusal_is_quoted_in_the_servers_words(body: bytes, words: str) -> None:
    said = answer([sized(body, 404, "application/json")])
    assert (said.status, said.server_error or "") == (404, words)
    assert said.chunks == []


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "engine died", "code": 500}}\n\n',
        b'event: error\ndata: {"message": "engine died"}\n\n',
        b"event: error\ndata: engine died\n\n",
        b'data: {"object": "error", "message": "engine died"}\n\n',
    ],
)
def test_an_error_inside_the_stream_is_the_servers_error(event: bytes) -> None:
    said = answer([chunked(sse(delta(content="a")) + event)])
    assert (said.server_error, kinds(said)) == ("engine died", ["content", "error"])


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b"data: {not json\n\n", "event 1 is not JSON: '{not json'"),
        (b"data: [1, 2]\n\n", "event 1 is JSON, but not an object: '[1, 2]'"),
        (b"garbage\n\n", "event 1 has a line that is not server-sent-event syntax: 'garbage'"),
        (b'data: {"choices": [{"text": "\xff"}]}\n\n', "event 1 is not valid UTF-8 (invalid start byte)"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "event 1 is not JSON"),
    ],
)
def test_bad_form_is_named_with_its_place(event: bytes, words: str) -> None:
    said = answer([chunked(sse(delta(content="a")) + event + sse(delta(content="b")), size=1 << 20)])
    assert said.malformed is not None
    assert said.malformed.startswith(words)
    assert said.text.startswith("a")
    assert said.text.endswith("b")


def test_what_is_not_http_is_said_to_be_so() -> None:
    said = answer([b"220 mail.example ESMTP\r\n"])
    assert said.status is None
    assert said.malformed is not None
    assert "not valid HTTP/1.1" in said.malformed


def test_counts_beyond_reason_are_no_counts() -> None:
    usage = '{"choices": [], "usage": {"prompt_tokens": 1e400, "completion_tokens": 123456789012345678901234567890}}'
    said = answer([chunked(sse(usage))])
    assert (said.prompt_tokens, said.completion_tokens) == (None, None)


def test_an_interim_answer_before_the_real_one_is_skipped() -> None:
    assert answer([b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + chunked(WHOLE)]).status == 200


CONTENTS = st.one_of(
    st.text(max_size=8).map(lambda text: delta(content=text)),
    st.text(max_size=8).map(lambda text: delta(reasoning=text)),
    st.just(delta(role="assistant", content="")),
    st.just(delta(finish="stop")),
    st.integers(-3, 99).map(lambda n: {"choices": [], "usage": {"completion_tokens": n}}),
    st.just({"error": {"message": "no"}}),
    st.just("[DONE]"),
    st.sampled_from(
        ['{"a"', "[]", '"text"', "null", '{"choices": 7}', '{"choices": [null]}', '{"choices": [{"delta": 3}]}']
    ),
)
SPLITS = st.lists(st.integers(0, 800), max_size=60)


@pytest.mark.parametrize("frame", [chunked, sized, closing])
def test_a_cut_at_every_single_byte_changes_nothing(frame: Any) -> None:
    response = frame(WHOLE)
    whole = meaning(answer([response]))
    assert meaning(answer([response[at : at + 1] for at in range(len(response))])) == whole
    for at in range(1, len(response)):
        assert meaning(answer([response[:at], response[at:]])) == whole


@given(st.lists(CONTENTS, max_size=6), st.sampled_from([chunked, sized, closing]), SPLITS)
def test_any_split_gives_the_same_answer(contents: list[Any], frame: Any, at: list[int]) -> None:
    response = frame(sse(*contents))
    assert meaning(answer(cut(response, at))) == meaning(answer([response]))


@given(st.lists(CONTENTS, max_size=4), SPLITS, st.integers(0, 600), st.binary(max_size=4))
def test_damage_anywhere_is_reported_and_never_raised(
    contents: list[Any], at: list[int], where: int, what: bytes
) -> None:
    response = chunked(sse(*contents))
    damaged = response[:where] + what + response[where + len(what) :]
    assert meaning(answer(cut(damaged, at))) == meaning(answer([damaged]))


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_any_bytes_are_an_answer_of_some_kind(reads: list[bytes]) -> None:
    assert isinstance(answer(reads), Answer)
