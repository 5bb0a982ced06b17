"""What an engine was to compute on, and what its log says that it did."""

from __future__ import annotations

from typing import Any

import pytest

from bench.engines.device import asked, told
from bench.record.engine_log import LogLine
from bench.scenario.model import EngineSetting, Model
from bench.scenario.variant import Variant


def variant(**engine: Any) -> Variant:
    return Variant(
        id="a",
        factors={},
        engine_name="e",
        engine=EngineSetting(engine="command", **engine),
        model_name="m",
        model=Model(source="hf:a/b"),
        quantization="bf16",
        warmup_name="none",
        warmup=(),
        page_cache="leave",
    )


@pytest.mark.parametrize(
    ("engine", "device"),
    [
        ({}, None),
        ({"args": {"device": "cuda:1"}}, "cuda"),
        ({"args": {"device": "cpu"}}, "cpu"),
        ({"args": {"device": "auto"}}, None),
        ({"args": {"n_gpu_layers": 0}}, "cpu"),
        ({"args": {"n_gpu_layers": 99}}, "cuda"),
        ({"command": ["llama-server", "-ngl", "0", "--port", "{port}"]}, "cpu"),
        ({"command": ["llama-server", "--n-gpu-layers=-1"]}, "cuda"),
        ({"command": ["server", "--device", "cuda"]}, "cuda"),
        ({"env": {"CUDA_VISIBLE_DEVICES": ""}}, "cpu"),
        ({"env": {"CUDA_VISIBLE_DEVICES": "1"}}, None),
        ({"environment": "vllm-cpu"}, "cpu"),
        ({"environment": "vllm"}, None),
    ],
)
def test_what_a_scenario_asks_for(engine: dict[str, Any], device: str | None) -> None:
    assert asked(variant(**engine)) == device


@pytest.mark.parametrize(
    ("line", "device"),
    [
        ("Initializing a V1 LLM engine (v0.21.0) with config: model='m', device_config=cuda, x=1", "cuda"),
        ("Initializing a V1 LLM engine (v0.33.0) with config: model='m', device_config=cpu, x=1", "cpu"),
        ("server_args=ServerArgs(model_path='m', device='cuda', tp_size=1)", "cuda"),
        ("load_tensors: offloaded 29/29 layers to GPU", "cuda"),
        ("llm_load_tensors: offloaded 0/33 layers to GPU", "cpu"),
        ("warning: no usable GPU found, --gpu-layers option will be ignored", "cpu"),
        ('time=2025 level=INFO msg="inference compute" id=0 library=cpu variant="" driver=0.0', "cpu"),
        ('time=2025 level=INFO msg="inference compute" id=GPU-1 library=CUDA compute=8.7 name=Orin', "cuda"),
        ("Device set to use cuda:0", "cuda"),
        ("ggml_cuda_init: found 1 CUDA devices:", None),
        ("UserWarning: CUDA initialization: The NVIDIA driver on your system is too old", None),
    ],
)
def test_what_logs_say(line: str, device: str | None) -> None:
    found = told([LogLine(1, "err", "starting"), LogLine(2, "err", line)])
    assert found.get("device_used") == device
    assert (found.get("device_evidence") or line) in line


def test_the_last_word_counts() -> None:
    lines = ["inference compute library=CUDA", "load_tensors: offloaded 0/29 layers to GPU"]
    assert told([LogLine(n, "err", line) for n, line in enumerate(lines)])["device_used"] == "cpu"
