"""The quality questions: the same for every variant, and asked in the form that the server understands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from bench.engines.engine import Checkpoint, Endpoint
from bench.errors import UsageError
from bench.loadgen.questions import CONTINUED, DISTRIBUTIONS, READ, corpus, positions, quality_requests
from bench.scenario.model import Quality

QUALITY = Quality.model_validate({"against": {"quantization": "bf16"}})
HERE = Path(__file__).parent


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A checkpoint with a byte-level tokenizer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Checkpoint(tmp_path, "path:x", "digest", "bf16", vocab_size=256)


def test_every_text_is_read_and_continued_and_the_use_cases_are_answered(checkpoint: Checkpoint) -> None:
    asked = quality_requests(QUALITY, first_id=7, endpoint=Endpoint("h", 1, "m"), checkpoint=checkpoint, base=HERE)
    texts = corpus(QUALITY, HERE)
    labels = [request.label or "" for request in asked]
    assert labels.count("text") == labels.count("greedy") == len(texts) == 18
    assert [label for label in labels if label.startswith("founding:")] == [
        "founding:fault-triage",
        "founding:manual-zh",
        "founding:two-turn",
        "founding:two-turn",
    ]
    assert [request.request_id for request in asked] == list(range(7, 7 + len(asked)))
    assert {request.stage for request in asked} == {"quality"}
    assert not any(request.measured for request in asked)
    assert asked[-1].after == asked[-2].request_id
    for request in asked[:-4]:
        assert request.body["temperature"] == 0
        assert "stream" not in request.body


def test_texts_go_as_token_ids_with_spread_positions(checkpoint: Checkpoint) -> None:
    asked = quality_requests(QUALITY, first_id=0, endpoint=Endpoint("h", 1, "m"), checkpoint=checkpoint, base=HERE)
    read, begun = asked[0].body, asked[1].body
    assert len(read["prompt"]) == READ
    assert read["max_tokens"] == 1
    assert len(read["prompt_distributions"]) == DISTRIBUTIONS
    assert max(read["prompt_distributions"]) < READ - 1
    assert begun["prompt"] == read["prompt"][: len(begun["prompt"])]
    assert begun["max_tokens"] == CONTINUED
    again = quality_requests(QUALITY, first_id=0, endpoint=Endpoint("x", 2, "m"), checkpoint=checkpoint, base=HERE)
    assert [request.body for request in again] == [request.body for request in asked]


def test_a_server_without_token_ids_is_asked_to_echo(checkpoint: Checkpoint) -> None:
    endpoint = Endpoint("h", 1, "m", token_ids=False, prefix="/llm", body={"top_k": 1, "logprobs": None})
    asked = quality_requests(QUALITY, first_id=0, endpoint=endpoint, checkpoint=checkpoint, base=HERE)
    assert asked[0].body["echo"] is True
    assert isinstance(asked[0].body["prompt"], str)
    assert asked[0].path == "/llm/v1/completions"
    assert asked[0].body["top_k"] == 1
    assert "logprobs" not in asked[0].body


def test_random_weights_are_asked_nothing(tmp_path: Path) -> None:
    dummy = Checkpoint(tmp_path, "dummy:x", "digest", "bf16", random_weights=True)
    assert quality_requests(QUALITY, first_id=0, endpoint=Endpoint("h", 1, "m"), checkpoint=dummy, base=HERE) == []


def test_fewer_documents_keep_both_languages() -> None:
    few = corpus(Quality.model_validate({"against": {}, "documents": 4}), HERE)
    assert [name[:2] for name in few] == ["en", "zh", "en", "zh"]


@pytest.mark.parametrize(("content", "words"), [("", "no texts"), ('{"text": 3}', ":1:"), ("[]", ":1:"), ("{", ":1:")])
def test_a_corpus_that_cannot_be_read_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(UsageError, match=words):
        corpus(Quality.model_validate({"against": {}, "corpus": "own.jsonl"}), tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        corpus(Quality.model_validate({"against": {}, "corpus": "missing.jsonl"}), tmp_path)


@given(st.integers(0, 600))
def test_positions_always_have_a_token_after_them_and_never_repeat(length: int) -> None:
    found = positions(length) if length else []
    assert len(set(found)) == len(found) == max(0, min(DISTRIBUTIONS, length - 1))
    assert all(0 <= at < length - 1 for at in found)
