import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.loadgen.answer import Answer, answer
from bench.loadgen.job import Request
from bench.loadgen.rows import logprobs
from tests.loadgen.responses import chunked, sse


def test_log_probabilities_of_both_forms_come_back_as_one() -> None:
    request = Request(1, "p", "quality", "/v1/completions", {})
    chat = Answer(
        logprobs=[{"content": [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -2.0}]}]}]
    )
    plain = Answer(logprobs=[{"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"b": -2.0}]}])
    documents = [logprobs(request, said) for said in (chat, plain)]
    assert documents[0] == documents[1]
    assert documents[0] is not None
    assert (documents[0]["tokens"], documents[0]["top_logprobs"]) == (["a"], [{"b": -2.0}])
    assert logprobs(request, Answer()) is None


NAMES = """
    choices delta message text content reasoning role finish_reason logprobs tokens token_logprobs top_logprobs token
    usage prompt_tokens completion_tokens prompt_tokens_details cached_tokens metrics timings prompt_ms error object
    time_to_first_token_ms arrival_time token_ids tool_calls prompt_logprobs
    function name arguments function_call thinking reasoning_content reasoning_details type summary refusal index
    reasoning_tokens completion_tokens_details x_groq predicted_n detail
"""
KEYS = st.sampled_from(NAMES.split())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
CHUNKS = st.fixed_dictionaries({"choices": st.lists(st.dictionaries(KEYS, JSON, max_size=5), max_size=2)}) | JSON


@given(st.lists(CHUNKS, max_size=3))
def test_json_of_any_shape_is_read_without_complaint(contents: list[Any]) -> None:
    said = answer([chunked(sse(*(json.dumps(content) for content in contents)))])
    assert len(said.chunks) == len(contents)
    document = logprobs(Request(1, "p", "quality", "/v1/completions", {}), said)
    assert document is None or isinstance(document["tokens"], list)
