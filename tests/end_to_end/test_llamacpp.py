"""The real llama-server: a run that is accounted for, its caches on and off, and GGUF files made here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.coldstart import phase_table
from bench.analyse.run import Run
from bench.conformance import Served, Subject, started
from bench.engines.gguf import gguf_file, header
from bench.environments.environment import environment
from bench.models.checkpoints import resolve
from bench.run.conductor import Setting, carry_out
from bench.scenario.load import Scenario
from bench.scenario.model import EngineSetting, Model, Quantization
from tests.end_to_end.transformers_server import serving

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

MODEL = Model(source="smollm2-135m")
ARGS = {"threads": 1, "ctx_size": 512, "parallel": 1}
SCENARIO = """
scenario: real-llama-server
model: {source: smollm2-135m}
engines: {llama-cpp: {engine: llama-cpp, args: {ctx_size: 512, parallel: 1, threads: 1}}}
matrix: {quantization: [gguf-q4], warmup: [requests], args.load: [mmap, none]}
workload: {prompts: {kind: random, tokens: 15}, output_tokens: 8, requests: 4, timeout_s: 300}
design: {blocks: 1, max_steal: 1.0, max_contention: 1.0, page_cache: drop, retries: 0}
"""


@pytest.fixture(autouse=True)
def built() -> None:
    if not environment("llama-cpp").ready:
        pytest.skip("needs `bench engines install llama-cpp`")


def llama(tmp_path: Path, quantization: Quantization, crew: ExitStack, **args: Any) -> Served:
    subject = Subject(EngineSetting(engine="llama-cpp", args={**ARGS, **args}), MODEL, quantization)
    return started(subject, tmp_path, crew)


def test_a_run_is_accounted_for_and_the_way_of_loading_is_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    run = Run.open(carry_out(Scenario.load(path), Setting(results=tmp_path / "results")))
    assert [launch.record.status for launch in run.all] == ["ok", "ok"], [one.record.reason for one in run.all]
    table: Any = phase_table(run)
    for launch in run.all:
        facts, asked = launch.record.facts, launch.record.factors["args.load"]
        assert (facts["load"], facts["device_used"], facts["file_type"]) == (asked, "cpu", "Q4_1")
        assert (facts["threads"], facts["context"], facts["kv_cache_type"]) == (1, 512, "f16")
        own = table[table["launch"] == launch.id].dropna(subset=["seconds"]).set_index("phase")["seconds"]
        stamps = launch.record.stamps
        cold = (stamps["first_token"] - stamps["spawn"]) / 1e9  # type: ignore[operator]  # a good launch has both
        assert own.sum() == pytest.approx(cold, rel=0.01)
        assert own["unattributed"] < 0.05 * cold if "unattributed" in own else True
        # Not the KV cache: lines that were read at once have one stamp, and this takes a few milliseconds.
        assert {"fit", "weights", "empty_run", "first_request"} <= set(own.index)
        for row in launch.requests().to_pylist():
            ours = (row["first_token_ns"] - row["sent_ns"]) / 1e6
            assert 0 < row["server_ttft_ms"] <= ours + 1
            assert row["server_tpot_ms"] > 0


def test_the_prefix_cache_is_seen_and_can_be_turned_off(tmp_path: Path) -> None:
    cached = {}
    for name, flags in (("on", {}), ("off", {"cache_prompt": False, "cache_ram": 0})):
        with ExitStack() as crew:
            session = llama(tmp_path / name, "gguf-q4", crew, **flags)
            prompt = session.prompt(1, 64)
            session.complete(prompt, 2)
            cached[name] = session.complete(prompt, 2)["cached_tokens"]
    assert cached["on"] >= 60
    assert cached["off"] == 0


@pytest.fixture
def dense() -> None:
    if not environment("transformers").ready:
        pytest.skip("needs `bench engines install transformers`")


@pytest.mark.usefixtures("dense")
def test_weights_converted_here_answer_as_transformers_does(tmp_path: Path) -> None:
    """In fp32 both compute the same: greedy answers agree token by token."""
    prompts = ["The capital of France is", "Once upon a time there was a", "1, 2, 3, 4,"]
    with serving(tmp_path / "transformers", "smollm2-135m", "fp32", threads=1) as server:
        expected = [server.complete(prompt=prompt, max_tokens=8)["choices"][0]["text"] for prompt in prompts]
    converted = resolve(MODEL, "fp32", form="gguf")
    assert converted.path is not None
    assert header(gguf_file(converted.path)).file_type == "f32"
    with ExitStack() as crew:
        session = llama(tmp_path / "llama", "fp32", crew)
        assert [session.complete(prompt, 8)["text"] for prompt in prompts] == expected


@pytest.mark.usefixtures("dense")
def test_weights_are_quantized_here_to_llama_cpps_types(tmp_path: Path) -> None:
    eight = resolve(MODEL, "gguf-q8_0", form="gguf")
    assert eight.path is not None
    assert header(gguf_file(eight.path)).file_type == "q8_0"
    whole = resolve(MODEL, "bf16", form="gguf")
    # 8.5 bits a weight against 16.
    assert (eight.size_bytes or 0) / (whole.size_bytes or 1) == pytest.approx(8.5 / 16, rel=0.03)
    with ExitStack() as crew:
        session = llama(tmp_path, "gguf-q8_0", crew)
        row = session.complete(session.prompt(1))
        assert (row["error"], row["completion_tokens"]) == (None, 12)


@pytest.mark.usefixtures("dense")
def test_a_gguf_files_own_tokenizer_is_the_models(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    ours, theirs = resolve(MODEL, "gguf-q4", form="gguf").tokenizer, resolve(MODEL, "bf16").tokenizer
    mine, reference = Tokenizer.from_file(str(ours)), Tokenizer.from_file(str(theirs))
    for text in ("Hello world 1234, it's über 中文!\n\n  x = 3.14", "def f(x):\n    return x**2  # why?", " a  b   c"):
        assert mine.encode(text).ids == reference.encode(text).ids
