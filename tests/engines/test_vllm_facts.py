"""What vLLM's words are cut to: values with hyphens stay whole, and the older core is told with its reason."""

from __future__ import annotations

import pytest

from bench.engines.engine import LaunchTrace
from bench.engines.logs import messages
from bench.engines.vllm import Vllm
from bench.engines.vllm_phases import log_phases
from bench.record.engine_log import LogLine
from bench.record.schema import Phase
from tests.engines.vllm_logs import trace


def facts(*said: str) -> dict[str, object]:
    return Vllm().facts(
        LaunchTrace({}, [LogLine(0, "stdout", f"INFO 01-01 00:00:00 [a.py:1] {text}") for text in said])
    )


def config(setting: str) -> str:
    return f"Initializing a V1 LLM engine (v0.15.1) with config: model='/m', {setting}, seed=0"


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("quantization=compressed-tensors", "quantization", "compressed-tensors"),
        ("quantization=None", "quantization", None),
        ("quantization='fp-quant'", "quantization", "fp-quant"),
        ("kv_cache_dtype=fp8-ds-mla", "kv_cache_dtype", "fp8-ds-mla"),
        ("load_format=LoadFormat.AUTO", "load_format", "AUTO"),
        ("load_format=run-ai", "load_format", "run-ai"),
        ("device_config=cuda:0", "device", "cuda:0"),
    ],
)
def test_a_setting_is_whole(setting: str, name: str, value: str | None) -> None:
    assert facts(config(setting))[name] == value


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ("Using FlashAttention-2 backend.", "attention", "FlashAttention-2"),
        ("Using Flash Attention backend on V1 engine.", "attention", "Flash Attention"),
        ("Using flashinfer-cutlass for CompressedTensorsW4A4Fp4LinearMethod", "linear_kernels", ["flashinfer-cutlass"]),
        ("vLLM API server version 0.11.0-rc2+jetson", "version", "0.11.0-rc2+jetson"),
    ],
)
def test_a_name_is_whole(said: str, name: str, value: object) -> None:
    assert facts(said)[name] == value


def test_the_older_core_is_told_and_the_newer_one_too() -> None:
    assert facts(config("seed=1"))["core"] == "V1"
    old = Vllm().facts(trace("0.9.2-v0"))
    assert (old["core"], old["core_reason"]) == ("V0", "Compute Capability < 8.0 is not supported by the V1 Engine")


@pytest.mark.parametrize(
    ("blocks", "concurrency", "tokens"), [(7016, "27.41", 112256), (7016, "54.81", 224512), (7016, "20.00", None)]
)
def test_tokens_of_the_older_core_only_where_its_words_agree(blocks: int, concurrency: str, tokens: int | None) -> None:
    found = facts(
        "Initializing a V0 LLM engine (v0.9.2) with config: model='/m', seed=0",
        f"# cuda blocks: {blocks}, # CPU blocks: 4681",
        f"Maximum concurrency for 4096 tokens per request: {concurrency}x",
    )
    assert found["kv_cache_blocks"] == blocks
    assert found.get("kv_cache_tokens") == tokens


def test_what_the_older_core_does_not_do_is_unsupported_and_not_lost() -> None:
    reasons = {phase.name: phase.reason for phase in log_phases(trace("0.9.2-v0"), (0, 9, 2))}
    assert reasons["dynamo"] == reasons["kernel_warmup"] == "unsupported"


@pytest.mark.parametrize(
    ("header", "process"),
    [
        ("(Worker_TP0 pid=1)", "Worker_TP0 1"),
        ("(VllmWorker rank=0 pid=430)", "VllmWorker 430"),
        ("(RayWorkerWrapper pid=7, ip=10.0.0.2)", "RayWorkerWrapper 7"),
        ("(pid=7)", "process 7"),
    ],
)
def test_every_worker_has_a_name(header: str, process: str) -> None:
    line = LogLine(5_000_000_000, "stdout", f"{header} INFO 07-18 03:07:00 [a.py:1] Loading weights took 2.0 seconds")
    (message,) = messages([line])
    assert message.process == process
    found: list[Phase] = [p for p in log_phases(LaunchTrace({}, [line]), None) if p.name == "weights"]
    assert [(phase.process, phase.start_ns) for phase in found] == [(process, 3_000_000_000)]
