"""Runs broken off at random moments, by kill -9 and by Ctrl-C: no orphan, nothing finished lost, resume completes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from bench.record.store import RunFolder

pytestmark = pytest.mark.end_to_end

BENCH = Path(sys.executable).parent / "bench"
MARK = "FIRSTTOKEN_TEST"


def write(folder: Path) -> Path:
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    path = folder / "fragile.yaml"
    path.write_text(
        f"""
scenario: fragile
model: {{source: "path:{weights}"}}
engines: {{s: {{engine: simulated, args: {{ttft_ms: 5, itl_ms: 1}}}}}}
matrix: {{warmup: [none, requests]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4, requests: 6}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 4}}
"""
    )
    return path


def command(scenario: Path, mark: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BENCH, "run", str(scenario), "--results", str(scenario.parent / "results"), "--no-report", *more],
        env={**os.environ, MARK: mark},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def survivors(mark: str, patience_s: float = 10.0) -> list[str]:
    """Processes that carry the mark and outlive their run by more than the time that ending takes."""
    needle = f"{MARK}={mark}".encode()
    deadline = time.monotonic() + patience_s
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().decode().replace("\0", " "))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def going_on(folder: Path) -> list[str]:
    return ["--resume"] if any((folder / "results" / "fragile").glob("[!.]*/manifest.json")) else []


def complete(folder: Path) -> bool:
    """Whether every launch is there; the blow may have fallen on the summary after the last one."""
    runs = (folder / "results" / "fragile").glob("[!.]*/manifest.json")
    return any(RunFolder.open(manifest.parent).manifest.state == "complete" for manifest in runs)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_broken_off_again_and_again_is_completed_by_resume(tmp_path: Path, blow: signal.Signals) -> None:
    scenario, draw, kept = write(tmp_path), random.Random(int(blow)), dict[str, int]()
    for attempt in range(8):
        mark = uuid.uuid4().hex
        process = command(scenario, mark, *going_on(tmp_path))
        time.sleep(draw.uniform(0.3, 9.0))
        process.send_signal(blow)
        _, said = process.communicate(timeout=60)
        assert survivors(mark) == [], f"attempt {attempt}"
        assert "Traceback" not in said
        for folder in (tmp_path / "results" / "fragile").glob("[!.]*"):
            now = {name: (folder / "launches" / name).stat().st_ino for name in RunFolder.open(folder).finished()}
            assert kept.items() <= now.items(), "a finished launch was lost or written again"
            kept = now
        if complete(tmp_path):
            break

    if not complete(tmp_path):
        last = command(scenario, uuid.uuid4().hex, *going_on(tmp_path))
        _, said = last.communicate(timeout=240)
        assert last.returncode == 0, said
    (only,) = (tmp_path / "results" / "fragile").glob("[!.]*")
    run = RunFolder.open(only)
    assert run.manifest.state == "complete"
    # A launch that a busy machine made invalid has a second attempt beside it.
    assert {name.split("~")[0] for name in run.finished()} == {launch.id for launch in run.manifest.plan}
