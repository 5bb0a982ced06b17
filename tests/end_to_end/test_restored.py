"""A real engine restored from an image that CRIU wrote: sooner than a new program, with its first token."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.analyse import worth
from bench.analyse.run import Run
from bench.environments import environment
from bench.judge.validity import judge_folder
from bench.probes.snapshots import criu
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.load import Scenario
from tests.end_to_end.test_forked import MODEL, checks, cold_s, reasons

SCENARIO = f"""
scenario: end-to-end-restored
model: {{source: "{MODEL}"}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 2, timeout_s: 600}}
engines: {{t: {{engine: transformers, args: {{max_model_len: 256, threads: 1}}, ready_timeout_s: 900}}}}
matrix: {{quantization: [fp32], start: [exec, restored]}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}}
"""


@pytest.mark.end_to_end
@pytest.mark.timeout(900)
def test_restored_transformers_answer_as_the_engine_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not environment.environment("transformers").ready:
        pytest.skip("needs `bench engines install transformers`")
    if not (able := criu()).there:
        pytest.skip(f"{able.words}; {able.fix}")
    monkeypatch.setattr("bench.engines.images.home", lambda: tmp_path / "home")
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    setting = Setting(results=tmp_path / "results", rules=Rules(judge_folder), check_client=False)
    run = Run.open(carry_out(Scenario.load(path), setting))
    launches = {launch.record.variant: launch for launch in run.all}
    executed, restored = launches["exec"], launches["restored"]
    found, start = checks(restored), restored.record.start
    assert (found["start.state"].status, found["oracle.state"].status) == ("ok", "ok"), restored.record.checks
    assert start.mode == "restored"
    assert start.oracle == executed.record.start.oracle
    assert start.image is not None
    # The weights are in the image, which is larger than they are; their own files were not looked into again.
    size = sum(file.stat().st_size for file in (tmp_path / "home").rglob("*.img")) / 2**20
    assert start.image.mib == pytest.approx(size)
    assert (start.weights_mib or 0.0) < size / 100
    absent = reasons(restored)
    assert all(absent[name] == "restored" for name in ("import_torch", "import_transformers", "tokenizer", "weights"))
    # Both in one run on one machine; most of a start by exec is imports.
    assert cold_s(restored) < cold_s(executed) / 2
    row = worth.launches(run).set_index("variant").loc["restored"]
    assert 0 < row["restored_s"] < row["cold_ttft_s"] < row["second_token_s"]
    assert restored.record.exit.leftover == []
