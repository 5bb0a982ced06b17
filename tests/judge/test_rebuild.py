"""A recorded baseline beside today's variant: a scenario that loads, with exactly the two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.errors import IncomparableError, UnknownName
from bench.judge.baseline import Baseline
from bench.judge.rebuild import rebuild
from bench.scenario.load import Scenario
from bench.scenario.redaction import redacted

TEXT = """\
scenario: served
engines: {server: {engine: simulated, args: {ttft_ms: 40}}}
warmups: {two: {strategy: requests, n: 2}}
matrix: {args.itl_ms: [3, 5], warmup: [none, two]}
workload: {prompts: {kind: random, tokens: 16}, output_tokens: 8, requests: 6}
design: {blocks: 4}
"""


@pytest.fixture
def today() -> Scenario:
    return Scenario.parse(TEXT.replace("ttft_ms: 40", "ttft_ms: 44"), "scenarios/served.yaml")


def recorded(variant: str) -> Baseline:
    return Baseline("served", variant, "here", {"ttft.p50": 0.05}, {}, "sha256:0", TEXT)


def test_both_variants_and_no_other(today: Scenario) -> None:
    name = today.variants[1].id
    made = Scenario.parse(rebuild(recorded(name), today), "both.yaml")
    old, new = made.variants
    assert (old.engine.args["ttft_ms"], new.engine.args["ttft_ms"]) == (40, 44)
    assert old.engine.args["itl_ms"] == new.engine.args["itl_ms"] == 5
    assert old.warmup == new.warmup == today.variants[1].warmup
    assert made.model.gate is not None
    assert made.model.gate.metrics == {"ttft.p50": "5%"}
    assert old.matches(made.model.gate.baseline.model_extra or {})
    assert made.model.workload == today.model.workload


def test_a_secret_that_the_recipe_has_not_is_todays_or_none_at_all() -> None:
    keyed = TEXT.replace("{ttft_ms: 40}}", "{ttft_ms: 40}, env: {HF_TOKEN: hush, API_KEY: hush, A: '1'}}")
    old = Baseline("served", "", "here", {"ttft.p50": 0.05}, {}, "sha256:0", redacted(keyed))
    now = Scenario.parse(keyed.replace("API_KEY: hush, ", ""), "scenarios/served.yaml")
    made = Scenario.parse(rebuild(replace(old, variant=now.variants[0].id), now), "both.yaml")
    assert [dict(one.engine.env) for one in made.variants] == [{"HF_TOKEN": "hush", "A": "1"}] * 2


def test_another_workload_is_no_comparison(today: Scenario) -> None:
    other = Scenario.parse(TEXT.replace("tokens: 16", "tokens: 32"), "scenarios/served.yaml")
    with pytest.raises(IncomparableError, match="workload"):
        rebuild(recorded(today.variants[0].id), other)


def test_an_unknown_variant_is_named(today: Scenario) -> None:
    with pytest.raises(UnknownName, match="no variant is called 'gone'"):
        rebuild(recorded(today.variants[0].id), today, "gone")
