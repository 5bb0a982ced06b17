from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import Exit, ScenarioError
from bench.scenario.load import Scenario
from tests.scenario.texts import GOOD, changed, loaded, problems


def test_a_good_scenario_is_read_as_it_stands() -> None:
    scenario = loaded()
    assert scenario.name == "sample"
    assert scenario.model.engines["vllm"].args == {"max_model_len": 2048}
    assert scenario.model.design.blocks == 4
    assert scenario.text == GOOD


def test_everything_wrong_is_reported_at_once_and_in_order_of_place() -> None:
    text = changed(
        ("engine: vllm, args", "engine: vlm, args"),
        ("[fp16, awq]", "[fp16, awk]"),
        ("multi-stage]", "multistage]"),
        ("  output_tokens: 32", "  output_token: 32"),
        ("requests: 10", "requests: ten"),
        ("ttft.p50: 5%", "ttft.p5: 5"),
    )
    assert [str(one) for one in problems(text, "scenarios/x.yaml")] == [
        "scenarios/x.yaml:4:18  engines.vllm.engine: 'vlm' is not one of command, edge-llm, fastdeploy, llama-cpp, "
        "ollama, openai, sglang, simulated, transformers, vllm (did you mean vllm?)",
        "scenarios/x.yaml:8:24  matrix.quantization[1]: 'awk' is not one of fp32, fp16, bf16, awq, gptq, int8, "
        "gguf-q4, gguf-q4_0, gguf-q4_k_m, gguf-q5_k_m, gguf-q6_k, gguf-q8_0 (did you mean awq?)",
        "scenarios/x.yaml:9:18  matrix.warmup[1]: 'multistage' is not one of compile-artifacts, compile-cache, "
        "hand-over, kv-preallocate, multi-stage, none, page-cache, requests, sleep-wake, until-steady "
        "(did you mean multi-stage?)",
        "scenarios/x.yaml:13:3  workload.output_token: unknown key; one of prompts, output_tokens, ignore_eos, "
        "temperature, arrivals, requests, unique, timeout_s, slo (did you mean output_tokens?)",
        "scenarios/x.yaml:14:13  workload.requests: 'ten' is not a whole number (requests per launch)",
        "scenarios/x.yaml:19:13  gate.metrics.ttft.p5: no metric is called that; one of ttft.p50, ttft.p90, ttft.p95, "
        "ttft.p99, ttft.mean (did you mean ttft.p50?)",
        "scenarios/x.yaml:19:22  gate.metrics.ttft.p5: '5' is not a margin; write a percentage such as 5%",
    ]


def test_a_broken_scenario_is_a_usage_error_that_carries_its_problems() -> None:
    with pytest.raises(ScenarioError) as raised:
        Scenario.parse("scenario: x", "x.yaml")
    assert raised.value.exit_code is Exit.USAGE
    assert {one.path for one in raised.value.problems} == {"engines", "workload"}


@pytest.mark.parametrize("text", ["- a\n", "word\n", "3\n", "null\n"])
def test_what_is_no_mapping_is_no_scenario(text: str) -> None:
    (problem,) = problems(text)
    assert "scenario" in problem.message


def test_the_digest_follows_the_content_and_not_the_layout() -> None:
    digest = loaded().digest
    assert loaded(("scenario: sample", "# a comment\nscenario:   'sample'\ndescription: anything")).digest == digest
    assert loaded(("requests: 10", "requests: 11")).digest != digest


def test_the_digest_follows_the_prompts(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    text = changed(("{kind: random, tokens: [15, 128]}", "{kind: text, file: prompts.txt}"))
    prompts.write_text("one\n")
    first = Scenario.parse(text, tmp_path / "x.yaml").digest
    prompts.write_text("two\n")
    assert Scenario.parse(text, tmp_path / "x.yaml").digest != first


def test_relative_paths_start_beside_the_scenario(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(GOOD)
    assert Scenario.load(file).base == tmp_path


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert Scenario.load(file).name == "sample"


def refusal(path: Path) -> str:
    with pytest.raises(ScenarioError) as raised:
        Scenario.load(path)
    (problem,) = raised.value.problems
    return str(problem).removeprefix(str(path))


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"# long\n" * 50_000)
    (tmp_path / "empty.yaml").touch()
    os.mkfifo(tmp_path / "pipe.yaml")
    assert refusal(tmp_path) == ":1:1  is a directory; name a scenario file in it"
    assert refusal(tmp_path / "none.yaml") == ":1:1  cannot be read: no such file or directory"
    assert refusal(tmp_path / "latin.yaml") == ":2:7  byte 0xe9 is not UTF-8; save the file as UTF-8"
    assert refusal(tmp_path / "huge.yaml") == ":1:1  is larger than 256 KiB; that is no scenario"
    assert refusal(tmp_path / "empty.yaml").startswith(":1:1  the file is empty")
    assert refusal(tmp_path / "pipe.yaml") == ":1:1  is not a regular file"
