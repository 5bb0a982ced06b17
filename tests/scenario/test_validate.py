from __future__ import annotations

import copy
import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bench.scenario.model import ScenarioModel
from bench.scenario.validate import resolve
from tests.scenario.texts import GOOD, changed, loaded, problems, told

EXTRAS = """\
warmups: {mine: {strategy: requests, n: 3}, both: [page-cache, {strategy: multi-stage, tokens: [16]}]}
host: {class: any}
quality: {against: {quantization: fp16}, max_kl: 0.05}
tune: {levers: {enforce_eager: [true, false]}}
"""
JARGON = re.compile(r"Input should|validation|pydantic|\btype=|_type\b|Extra inputs|Value error|dict\b|NoneType|ctx")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("blocks: 4", "blocks: 0", "design.blocks: 0 is not above 0 (each block launches every variant once,"),
        ("blocks: 4", "blocks: 2.5", "design.blocks: 2.5 is not a whole number"),
        ("blocks: 4", "blocks: '4'", "design.blocks: '4' is not a whole number"),
        ("blocks: 4", "blocks: true", "design.blocks: true is not a whole number"),
        ("blocks: 4", "retries: -1", "design.retries: -1 is below 0 (how often an invalid launch is repeated)"),
        ("blocks: 4", "max_steal: 2", "design.max_steal: 2 is above 1 (share of processor time"),
        ("blocks: 4", "sequential: on", "design.sequential: 'on' is not true or false"),
        ("blocks: 4", "precision: .inf", "design.precision: inf is not a finite number"),
        ("blocks: 4", "cool_down: 5", "design.cool_down: 5 is not a mapping"),
        ("{blocks: 4}", "", "design: is empty; write a mapping (how the experiment is laid out), or leave the key out"),
        ("tokens: [15, 128]", "tokens: many", "workload.prompts.tokens: 'many' is not a whole number or a list"),
        ("tokens: [15, 128]", "tokens: [15, no]", "workload.prompts.tokens[1]: 'no' is not a whole number"),
        ("tokens: [15, 128]", "tokens: []", "workload.prompts.tokens: is empty; at least 1 is needed"),
        ("kind: random", "kind: randm", "workload.prompts.kind: 'randm' is not one of random, text, conversation"),
        ("kind: random, ", "", "workload.prompts: needs `kind`: random, text, conversation or trace"),
        ("kind: random, tokens", "kind: random, file: x, tokens", "workload.prompts.file: unknown key; one of kind,"),
        ("requests: 10", "arrivals: {closed: 1, rate: 2}", "workload.arrivals: needs exactly one of closed, rate,"),
        ("requests: 10", "slo: {tttf: 5}", "workload.slo.tttf: 'tttf' is not one of ttft, tpot, e2el (did you mean"),
        ("[none, multi-stage]", "none", "matrix.warmup: 'none' is not a list (built in, or from `warmups`); write ["),
        ("[vllm, hf]", "[]", "matrix.engine: is empty; at least 1 is needed (names from `engines`;"),
        ("scenario: sample", "scenario: My Run", "scenario: 'My Run' is not made of a-z, 0-9, `.`, `_` and `-`"),
        ("scenario: sample", "scenaro: sample", "scenaro: unknown key; one of scenario, description, host,"),
        ("revision: main", "sha256: abc", "model.sha256: 'abc' is not 64 hexadecimal digits in lower case"),
        ("revision: main", "checkpoints: {awk: x}", "model.checkpoints.awk: 'awk' is not one of fp32, fp16, bf16,"),
        (
            "scenario: sample",
            "scenario: sample\nhost: {class: 3, clock: any}",
            "host.clock: unknown key; one of class,",
        ),
        ("args: {max_model_len: 2048}", "env: {A: [1]}", "engines.vllm.env.A: a list is not text"),
        ("{engine: transformers}", "transformers", "engines.hf: 'transformers' is not a mapping"),
    ],
)
def test_a_mistake_is_put_in_words(old: str, new: str, expected: str) -> None:
    assert any(message.startswith(expected) for message in told((old, new))), told((old, new))


def test_a_missing_part_says_what_it_is_for() -> None:
    text = changed(("  baseline: {engine: vllm, quantization: fp16, warmup: none}\n", ""))
    (problem,) = problems(text)
    assert (problem.line, problem.path) == (17, "gate.baseline")
    assert problem.message == "is missing (the variant the others are judged against, by its factors)"


def test_text_is_taken_as_it_is_written() -> None:
    env = "env: {V: 3.10, N: 4, FLAG: true, E: 1e5}"
    scenario = loaded(("args: {max_model_len: 2048}", env), ("revision: main", "revision: 3.10"))
    assert scenario.model.engines["vllm"].env == {"V": "3.10", "N": "4", "FLAG": "true", "E": "1e5"}
    assert scenario.model.model is not None
    assert scenario.model.model.revision == "3.10"


def test_one_broken_part_hides_nothing_in_another() -> None:
    assert told(("{kind: random, tokens: [15, 128]}", "3"), ("warmup: none}", "warmup: non}"), ("[vllm,", "[vlm,")) == [
        "matrix.engine[0]: 'vlm' is not one of vllm, hf (did you mean vllm?)",
        "workload.prompts: 3 is not a mapping (what is asked; `kind` is random, text, conversation or trace)",
        "gate.baseline.warmup: 'non' is not one of compile-artifacts, compile-cache, hand-over, kv-preallocate, "
        "multi-stage, none, page-cache, requests, sleep-wake, until-steady (did you mean none?)",
    ]


def test_every_key_says_what_it_means() -> None:
    silent = [
        f"{model.__name__}.{name}"
        for model in models(ScenarioModel)
        for name, info in model.model_fields.items()
        if not info.description
    ]
    assert silent == []


def models(root: type[Any]) -> list[type[Any]]:
    from pydantic import BaseModel

    found = [root]
    for model in found:
        for name, info in model.model_fields.items():
            kinds, _ = resolve(model, (info.alias or name,))
            for kind in kinds:
                inner = [kind, *getattr(kind, "__args__", ())]
                found += [
                    one for one in inner if isinstance(one, type) and issubclass(one, BaseModel) and one not in found
                ]
    return found


def paths(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path below a value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [one for key, item in items for one in [(*path, key), *paths(item, (*path, key))]]


WHOLE: Any = YAML(typ="safe", pure=True).load(GOOD + EXTRAS)
RUBBISH = st.sampled_from([None, True, -1, 0, 1.5, "", "word", [], [None], {}, {"x": 1}, [[1]], {"kind": "text"}, "5%"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(paths(WHOLE)), RUBBISH), min_size=1, max_size=4), st.booleans())
def test_no_mistake_is_told_in_jargon_or_ends_in_a_traceback(
    changes: list[tuple[tuple[str | int, ...], Any]], add: bool
) -> None:
    data = copy.deepcopy(WHOLE)
    for path, rubbish in changes:
        parent = data
        try:
            for step in path[:-1]:
                parent = parent[step]
            parent["extra" if add and isinstance(parent, dict) else path[-1]] = rubbish
        except (KeyError, IndexError, TypeError):
            continue
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(data, text)
    for problem in problems(text.getvalue()):
        assert not JARGON.search(str(problem)), problem
