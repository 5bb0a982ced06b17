"""A KV cache of fixed size before the first request: vLLM then skips its profiling, Transformers its growing."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import Field, PositiveInt

from bench.engines.engine import Checkpoint, LaunchTrace
from bench.engines.logs import messages
from bench.errors import LaunchError
from bench.record.launches import Check
from bench.scenario.variant import Variant
from bench.warmup.step import HostState, Prepared, Step, StepOptions

# Where a scenario says nothing: enough for a short conversation per sequence.
DEFAULT_TOKENS = 1024
DEFAULT_SEQUENCES = 4
# vLLM hands out whole blocks; a margin keeps a full last block per sequence.
BLOCK_TOKENS = 128
_FIXED = re.compile(r"Explicitly set \([^\n]*KV cache[^\n]*|reserved [\d.]+ GiB memory for KV Cache as specified[^\n]*")
ELEMENT_BYTES = {"fp32": 4, "gguf-q4": 2}


class KvPreallocate(Step):
    """Fix the KV cache's size before start."""

    name = "kv-preallocate"

    class Options(StepOptions):
        """How large."""

        mib: PositiveInt | None = Field(None, description="KV cache in MiB; from the model's shape by default (vLLM)")
        tokens: PositiveInt | None = Field(None, description="tokens per sequence; max_model_len or 1024 by default")

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, state: HostState) -> Prepared:
        """The engine's own flag for it."""
        variant = state.variant
        kind = variant.engine.engine
        tokens = self.options.tokens or int(variant.engine.args.get("max_model_len", DEFAULT_TOKENS))
        if kind == "vllm":
            size = self.options.mib * 2**20 if self.options.mib else kv_bytes(state.checkpoint, variant, tokens)
            return Prepared(args={"kv_cache_memory_bytes": size}, state={"bytes": size, "tokens": tokens})
        if kind == "transformers":
            return Prepared(
                args={"cache_implementation": "static", "static_cache_tokens": tokens}, state={"tokens": tokens}
            )
        raise LaunchError("unsupported", f"kv-preallocate knows no flag of the engine {kind!r}")

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """The engine's own words about its cache."""
        evidence = next(
            (str(event) for event in trace.events if "static_cache" in str(event.get("name", ""))),
            None,
        ) or _said(trace)
        return [
            Check(
                name=f"warmup.{self.name}",
                status="ok" if evidence else "unknown",
                evidence=evidence or "the engine says nothing about a cache of fixed size",
                limit="a cache of fixed size before ready",
            )
        ]


def kv_bytes(checkpoint: Checkpoint, variant: Variant, tokens: int) -> int:
    """Bytes of keys and values: 2 · layers · kv heads · head size · element size · tokens · sequences.

    At least one sequence of the longest length that the engine will accept fits: vLLM refuses to start with less.
    """
    shape = _config(checkpoint)
    heads = int(shape["num_attention_heads"])
    kv_heads = int(shape.get("num_key_value_heads") or heads)
    head = int(shape.get("head_dim") or int(shape["hidden_size"]) // heads)
    per_token = 2 * int(shape["num_hidden_layers"]) * kv_heads * head * ELEMENT_BYTES.get(variant.quantization, 2)
    args = variant.engine.args
    sequences = int(args.get("max_num_seqs", DEFAULT_SEQUENCES))
    longest = int(args.get("max_model_len", shape.get("max_position_embeddings", tokens)))
    return per_token * max(sequences * _blocks(tokens), _blocks(longest)) * BLOCK_TOKENS


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS) + 1


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    file = checkpoint.path / "config.json" if checkpoint.path else None
    try:
        if file is None:
            raise FileNotFoundError("no checkpoint folder")
        shape: dict[str, Any] = json.loads(file.read_text())
        return shape.get("text_config") or shape
    except (OSError, ValueError) as error:
        raise LaunchError("missing_file", f"kv-preallocate needs the model's config.json, or `mib`: {error}") from error


def _said(trace: LaunchTrace) -> str | None:
    return next((found[0] for message in messages(trace.log) if (found := _FIXED.search(message.text))), None)
