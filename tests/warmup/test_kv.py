"""The KV cache's size comes from the model's own shape, and the engine's words are the evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.engines.engine import LaunchTrace
from bench.errors import LaunchError
from bench.scenario.variant import WarmupStep
from bench.warmup.strategies import build
from tests.engines.vllm_logs import lines
from tests.warmup.states import state, variant

SMOLLM2 = json.dumps(
    {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576, "head_dim": 64}
)


def test_vllm_is_given_the_bytes_that_its_sequences_need(tmp_path: Path) -> None:
    asked = variant(args={"max_model_len": 1024, "max_num_seqs": 4})
    prepared = build((WarmupStep("kv-preallocate"),)).prepare(state(tmp_path, asked, config=SMOLLM2))
    per_token = 2 * 30 * 3 * 64 * 2
    assert prepared.args["kv_cache_memory_bytes"] == per_token * 4 * (1024 + 128)


def test_one_sequence_of_the_longest_length_always_fits(tmp_path: Path) -> None:
    config = json.dumps(json.loads(SMOLLM2) | {"max_position_embeddings": 8192})
    prepared = build((WarmupStep("kv-preallocate", {"tokens": 64}),)).prepare(state(tmp_path, config=config))
    assert prepared.args["kv_cache_memory_bytes"] == 2 * 30 * 3 * 64 * 2 * (8192 + 128)


def test_transformers_is_given_a_static_cache(tmp_path: Path) -> None:
    asked = variant("transformers", args={"max_model_len": 256})
    prepared = build((WarmupStep("kv-preallocate"),)).prepare(state(tmp_path, asked))
    assert dict(prepared.args) == {"cache_implementation": "static", "static_cache_tokens": 256}


def test_a_model_without_a_readable_shape_needs_an_explicit_size(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"config\.json, or `mib`"):
        build((WarmupStep("kv-preallocate"),)).prepare(state(tmp_path))
    prepared = build((WarmupStep("kv-preallocate", {"mib": 256}),)).prepare(state(tmp_path))
    assert prepared.args["kv_cache_memory_bytes"] == 256 * 2**20


def test_other_engines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="knows no flag"):
        build((WarmupStep("kv-preallocate"),)).prepare(state(tmp_path, variant("simulated")))


def test_the_engines_words_are_evidence_and_silence_is_doubt(tmp_path: Path) -> None:
    strategy = build((WarmupStep("kv-preallocate", {"mib": 256}),))
    prepared = strategy.prepare(state(tmp_path))
    told = LaunchTrace({}, lines("0.32.0-eager-fixed-kv"))
    statuses = {check.name: check.status for check in strategy.verify(told, prepared)}
    assert statuses["warmup.kv-preallocate"] == "ok"
    statuses = {check.name: check.status for check in strategy.verify(LaunchTrace({}, []), prepared)}
    assert statuses["warmup.kv-preallocate"] == "unknown"
