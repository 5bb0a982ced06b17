from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.engines.command import Command
from bench.engines.engine import Checkpoint, LaunchContext
from bench.scenario.combinations import PLACES
from tests.scenario.texts import GOOD, changed, loaded, problems, told

MODEL = 'model: {source: "hf:someone/some-model", revision: main}\n'


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (MODEL, "", "model: is missing; vllm and hf cannot start without one"),
        (
            MODEL,
            MODEL + "models: {a: {source: 'dummy:tiny-llama'}}\n",
            "models: `model` and `models` exclude each other; keep one",
        ),
        (
            "engine: transformers",
            "engine: openai",
            "engines.hf.base_url: is missing; `engine: openai` needs the address",
        ),
        (
            "engine: transformers",
            "engine: openai, base_url: 'x:1'",
            "engines.hf.base_url: 'x:1' does not begin with http",
        ),
        ("engine: transformers", "engine: openai, image: x", "engines.hf.image: has no use here: a running server is"),
        (
            "engine: transformers",
            "engine: transformers, image: x",
            "engines.hf.image: has no use here: transformers takes no image; it runs in an interpreter",
        ),
        (
            "engine: transformers",
            "engine: transformers, base_url: 'http://x'",
            "engines.hf.base_url: is for `engine: op",
        ),
        (
            "engine: transformers",
            "engine: command",
            "engines.hf.command: is missing; `engine: command` needs the server's",
        ),
        (
            "engine: transformers",
            "engine: command, command: [x]",
            "engines.hf.command: does not say {port}; the harness",
        ),
        (
            "engine: transformers",
            "engine: vllm, command: [x]",
            "engines.hf.command: is for `engine: command` only; vllm",
        ),
        (
            "engine: transformers",
            "engine: vllm, python: /p, image: i",
            "engines.hf.image: python and image exclude each",
        ),
        (
            "requests: 10",
            "arrivals: {closed: 50}",
            "workload.arrivals.closed: 50 streams have only 40 requests to send",
        ),
        (
            "requests: 10",
            "arrivals: {closed: 1, max_in_flight: 2}",
            "workload.arrivals.max_in_flight: is for open loads",
        ),
        ("requests: 10", "requests: 1", "workload.prompts.tokens: 2 lengths, but only 1 request per launch"),
        (
            "engine: transformers",
            "engine: vllm, path: /p",
            "engines.hf.path: has no use here: vllm runs in an interpreter",
        ),
        (
            "engine: transformers",
            "engine: llama-cpp, path: /p, environment: llama-cpp-cuda",
            "engines.hf.path: environment and path exclude each other",
        ),
        (
            "{max_model_len: 2048}",
            "{ctx_size: 200, parallel: 2}",
            "engines.vllm.args.ctx_size: 200, shared by 2 slots, cannot hold a prompt of 128 tokens and 32 output",
        ),
        ("2048", "150", "engines.vllm.args.max_model_len: 150 cannot hold a prompt of 128 tokens and 32 output tokens"),
        ("blocks: 4", "page_cache: drop}\nhost: {class: any", ""),
        ("blocks: 4", "sequential: true, precision: 0.03", "design.precision: two rules to stop by"),
        (
            "quantization: awq}]",
            "warmup: none, quantization: fp32}]",
            "matrix.exclude[0]: matches no cell of the matrix",
        ),
        ("[{engine: hf, quantization: awq}]", "[{engine: hf}, {engine: vllm}]", "matrix.exclude: leaves no variant"),
        (
            "  exclude:",
            "  include: [{engine: vllm}]\n  exclude:",
            "matrix.include[0]: adds nothing: this cell is there",
        ),
        (", warmup: none}", "}", "gate.baseline: names 2 variants, vllm-fp16-none, vllm-fp16-multi-stage; name more"),
        (
            "{engine: vllm, quantization: fp16,",
            "{engine: hf, quantization: awq,",
            "gate.baseline: names none of the vari",
        ),
        (
            "[fp16, awq]",
            "[fp16, awq]\n  page_cache: [drop, leave]\n  args.a: [1, 2]",
            "gate.baseline: names 4 variants",
        ),
    ],
)
def test_what_cannot_go_together_is_found(old: str, new: str, expected: str) -> None:
    messages = told((old, new))
    assert any(message.startswith(expected) for message in messages) if expected else messages == [], messages


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        ("engine: command, command: [serve, '{port}']", "a command line may be any program"),
        ("engine: openai, base_url: 'http://host'", "a running server is attached to, and never started"),
        ("engine: vllm, image: 'vllm:0.9'", "a container's process is no child of one outside it"),
    ],
)
def test_cells_that_can_never_be_forked_are_told_with_what_to_exclude(engine: str, why: str) -> None:
    changes = (
        ("engine: transformers", engine),
        ("  exclude:", "  start: [exec, forked]\n  exclude:"),
        ("baseline: {", "baseline: {start: exec, "),
    )
    messages = told(*changes)
    assert len(messages) == 2
    assert all(f"cannot be forked: {why}" in one and "{engine: hf, start: forked}" in one for one in messages)
    assert told(*changes, ("quantization: awq}]", "quantization: awq}, {engine: hf, start: forked}]")) == []


def test_a_server_of_ones_own_is_told_what_nothing_fills() -> None:
    command = "engine: command, command: [serve, --port, '{port}', --model, '{modle}', '{\"a\": 1}']"
    assert told(("engine: transformers", command)) == [
        "engines.hf.command[4]: {modle} is not one of {port}, {host}, {model}, {python}, {folder}, {served_name} "
        "(did you mean {model}?)"
    ]


