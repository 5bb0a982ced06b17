"""What `bench run` would refuse is refused by `bench check`, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.errors import Exit, ScenarioError
from bench.run.conductor import Setting, carry_out
from bench.run.refusals import longest, refusals
from bench.scenario.load import Scenario
from bench.scenario.model import Model

TEXT = """\
scenario: x
model: {source: "dummy:tiny-llama"}
engines:
  one: {engine: ENGINE}
workload:
  prompts: {kind: random, tokens: 8}
  output_tokens: 4
  requests: 3
design: {blocks: 3, max_steal: 1.0, max_contention: 1.0}
"""


def said(path: Path, engine: str, *changes: tuple[str, str]) -> list[str]:
    text = TEXT.replace("ENGINE", engine)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return [f"{one.line}: {one.path}: {one.message}" for one in refusals(Scenario.parse(text, path / "x.yaml"))]


@pytest.mark.parametrize(
    ("engine", "path", "message"),
    [
        ("transformers, args: {theads: 2}", "engines.one.args.theads", "did you mean threads?"),
        ("transformers, args: {threads: true}", "engines.one.args.threads", "must be of type int"),
        ("vllm, args: {gpu_memory_utilisation: 0.5}", "args.gpu_memory_utilisation", "mean gpu_memory_utilization?"),
        ("vllm, environment: vllm-cpu, args: {swap_space: 4}", "args.swap_space", "no flag 'swap_space' (has it from"),
        ("vllm, image: x, args: {version: 0.9.1, runner: pooling}", "args.runner", "0.9.1 has no flag 'runner'"),
        ("simulated, args: {ttft_sm: 40}", "engines.one.args.ttft_sm", "did you mean ttft_ms?"),
        ("simulated, args: {ttft_ms: soon}", "engines.one.args.ttft_ms", "ttft_ms must be"),
        ("openai, base_url: 'http://h', args: {dtype: x}", "engines.one.args.dtype", "cannot be set"),
    ],
)
def test_a_flag_that_the_engine_does_not_know(tmp_path: Path, engine: str, path: str, message: str) -> None:
    (only,) = said(tmp_path, engine)
    assert only.startswith("4: ")
    assert path in only
    assert message in only


@pytest.mark.parametrize(
    ("engine", "change", "path"),
    [
        ("vllm, args: {api_key: sk-hush}", ("", ""), "engines.one.args.api_key"),
        ("vllm, args: {api_key: [sk-hush]}", ("", ""), "engines.one.args.api_key"),
        ("vllm", ("design", "matrix: {args.api_key: [sk-hush, sk-hush2]}\ndesign"), "matrix.args.api_key"),
        ("command, command: [x, --api-key, sk-hush, '{port}']", ("", ""), "engines.one.command[1]"),
        ("command, command: [x, --api-key=sk-hush, '{port}']", ("", ""), "engines.one.command[1]"),
    ],
)
def test_a_secret_on_the_command_line(tmp_path: Path, engine: str, change: tuple[str, str], path: str) -> None:
    (only,) = said(tmp_path, engine, change)
    assert f": {path}: " in only
    assert "under `env:`" in only
    assert "hush" not in only


def test_what_has_a_secret_s_name_and_holds_none(tmp_path: Path) -> None:
    assert said(tmp_path, "vllm, args: {allow_credentials: true}, env: {VLLM_API_KEY: sk-hush}") == []


def test_flags_of_an_unknown_version_are_left_alone(tmp_path: Path) -> None:
    assert said(tmp_path, "vllm, image: somebody/vllm, args: {brand_new_flag: 1}") == []


def test_a_flag_of_the_matrix_is_refused_where_it_stands(tmp_path: Path) -> None:
    found = said(tmp_path, "simulated", ("design:", "matrix: {args.itl_sm: [1, 2]}\ndesign:"))
    assert [one.partition(": the")[0] for one in found] == ["9: matrix.args.itl_sm"]


def test_a_lever_that_the_engine_does_not_have(tmp_path: Path) -> None:
    found = said(tmp_path, "simulated", ("design:", "tune: {levers: {itl_sm: [1, 2]}}\ndesign:"))
    assert [one.partition(": the")[0] for one in found] == ["9: tune.levers.itl_sm"]


def test_an_environment_that_there_is_none_of(tmp_path: Path) -> None:
    (only,) = said(tmp_path, "vllm, environment: vlm-cpu")
    assert only.startswith("4: engines.one.environment: 'vlm-cpu' is not an environment: ")
    assert only.endswith("(did you mean vllm-cpu?)")


def test_a_prompt_longer_than_the_model(tmp_path: Path) -> None:
    found = said(tmp_path, "transformers", ("tokens: 8", "tokens: [8, 4093]"))
    assert found == [
        "6: workload.prompts.tokens: tiny-llama takes 4096 tokens, and a prompt of 4093 with 4 output tokens makes 4097"
    ]
    assert said(tmp_path, "transformers", ("tokens: 8", "tokens: [8, 4092]")) == []
    assert said(tmp_path, "simulated", ("tokens: 8", "tokens: [8, 4093]")) == []


@pytest.mark.parametrize(
    ("configuration", "length"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"n_positions": 1024}, 1024),
        ({"hidden_size": 64}, None),
    ],
)
def test_how_long_a_model_is_stands_in_its_configuration(
    tmp_path: Path, configuration: dict[str, object], length: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    assert longest(Model(source=f"path:{tmp_path}")) == length


def test_a_broken_prompt_file_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"prompt": "yes"}\n{"promt": "no"}\n')
    changes = ("{kind: random, tokens: 8}", "{kind: text, file: asked.jsonl}")
    (only,) = said(tmp_path, "simulated", changes)
    assert only == f"6: workload.prompts.file: {tmp_path}/asked.jsonl:2: needs 'prompt': text, or a list of texts"


def test_check_and_run_refuse_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT.replace("ENGINE", "simulated, args: {ttft_sm: 40}"))
    assert main(["check", str(path)]) == Exit.USAGE
    checked = capsys.readouterr().err.strip()
    with pytest.raises(ScenarioError) as refused:
        carry_out(Scenario.load(path), Setting(results=tmp_path / "results"))
    assert str(refused.value) == checked
    assert checked.startswith(f"{path}:4:")
    assert not (tmp_path / "results").exists()
