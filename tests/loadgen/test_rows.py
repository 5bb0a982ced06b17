from bench.loadgen.answer import Answer
from bench.loadgen.job import Request
from bench.loadgen.rows import logprobs


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
