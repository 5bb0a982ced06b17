"""Steps are found by name, checked before anything starts, and put together in order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import plugins
from bench.engines.engine import LaunchTrace
from bench.errors import LaunchError, UnknownName, UsageError
from bench.record.launches import Check, WarmupStage
from bench.scenario.variant import WarmupStep
from bench.warmup.step import Prepared, Stage, WarmupStrategy
from bench.warmup.strategies import build
from tests.warmup.states import state, variant, workload


def stages(*steps: WarmupStep, tokens: int | list[int] = 15) -> list[Stage]:
    return list(build(steps).stages(workload(tokens)))


@pytest.mark.parametrize("name", plugins.names("warmups"))
def test_every_registered_strategy_works_with_its_default_options(name: str) -> None:
    assert build((WarmupStep(name),))


def test_an_unknown_strategy_says_which_there_are() -> None:
    with pytest.raises(UnknownName, match=r"did you mean requests\?"):
        build((WarmupStep("request"),))


def test_every_wrong_option_is_named_at_once() -> None:
    steps = (WarmupStep("requests", {"n": "three", "m": 1}), WarmupStep("multi-stage", {"sampling": ["greed"]}))
    with pytest.raises(UsageError) as failure:
        build(steps)
    assert "'requests', option 'n': input should be a valid integer" in str(failure.value)
    assert "'requests', option 'm': no such option: n, tokens, output_tokens" in str(failure.value)
    assert "'multi-stage', option 'sampling.0': input should be 'greedy' or 'sampled'" in str(failure.value)


def test_none_sends_nothing() -> None:
    assert stages(WarmupStep("none")) == []


def test_requests_sends_n_of_the_workloads_shortest_prompt() -> None:
    (stage,) = stages(WarmupStep("requests", {"n": 5}), tokens=[512, 15])
    assert (stage.requests, stage.buckets, stage.output_tokens) == (5, (15,), 32)


def test_multi_stage_meets_every_length_on_every_sampling_path() -> None:
    asked = stages(WarmupStep("multi-stage"), tokens=[128, 15])
    found = [(stage.buckets, stage.body["temperature"]) for stage in asked]
    assert found == [((15,), 0.0), ((15,), 0.8), ((128,), 0.0), ((128,), 0.8)]


def test_stages_follow_one_another_in_the_order_of_the_steps() -> None:
    labels = [stage.label.split("/")[0] for stage in stages(WarmupStep("multi-stage"), WarmupStep("requests"))]
    assert labels == ["multi-stage", "multi-stage", "requests"]


def test_warm_up_runs_at_the_measured_concurrency() -> None:
    assert all(stage.concurrency is None for stage in stages(WarmupStep("multi-stage"), WarmupStep("requests")))


def test_until_steady_covers_every_length_before_it_looks_for_a_trend() -> None:
    coverage, windows = stages(WarmupStep("until-steady", {"window": 10}), tokens=[15, 128, 512])
    assert (coverage.requests, coverage.buckets, coverage.until) == (6, (15, 128, 512), None)
    assert windows.requests == 12
    assert windows.until is not None
    assert windows.max_batches == 8


def test_later_flags_win_and_evidence_is_kept_by_step(tmp_path: Path) -> None:
    strategy = build((WarmupStep("page-cache"), WarmupStep("kv-preallocate", {"mib": 64})))
    prepared = strategy.prepare(state(tmp_path))
    assert prepared.args == {"kv_cache_memory_bytes": 64 * 2**20}
    assert set(prepared.state) == {"fresh-caches", "page-cache", "kv-preallocate"}


def test_whoever_says_nothing_about_compile_caches_starts_without_them(tmp_path: Path) -> None:
    old = tmp_path / "caches" / "fresh" / "inductor" / "old.so"
    old.parent.mkdir(parents=True)
    old.touch()
    prepared = build((WarmupStep("requests"),)).prepare(state(tmp_path))
    assert not old.exists()
    assert prepared.env["VLLM_CACHE_ROOT"].startswith(str(tmp_path / "caches" / "fresh"))


def test_answered_requests_are_evidence_and_failed_ones_a_violation() -> None:
    strategy = build((WarmupStep("requests"),))
    stage = WarmupStage("requests", requests=3, ok=3)
    checks = {c.name: c.status for c in verified(strategy, [stage])}
    assert checks["warmup.requests"] == "ok"
    checks = {c.name: c.status for c in verified(strategy, [replace(stage, ok=2)])}
    assert checks["warmup.requests"] == "violated"


def test_the_reason_to_stop_is_in_the_evidence() -> None:
    strategy = build((WarmupStep("until-steady"),))
    stage = WarmupStage("until-steady/windows", requests=20, ok=20, reason="steady: 1 %")
    (check,) = (c for c in verified(strategy, [stage]) if c.name == "warmup.until-steady")
    assert "steady: 1 %" in check.evidence


def test_sleep_needs_vllm(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="needs vLLM"):
        build((WarmupStep("sleep-wake"),)).prepare(state(tmp_path, variant("transformers")))


def test_sleep_puts_the_engine_to_sleep_and_wakes_it() -> None:
    before, wake = stages(WarmupStep("sleep-wake"))
    assert before.requests == 1
    assert wake.calls == ("/sleep?level=1", "/wake_up")


def verified(strategy: WarmupStrategy, warmup: list[WarmupStage]) -> list[Check]:
    return strategy.verify(LaunchTrace({}, [], warmup=warmup), Prepared())
