import pytest

from bench.loadgen.generator import LoadGenerator
from bench.record.schema import ERROR_KINDS
from tests.loadgen.jobs import job


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("http_429", "http", "the server answered 429: scripted failure"),
        ("http_500", "http", "the server answered 500: scripted failure"),
        ("not_http", "protocol", "the response is not valid HTTP/1.1"),
        ("reset", "closed", "the connection broke: Connection reset by peer"),
        ("stall", "timeout", "no end within 0.3 s of sending: the last bytes came"),
        ("close_early", "closed", "the server closed the connection in the middle of the body, after 2 token events"),
        ("bad_chunk_size", "protocol", "the response is not valid HTTP/1.1"),
        (
            "malformed_sse",
            "protocol",
            "event 2 has a line that is not server-sent-event syntax: 'this is not an event'",
        ),
        ("malformed_json", "protocol", "event 2 is not JSON"),
        ("invalid_utf8", "protocol", "event 2 is not valid UTF-8"),
        ("error_event", "server_event", "the server reported an error inside the stream: EngineCore encountered"),
        ("gigantic_line", None, None),
        ("no_usage", None, None),
        ("no_end", "closed", "the stream ended without finish_reason or [DONE], after 4 token events"),
        ("zero_tokens", "empty", "the server answered 200 and ended without a single token"),
    ],
)
def test_every_fault_is_a_row_with_a_kind_and_a_sentence(
    generator: LoadGenerator, port: int, fault: str, kind: str | None, words: str | None
) -> None:
    driven = generator.drive(job(port, 2, simulate={"fault": fault}, timeout_s=0.3 if fault == "stall" else 5.0))
    for row in driven.requests:
        assert row["error_kind"] == kind
        assert (row["error"] or "").startswith(words or "")
        assert (kind is None) == (row["error"] is None)
        assert kind is None or kind in ERROR_KINDS
        assert row["end_ns"] >= row["sent_ns"]
    # One bad answer never spoils the next: the load generator is as good as new.
    assert generator.drive(job(port)).requests[0]["error"] is None


def test_an_answer_without_usage_has_no_token_counts_rather_than_zeros(generator: LoadGenerator, port: int) -> None:
    (row,) = generator.drive(job(port, simulate={"fault": "no_usage"})).requests
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"], row["chunks"]) == (
        None,
        None,
        None,
        4,
    )
