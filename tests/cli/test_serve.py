"""`bench serve` says ready when a first token came warm, serves, and leaves nothing behind when told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

BENCH = Path(sys.executable).parent / "bench"


def scenario(folder: Path, **args: Any) -> Path:
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    script = json.dumps({"ttft_ms": 5, "itl_ms": 1} | args)
    path = folder / "served.yaml"
    path.write_text(
        f"""
scenario: served
model: {{source: "path:{weights}"}}
engines: {{s: {{engine: simulated, args: {script}}}}}
matrix: {{warmup: [none, multi-stage], start: [exec, forked]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4}}
"""
    )
    return path


def serve(path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BENCH, "serve", str(path), "--port", "0", "--json", *more],
        env={**os.environ, "FIRSTTOKEN_HOME": str(path.parent / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(url: str, model: str) -> bytes:
    body = json.dumps({"model": model, "prompt": [1, 2, 3], "max_tokens": 2, "stream": True}).encode()
    request = urllib.request.Request(f"{url}/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_warm_until_it_is_told_to_stop(tmp_path: Path, number: int) -> None:
    process = serve(scenario(tmp_path), "--variant", "multi-stage-exec")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["variant"] == "multi-stage-exec"
        assert 0 < told["warm_ttft_ms"] < 1000
        assert b"[DONE]" in ask(told["ready"], told["model"])
        process.send_signal(number)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(urllib.error.URLError):
        ask(told["ready"], told["model"])


def test_a_forked_variant_is_served_and_its_parent_goes_with_it(tmp_path: Path) -> None:
    process = serve(scenario(tmp_path), "--variant", "none-forked")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert b"[DONE]" in ask(told["ready"], told["model"])
        below = psutil.Process(process.pid).children(recursive=True)
        warm = [child for child in below if any("parent_process" in word for word in child.cmdline())]
        # The parent, the guardian and the engine, none of which was ever executed again.
        assert len(warm) == 3
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    psutil.wait_procs(warm, 10)
    assert not any(child.is_running() for child in warm)


def test_an_unknown_variant_is_answered_with_those_there_are(tmp_path: Path) -> None:
    process = serve(scenario(tmp_path), "--variant", "multistage")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "multi-stage" in said


def test_an_engine_that_dies_while_serving_ends_it_with_a_reason(tmp_path: Path) -> None:
    process = serve(scenario(tmp_path), "--variant", "none-exec")
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["variant"] == "none-exec"
        children = psutil.Process(process.pid).children(recursive=True)
        (engine,) = [child for child in children if any("emulate.server" in word for word in child.cmdline())]
        engine.kill()
        assert process.wait(30) == 4
    finally:
        process.kill()
        _, said = process.communicate()
    assert "Traceback" not in said
    assert "none-exec: killed from outside" in said
