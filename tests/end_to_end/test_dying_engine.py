"""An engine that becomes healthy and dies at its first request: shown with its own reason, and the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.analyse.run import Run

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]

CHILD = Path(__file__).parents[1] / "engines" / "child.py"


def test_each_way_of_dying_is_classified_and_the_next_launch_is_made(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    start = f'["{sys.executable}", "-S", "-E", "{CHILD}", "{{port}}"'
    (tmp_path / "dying.yaml").write_text(
        f"""
scenario: dying
model: {{source: "path:{weights}"}}
engines:
  at-once: {{engine: command, command: {start}, dies_at_request]}}
  a-moment-later: {{engine: command, command: {start}, lingers]}}
  sound: {{engine: simulated, args: {{ttft_ms: 500, itl_ms: 0.2}}}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4, requests: 3, timeout_s: 10}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}}
"""
    )
    bench = Path(sys.executable).parent / "bench"
    command: list[str | Path] = [
        bench,
        "run",
        tmp_path / "dying.yaml",
        "--results",
        tmp_path / "results",
        "--no-report",
    ]
    environment = {**os.environ, "FIRSTTOKEN_BESIDE_OTHERS": "1"}
    subprocess.run(command, capture_output=True, env=environment, timeout=240)
    run = Run.open(tmp_path / "results")
    assert run.manifest.state == "complete"
    ended = {launch.record.variant: launch.record for launch in run.all}
    assert ended.pop("sound").status == "ok"
    assert len(ended) == 2
    for record in ended.values():
        assert (record.status, record.reason_kind) == ("unsupported", "unsupported_quantization"), record
        assert "cpu_gemm_wna16" in (record.reason or "")
        assert record.log_tail
        assert record.exit.leftover == []
