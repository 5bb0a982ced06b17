from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenario.texts import GOOD, changed, problems, told


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "hf:someone/some-model",
            "someone/some-model",
            "model.source: 'someone/some-model' is not a source: default,",
        ),
        ("hf:someone/some-model", "hf:model", "model.source: 'hf:model' does not have the form hf:owner/name[@"),
        ("hf:someone/some-model", "pypi:x#f", "model.source: 'pypi:x#f' does not have the form pypi:distribution=="),
        ("hf:someone/some-model", "path:/m", "model.revision: only hf: sources have revisions; leave it out"),
        ("revision: main", "checkpoints: {awq: x}", "model.checkpoints.awq: 'x' is not a source: default, smoll"),
        ("[vllm, hf]", "[vllm, vllm]", "matrix.engine[1]: 'vllm' is listed twice; keep one of them"),
        ("[vllm, hf]", "[vllm, hg]", "matrix.engine[1]: 'hg' is not one of vllm, hf"),
        ("[vllm, hf]", "[vllm, hf]\n  model: [a]", "matrix.model[0]: there is no `models` to choose from"),
        (
            "[vllm, hf]",
            "[vllm, hf]\n  wramup: [none]",
            "matrix.wramup: unknown factor; one of engine, model, quantization,",
        ),
        ("[vllm, hf]", "[vllm, hf]\n  args.eager: true", "matrix.args.eager: true is not a list of levels; write ["),
        ("[vllm, hf]", "[vllm, hf]\n  args.eager: []", "matrix.args.eager: a list is not a list of levels"),
        ("[vllm, hf]", "[vllm, hf]\n  args.eager: [{}]", "matrix.args.eager[0]: a mapping is not a level; text,"),
        ("engine: hf, quant", "engin: hf, quant", "matrix.exclude[0].engin: unknown factor; one of engine,"),
        ("engine: hf, quant", "args.x: 1, quant", "matrix.exclude[0].args.x: unknown factor; one of engine,"),
        ("awq}]", "awk}]", "matrix.exclude[0].quantization: 'awk' is not one of fp32, fp16, bf16, awq,"),
        ("warmup: none}", "warmup: nope}", "gate.baseline.warmup: 'nope' is not one of"),
        ("warmup: none}", "page_cach: drop}", "gate.baseline.page_cach: unknown factor; one of engine, model,"),
        ("ttft.p50", "tttf.p50", "gate.metrics.tttf.p50: no metric is called that; one of"),
        (
            "ttft.p50",
            "memory.peek",
            "gate.metrics.memory.peek: no metric is called that; one of memory.idle, memory.peak",
        ),
        ("ttft.p50", "energy.per_token", "gate.metrics.energy.per_token: is not measured; add energy to `measure`"),
        ("ttft.p50", "goodput", "gate.metrics.goodput: needs limits; write `slo` under `workload`"),
        ("5%", "five", "gate.metrics.ttft.p50: 'five' is not a margin; write a percentage such as 5%"),
        ("5%", "0%", "gate.metrics.ttft.p50: '0%' is not a margin; it lies above 0% and up to 1000%"),
        ("5%", "0.05", "gate.metrics.ttft.p50: '0.05' is not a margin"),
    ],
)
def test_a_name_that_nothing_answers_to_is_found(old: str, new: str, expected: str) -> None:
    assert any(message.startswith(expected) for message in told((old, new))), told((old, new))


def warmups(definition: str) -> list[str]:
    return told(("matrix:", f"warmups:\n  mine: {definition}\nmatrix:"), ("[none, multi-stage]", "[none, mine]"))


@pytest.mark.parametrize("definition", ["requests", "{strategy: requests, n: 5}", "[page-cache, {strategy: requests}]"])
def test_a_warmup_of_ones_own_may_be_a_name_a_mapping_or_a_list(definition: str) -> None:
    assert warmups(definition) == []


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("request", "warmups.mine: 'request' is not one of"),
        ("[requests, {strategy: requets}]", "warmups.mine[1].strategy: 'requets' is not one of"),
        ("{n: 3}", "warmups.mine: strategy is missing: one of"),
        ("[]", "warmups.mine: is empty; name a strategy"),
        ("7", "warmups.mine: 7 is not a strategy; write a name"),
        ("{strategy: requests, n: 0}", "warmups.mine.n: 0 is not above 0 (requests to send)"),
        ("{strategy: requests, m: 3}", "warmups.mine.m: unknown key; one of n, tokens, output_tokens"),
        ("{strategy: none, n: 3}", "warmups.mine.n: unknown key; nothing is allowed here"),
    ],
)
def test_a_wrong_warmup_is_found_with_its_options(definition: str, expected: str) -> None:
    messages = warmups(definition)
    assert any(message.startswith(expected) for message in messages), messages


def test_prompts_that_are_not_there_are_found_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "manual.txt").touch()
    text = changed(("{kind: random, tokens: [15, 128]}", "{kind: text, file: texts/manul.txt}"))
    (problem,) = problems(text, tmp_path / "x.yaml")
    assert problem.message == "no such file: texts/manul.txt (looked for beside the scenario); texts/ holds manual.txt"
    (directory,) = problems(text.replace("texts/manul.txt", "texts"), tmp_path / "x.yaml")
    assert directory.message == "texts is a directory, not a file"


def test_what_the_tuner_is_to_make_small_is_a_metric() -> None:
    text = GOOD + "tune: {levers: {enforce_eager: [true, false]}, objective: "
    assert problems(text + "cold_ttft}\n") == ()
    (problem,) = problems(text + "cold_tft}\n")
    assert problem.message.startswith("no metric is called 'cold_tft'; one of ")
    assert problem.message.endswith("(did you mean cold_ttft?)")


def test_the_evaluation_texts_are_looked_for(tmp_path: Path) -> None:
    text = GOOD + "quality: {against: {quantization: fp16}, corpus: texts.jsonl}\n"
    assert [one.path for one in problems(text, tmp_path / "x.yaml")] == ["quality.corpus"]
    (tmp_path / "texts.jsonl").touch()
    assert problems(text, tmp_path / "x.yaml") == ()


def test_shipped_prompts_are_known_by_name() -> None:
    prompts = "{kind: random, tokens: [15, 128]}"
    assert told((prompts, "{kind: conversation, file: 'founding:two-turn'}")) == []
    (message,) = told((prompts, "{kind: text, file: 'founding:fault-triag'}"))
    assert message == (
        "workload.prompts.file: 'founding:fault-triag' is not one of founding:fault-triage, founding:manual-zh, "
        "founding:two-turn (did you mean founding:fault-triage?)"
    )


def test_a_flag_that_only_include_brings_may_be_named_elsewhere() -> None:
    text = changed(
        ("  exclude:", "  include: [{args.eager: true}]\n  exclude:"),
        ("warmup: none}", "warmup: none, args.eager: true}"),
    )
    assert problems(text) == ()
    assert problems(GOOD) == ()


def test_two_revisions_of_one_source_are_refused() -> None:
    assert told(("some-model", "some-model@v1")) == [
        "model.revision: hf:someone/some-model@v1 names the revision v1 already; keep one of the two"
    ]
    assert told(("some-model", "some-model@main")) == []
