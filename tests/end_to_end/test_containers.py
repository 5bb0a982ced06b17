"""The real llama-server in a container of the real podman: one run from its image to its record, and nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.cli import main
from bench.engines.ports import free_port
from bench.environments.environment import environment
from tests.children import ended
from tests.podman import Podman, interpreter, programs
from tests.service.test_deploy import change, ready, running

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


@pytest.fixture(scope="module")
def image(podman_store: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """llama-server, built here, and this Python in an image of nothing but themselves and their libraries; its id."""
    built = environment("llama-cpp")
    if not built.ready:
        pytest.skip("needs `bench engines install llama-cpp`")
    root = tmp_path_factory.mktemp("image") / "root"
    programs(root, {built.python.parent / "llama-server": "/usr/bin/llama-server"})
    interpreter(root)
    return podman_store.imported(root, IMAGE)


@pytest.fixture
def measured(image: str, podman: Podman, tmp_path: Path) -> Path:
    """Results of one launch in it."""
    path = tmp_path / "contained.yaml"
    path.write_text(SCENARIO)
    assert main(["run", str(path), "--results", str(tmp_path / "results"), "--no-report"]) == 0
    return tmp_path / "results"


def test_a_run_in_a_container_knows_its_image_and_its_processes(image: str, podman: Podman, measured: Path) -> None:
    (launch,) = Run.open(measured).all
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
    with ended(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)) as harness:
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


def test_what_was_measured_in_an_image_is_kept_in_it_and_no_other(
    podman: Podman, measured: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "svc"
    port = free_port()
    assert main(["deploy", str(measured), str(folder), "--port", str(port)]) == 0
    change(folder, lambda settings: settings["ready"].update(within_ms=60_000))
    path = {"PATH": os.environ["PATH"]}
    with running(folder, **path) as keeper:
        first = ready(folder)
        assert podman.running() == [f"firsttoken-{port}"]
        os.kill(first, signal.SIGKILL)
        ready(folder, after=first)
        keeper.kill()
        keeper.wait(60)
    assert podman.running() == [f"firsttoken-{port}"], "nobody was left to remove it"
    left = podman.asked("ps", "--quiet")
    (folder / "state" / "ready").unlink()
    with running(folder, **path):
        ready(folder)
        assert podman.asked("ps", "--quiet") != left
        assert podman.running() == [f"firsttoken-{port}"], "the one before was removed"
    assert podman.running() == []
    change(folder, lambda settings: settings["container"].update(id="sha256:" + "0" * 64))
    done = subprocess.run([folder / "start.sh"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 78
    assert "is not what was measured" in done.stderr


@pytest.mark.skipif(shutil.which("podman-compose") is None, reason="needs podman-compose (pip install podman-compose)")
def test_compose_keeps_it_healthy_only_when_warm_and_starts_it_again(
    podman: Podman, measured: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "svc"
    port = free_port()
    assert main(["deploy", str(measured), str(folder), "--port", str(port), "--to", "compose"]) == 0
    change(folder, lambda settings: settings["ready"].update(within_ms=60_000))

    def healthy() -> bool:
        name = podman.running()[0]
        return subprocess.run([podman.client, "healthcheck", "run", name], capture_output=True).returncode == 0

    def compose(*words: str) -> None:
        subprocess.run(["podman-compose", *words], cwd=folder, check=True, capture_output=True, timeout=300)

    compose("up", "-d")
    try:
        assert not healthy(), "it has just been started"
        ready(folder)
        assert healthy()
        (name,) = podman.running()
        # The engine inside, and then the keeper itself: the first is the keeper's to start again, the second podman's.
        inside = int((folder / "state" / "ready").read_text())
        podman.asked("exec", name, "python3", "-c", f"import os; os.kill({inside}, 9)")
        ready(folder, after=inside)
        os.kill(int(podman.asked("inspect", name, "--format", "{{.State.Pid}}")), signal.SIGKILL)
        time.sleep(1)
        ready(folder)
        assert healthy()
    finally:
        compose("down")
    assert podman.running() == []
