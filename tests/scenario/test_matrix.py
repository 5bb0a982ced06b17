from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bench.scenario.load import Scenario
from bench.scenario.matrix import MAX_ID
from bench.scenario.variant import WarmupStep, but_for_start, counterparts
from tests.scenario.texts import loaded

BASE = """\
scenario: x
model: {source: "dummy:ernie-4.5-0.3b"}
engines:
  vllm: {engine: vllm, args: {max_num_seqs: 4}}
workload: {prompts: {kind: random, tokens: 15}}
matrix:
"""


def ids(matrix: str) -> list[str]:
    return [variant.id for variant in Scenario.parse(BASE + matrix, "x.yaml").variants]


def test_variants_are_named_by_the_factors_that_vary() -> None:
    assert [variant.id for variant in loaded().variants] == [
        "vllm-fp16-none",
        "vllm-fp16-multi-stage",
        "vllm-awq-none",
        "vllm-awq-multi-stage",
        "hf-fp16-none",
        "hf-fp16-multi-stage",
    ]


def test_a_single_variant_is_named_by_engine_and_quantization() -> None:
    assert ids("  quantization: [awq]\n") == ["vllm-awq"]


def test_flags_are_named_so_that_they_can_be_read() -> None:
    assert ids("  args.enforce_eager: [true, false]\n") == ["enforce-eager", "no-enforce-eager"]
    assert ids("  args.max_num_seqs: [1, 4]\n") == ["max-num-seqs-1", "max-num-seqs-4"]
    assert ids("  args.gpu_memory_utilization: [0.5, 0.9]\n") == [
        "gpu-memory-utilization-0.5",
        "gpu-memory-utilization-0.9",
    ]


def test_a_flag_of_the_matrix_overrides_the_engine_s_own() -> None:
    variants = Scenario.parse(BASE + "  args.max_num_seqs: [1, 8]\n").variants
    assert [variant.engine.args for variant in variants] == [{"max_num_seqs": 1}, {"max_num_seqs": 8}]
    assert [variant.factors["args.max_num_seqs"] for variant in variants] == ["1", "8"]


def test_include_overrides_any_factor_and_takes_first_levels_for_the_rest() -> None:
    scenario = Scenario.parse(
        BASE
        + "  quantization: [fp16, awq]\n  warmup: [none, requests]\n"
        + "  include: [{quantization: gptq, page_cache: drop, args.enforce_eager: true}]\n"
    )
    added = scenario.variants[-1]
    assert (added.quantization, added.warmup_name, added.page_cache) == ("gptq", "none", "drop")
    assert added.engine.args == {"max_num_seqs": 4, "enforce_eager": True}
    assert added.id == "gptq-none-drop-enforce-eager"
    assert len(scenario.variants) == 5


def test_levels_that_read_alike_still_have_names_of_their_own() -> None:
    found = ids('  args.mode: ["A b", "a-b", "a_b"]\n')
    assert len(set(found)) == 3
    assert found == ids('  args.mode: ["A b", "a-b", "a_b"]\n')


@given(st.lists(st.text(alphabet="aA-_/ .é长", min_size=1, max_size=120), min_size=1, max_size=5, unique=True))
def test_every_name_can_be_a_folder_s(levels: list[str]) -> None:
    quoted = ", ".join("'" + level + "'" for level in levels)
    found = ids(f"  args.mode: [{quoted}]\n")
    assert len(set(found)) == len(levels)
    for name in found:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name), name
        assert len(name) <= MAX_ID


def test_a_model_is_named_after_its_file_or_repository() -> None:
    assert loaded().variants[0].model_name == "some-model"
    pypi = loaded(("hf:someone/some-model", "pypi:a==1#b/Small.Q4_1.gguf"), (", revision: main", ""))
    assert pypi.variants[0].model_name == "Small.Q4_1"


def test_models_are_a_factor() -> None:
    text = BASE.replace(
        'model: {source: "dummy:ernie-4.5-0.3b"}', "models: {a: {source: 'dummy:tiny-llama'}, b: {source: default}}"
    )
    variants = Scenario.parse(text + "  quantization: [bf16]\n").variants
    assert [(variant.id, variant.model.source) for variant in variants] == [("a", "dummy:tiny-llama"), ("b", "default")]


def test_a_warmup_is_its_steps_in_order() -> None:
    text = BASE.replace("matrix:", "warmups:\n  both: [page-cache, {strategy: requests, n: 2}]\nmatrix:")
    both, plain = Scenario.parse(text + "  warmup: [both, multi-stage]\n").variants
    assert both.warmup == (WarmupStep("page-cache"), WarmupStep("requests", {"n": 2}))
    assert plain.warmup == (WarmupStep("multi-stage"),)


def test_the_start_is_a_factor_where_a_scenario_speaks_of_it_and_in_no_name_elsewhere() -> None:
    plain = Scenario.parse(BASE + "  quantization: [fp16, awq]\n").variants
    assert [(one.id, one.start, "start" in one.factors) for one in plain] == [
        ("fp16", "exec", False),
        ("awq", "exec", False),
    ]
    both = Scenario.parse(BASE + "  start: [exec, forked]\n").variants
    assert [(one.id, one.start, one.factors["start"]) for one in both] == [
        ("exec", "exec", "exec"),
        ("forked", "forked", "forked"),
    ]
    assert both[1].matches({"start": "forked"})
    assert but_for_start(both[0].factors) == but_for_start(both[1].factors)
    assert but_for_start({"engine": "e", "start": "forked", "args.preload": "weights"}) == {"engine": "e"}
    added = Scenario.parse(BASE + "  quantization: [fp16]\n  include: [{quantization: awq, start: forked}]\n").variants
    assert [(one.id, one.start) for one in added] == [("fp16-exec", "exec"), ("awq-forked", "forked")]


def test_a_forked_start_is_in_the_name_of_a_variant_that_has_no_other_beside_it() -> None:
    assert ids("  start: [forked]\n") == ["vllm-bf16-forked"]
    assert ids("  start: [forked]\n  quantization: [fp16, awq]\n") == ["fp16-forked", "awq-forked"]


def test_selectors_compare_levels_as_they_are_written() -> None:
    first, second = Scenario.parse(BASE + "  args.enforce_eager: [true, false]\n").variants
    assert first.matches({"args.enforce_eager": True})
    assert first.matches({"args.enforce_eager": "true", "engine": "vllm"})
    assert not second.matches({"args.enforce_eager": True})
    assert not first.matches({"args.other": True})


def test_a_counterpart_shares_what_the_selector_leaves_open() -> None:
    variants = {variant.id: variant for variant in loaded().variants}
    found = counterparts(tuple(variants.values()), {"quantization": "fp16"}, variants["vllm-awq-multi-stage"])
    assert [one.id for one in found] == ["vllm-fp16-multi-stage"]
