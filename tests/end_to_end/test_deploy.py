"""From a run to a service on the real engine: ready only when warm, back after kill -9, other weights refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.engines.ports import free_port
from tests.service.test_deploy import change, ready, running

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

SCENARIO = """
scenario: kept
model: {source: default}
engines: {transformers: {engine: transformers, args: {threads: 1}}}
warmups: {requests: {strategy: requests, n: 2, output_tokens: 4}}
matrix: {quantization: [bf16], warmup: [requests]}
workload: {prompts: {kind: random, tokens: 15}, output_tokens: 4, requests: 8}
# What the neighbours on this host take is not what is tested here.
design: {blocks: 1, retries: 0, max_steal: 1.0, max_contention: 1.0}
"""


def test_a_measured_variant_becomes_a_service_that_keeps_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept.yaml").write_text(SCENARIO)
    results, folder = tmp_path / "results", tmp_path / "svc"
    assert main(["run", str(tmp_path / "kept.yaml"), "--results", str(results), "--no-report"]) == 0
    assert main(["deploy", str(results), str(folder), "--port", str(free_port())]) == 0
    settings = json.loads((folder / "service.json").read_text())
    assert (folder / "programs" / "transformers_server").is_dir(), "our own server travels with it"
    # The limit of one launch on a busy machine is no limit for a busier one; that it is kept is tested elsewhere.
    change(folder, lambda settings: settings["ready"].update(within_ms=60_000, timeout_s=600))
    capsys.readouterr()

    with running(folder) as process:
        first = _ready(folder)
        url = f"http://127.0.0.1:{settings['port']}"
        assert main(["ready", url, "--within", "60s", "--json"]) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert said["warm"]["ttft_ms"] > 1
        assert said["warm"]["streamed"]
        os.kill(first, signal.SIGKILL)
        assert _ready(folder, after=first) != first
        process.terminate()
        assert process.wait(120) == 0

    weights = tmp_path / "weights"
    shutil.copytree(settings["model"]["path"], weights)
    with (weights / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        (last,) = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    change(folder, lambda settings: settings["model"].update(path=str(weights)))
    done = subprocess.run([str(folder / "start.sh")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 78, "one bit of one weight is enough"
    assert "model.safetensors is not what was measured" in done.stderr


def _ready(folder: Path, after: int | None = None) -> int:
    """As in the fast tests, with a real engine's patience."""
    end = time.monotonic() + 600
    while True:
        try:
            return ready(folder, after)
        except AssertionError:
            if time.monotonic() > end:
                raise
