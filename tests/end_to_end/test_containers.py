"""The real llama-server in a container of the real podman: one run from its image to its record, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.environments.environment import environment
from bench.run.conductor import Setting, carry_out
from bench.scenario.load import Scenario
from tests.podman import Podman, programs

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

IMAGE = "localhost/llama-server:1"
SCENARIO = f"""
scenario: contained
model: {{source: smollm2-135m}}
engines:
  llama-cpp:
    engine: llama-cpp
    image: {IMAGE}
    args: {{ctx_size: 512, parallel: 1, threads: 1}}
    env: {{SOME_API_KEY: hush}}
matrix: {{quantization: [gguf-q4], warmup: [requests]}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 4, requests: 4, timeout_s: 300}}
design: {{blocks: 1, max_steal: 1.0, max_contention: 1.0, retries: 0}}
"""


@pytest.fixture
def image(podman: Podman, tmp_path: Path) -> str:
    """llama-server, built here, in an image of nothing but itself and its libraries; the image's id."""
    built = environment("llama-cpp")
    if not built.ready:
        pytest.skip("needs `bench engines install llama-cpp`")
    root = tmp_path / "root"
    programs(root, {built.python.parent / "llama-server": "/usr/bin/llama-server"})
    return podman.imported(root, IMAGE)


def test_a_run_in_a_container_knows_its_image_and_its_processes(image: str, podman: Podman, tmp_path: Path) -> None:
    path = tmp_path / "contained.yaml"
    path.write_text(SCENARIO)
    run = Run.open(carry_out(Scenario.load(path), Setting(results=tmp_path / "results")))
    (launch,) = run.all
    record = launch.record
    assert record.status == "ok", record.reason
    assert (record.facts["image"], record.facts["image_id"], record.facts["image_digest"]) == (IMAGE, image, None)
    assert record.command is not None
    assert record.command.argv[0] == "podman"
    assert record.command.secrets == ["SOME_API_KEY"]
    assert "hush" not in json.dumps(asdict(record))
    # What the engine holds is its weights and more (its client alone would hold some 40 MiB).
    assert record.memory.served is not None
    assert record.memory.served.pss_mib is not None
    assert record.memory.served.pss_mib > 80
    assert podman.running() == []


def test_kill_9_of_a_whole_run_leaves_no_container(image: str, podman: Podman, tmp_path: Path) -> None:
    path = tmp_path / "contained.yaml"
    path.write_text(SCENARIO.replace("requests: 4,", "requests: 4000,"))
    words = [sys.executable, "-m", "bench", "run", str(path), "--results", str(tmp_path / "results"), "--no-report"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as harness:
        end = time.monotonic() + 300
        while not podman.running() and harness.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        (name,) = podman.running()
        assert name.startswith("firsttoken-")
        os.kill(harness.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while podman.running() and time.monotonic() < end:
        time.sleep(0.2)
    assert podman.running() == []
