"""Checkpoints made for real: by the worker in the transformers environment, from the package that ships a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench.engines.transformers import Transformers
from bench.environments import environment
from bench.models.cache import Cache, sha256
from bench.models.checkpoints import resolve
from bench.scenario.model import Model
from bench.scenario.sources import PINS, SMOLLM2
from tests.end_to_end.transformers_server import serving

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    environment.install("transformers")


def test_random_weights_are_the_same_on_every_machine(tmp_path: Path) -> None:
    made = [resolve(Model(source="dummy:tiny-llama"), "bf16", cache=Cache(tmp_path / name)) for name in "ab"]
    assert made[0].path != made[1].path
    assert made[0].digest == made[1].digest
    assert made[0].random_weights
    assert made[0].vocab_size == 2048


def test_a_dummys_tokenizer_has_the_models_vocabulary_and_loses_no_text() -> None:
    found = resolve(Model(source="dummy:tiny-llama"), "fp32")
    assert found.tokenizer is not None
    tokenizer = Tokenizer.from_file(str(found.tokenizer))
    assert tokenizer.get_vocab_size() == found.vocab_size
    text = "故障 E-17: motor 温度 90 °C 🙂"
    ids = tokenizer.encode(text).ids
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    words = [tokenizer.decode([token]) for token in range(300, 2048)]
    assert all(word.strip() for word in words)
    assert len(set(words)) == len(words)


def test_the_embedded_model_is_what_was_pinned() -> None:
    packed = resolve(Model(source="smollm2-135m"), "gguf-q4")
    assert packed.path is not None
    assert sha256(next(packed.path.glob("*.gguf"))) == PINS[SMOLLM2]
    assert packed.tokenizer is not None
    dense = resolve(Model(source="default"), "bf16")
    assert dense.source == packed.source
    assert dense.size_bytes is not None
    # 134.5 million parameters of two bytes
    assert dense.size_bytes == pytest.approx(269e6, rel=0.01)
    assert dense.vocab_size == 49152
    assert not dense.random_weights


def test_a_gguf_file_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, "smollm2-135m", "gguf-q4", threads=1) as server:
        answer = server.complete(prompt="The capital of France is", max_tokens=3)
        assert "Paris" in answer["choices"][0]["text"]
        facts = Transformers().facts(server.trace())
        assert facts["quantization"] == "gguf"
        # Packed weights take less than a byte a parameter; unpacked ones two. Whichever it was, it is said.
        assert facts["packed"] is (facts["weight_bytes"] < facts["parameters"])