def test_every_place_in_a_command_line_is_filled_by_its_engine(tmp_path: Path) -> None:
    words = ", ".join(f"'{{{place}}}'" for place in PLACES)
    scenario = loaded(
        ("engine: transformers", f"engine: command, served_model: m, python: {sys.executable}, command: [{words}]")
    )
    variant = next(one for one in scenario.variants if one.engine_name == "hf")
    checkpoint = Checkpoint(tmp_path, "path:x", None, "fp16")
    spec = Command().command(variant, LaunchContext(8000, tmp_path, checkpoint))
    assert not any("{" in word for word in spec.argv)


def test_a_verdict_needs_a_gate_to_look_for() -> None:
    text = changed(("blocks: 4", "sequential: true"))
    assert [one.path for one in problems(text[: text.index("gate:")])] == ["design.sequential"]


def test_a_matrix_without_end_is_refused_without_counting_it_out() -> None:
    flags = "\n".join(f"  args.f{n}: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]" for n in range(30))
    (message,) = told(("  exclude:", f"{flags}\n  exclude:"))
    assert message.startswith("matrix: 8000000000000000000000000000000 cells are more than 2000")


def test_a_server_of_ones_own_needs_no_model() -> None:
    engines = GOOD[GOOD.index("engines:") : GOOD.index("matrix:")]
    attached = "engines:\n  mine: {engine: openai, base_url: 'http://127.0.0.1:8000'}\n"
    body = "workload: {prompts: {kind: random, tokens: 15}}\n"
    scenario = loaded(text=f"scenario: x\n{attached}{body}")
    assert [variant.model.source for variant in scenario.variants] == ["remote:"]
    assert engines not in scenario.text


def test_a_reference_for_quality_may_name_one_variant_per_engine() -> None:
    assert problems(GOOD + "quality: {against: {quantization: fp16}}\n") == ()


def test_a_reference_that_fits_nothing_or_several_equally_is_found() -> None:
    (message,) = told(text=GOOD + "quality: {against: {quantization: bf16}}\n")
    assert message.startswith("quality.against: names none of the variants")
    flags = changed(("[fp16, awq]", "[fp16, awq]\n  args.a: [1, 2, 3]"), ("warmup: none}", "warmup: none, args.a: 1}"))
    assert problems(flags + "quality: {against: {quantization: fp16}}\n") == ()
    (tied,) = (problems(flags + "quality: {against: {engine: hf, warmup: none}}\n"),)
    assert tied == ()


def test_broken_cells_do_not_make_every_selector_look_wrong() -> None:
    assert [one.path for one in problems(changed(("[fp16, awq]", "[fp16, awk]")))] == ["matrix.quantization[1]"]


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (
            "prompts: {kind: random, tokens: 9}\n  arrivals: {replay: {speed: 2}}",
            "workload.arrivals.replay: replays the times of a trace",
        ),
        ("prompts: {kind: trace, file: t.jsonl}", "workload.prompts.limit: is missing; a trace may be long"),
        (
            "prompts: {kind: trace, file: t.jsonl, limit: 1}\n  output_tokens: 3",
            "workload.output_tokens: the trace says how long",
        ),
        (
            "prompts: {kind: trace, file: t.jsonl, limit: 2}",
            "workload.prompts.file: t.jsonl:2: not JSON",
        ),
        ("prompts: {kind: trace, file: t.jsonl, limit: 1}\n  arrivals: {replay: {speed: 2}}", None),
        (
            "prompts: {kind: random, tokens: [8, 9], shared_prefix: {tokens: 8}}",
            "workload.prompts.shared_prefix.tokens: 8 leave nothing of a prompt of 8 tokens",
        ),
        (
            "prompts: {kind: random, tokens: 9, shared_prefix: {tokens: 8, groups: 3}}\n  requests: 2",
            "workload.prompts.shared_prefix.groups: 3 beginnings, but only 2 requests",
        ),
        (
            "prompts: {kind: random, tokens: 9, shared_prefix: {tokens: 8}}\n  unique: false",
            "workload.unique: shares whole prompts already",
        ),
        (
            "prompts: {kind: random, tokens: 9}\n  arrivals: {rate: 1, burst: {size: 2, every_s: 1}}",
            "workload.arrivals: needs exactly one of closed, rate, poisson, ramp, burst, on_off, replay",
        ),
        (
            "prompts: {kind: random, tokens: 9}\n  arrivals: {ramp: {from: 1, to: 0, over_s: 3}}",
            "workload.arrivals.ramp.to: 0 is not above 0",
        ),
        (
            "prompts: {kind: random, tokens: 9}\n  arrivals: {on_off: {on: 1, on_s: 3}}",
            "workload.arrivals.on_off.off_s: is missing (seconds off)",
        ),
    ],
)
def test_shapes_of_load_and_traces_are_checked(tmp_path: Path, workload: str, expected: str | None) -> None:
    (tmp_path / "t.jsonl").write_text('{"timestamp": 0, "input_length": 5, "output_length": 1}\n{\n')
    text = f"scenario: x\nengines: {{s: {{engine: simulated}}}}\nworkload:\n  {workload}\n"
    messages = [f"{one.path}: {one.message}".replace(f"{tmp_path}/", "") for one in problems(text, tmp_path / "x.yaml")]
    assert len(messages) == (expected is not None), messages
    assert not expected or messages[0].startswith(expected), messages
