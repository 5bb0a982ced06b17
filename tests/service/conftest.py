"""What the tests of the service have in common: one run that was really made."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.cli import main


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of a server that any command line can start: the scripted one."""
    folder = tmp_path_factory.mktemp("measured")
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    script = json.dumps({"ttft_ms": 20, "itl_ms": 1})
    command = [sys.executable, "-m", "bench.emulate.server.program", "--port", "{port}", "--script", script]
    (folder / "served.yaml").write_text(
        f"""
scenario: served
model: {{source: "path:{weights}"}}
engines:
  s: {{engine: command, command: {json.dumps([*command, "--truth", "{folder}/truth.jsonl"])},
       env: {{SHOWN: "1", SOME_API_KEY: hush, MODEL_AT: "{{model}}"}}}}
warmups: {{three: {{strategy: requests, n: 3, output_tokens: 4}}}}
matrix: {{warmup: [none, three]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4, requests: 8}}
design: {{blocks: 1, retries: 0, max_steal: 1.0, max_contention: 1.0}}
"""
    )
    before = os.environ.get("FIRSTTOKEN_HOME")
    os.environ["FIRSTTOKEN_HOME"] = str(folder / "home")
    try:
        results = folder / "results"
        assert main(["run", str(folder / "served.yaml"), "--results", str(results), "--no-report"]) == 0
    finally:
        if before is None:
            del os.environ["FIRSTTOKEN_HOME"]
        else:
            os.environ["FIRSTTOKEN_HOME"] = before
    return Run.open(folder / "results").path
