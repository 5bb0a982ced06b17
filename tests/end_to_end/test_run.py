"""The main job from the command line on the real Transformers engine and the embedded model, down to the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
from bench.cli import main

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

SCENARIO = """
scenario: whole-road
model: {source: default}
# One thread: two that share a busy machine's cores wait for each other.
engines: {transformers: {engine: transformers, args: {threads: 1}}}
matrix: {quantization: [fp32, bf16], warmup: [none, requests]}
workload: {prompts: {kind: random, tokens: [15, 64]}, output_tokens: 6, requests: 5}
# What the neighbours on this host take is not what is tested here.
design: {blocks: 1, retries: 0, max_steal: 1.0, max_contention: 1.0}
"""


def test_one_command_goes_from_a_scenario_to_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, results = tmp_path / "whole-road.yaml", tmp_path / "results"
    scenario.write_text(SCENARIO)
    assert main(["run", str(scenario), "--results", str(results), "--no-report", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)

    run = bench.Run.open(said["run"])
    launches = run.launches.to_dict("records")
    assert [launch["status"] for launch in launches] == ["ok"] * 4, [launch["reason"] for launch in launches]
    requests = run.requests.to_dict("records")
    asked = [row for row in requests if row["stage"] in ("first", "measured")]
    assert {row["prompt_tokens"] for row in asked} == {15, 64}
    assert {row["completion_tokens"] for row in asked} == {6}
    assert all(row["stamp_source"] == "kernel" and row["ttft_ms"] > 1 for row in asked)
    assert {row["chunks"] for row in asked} == {6}, "a token is on the wire as soon as it is there"

    # Every second from the spawn to the first token is accounted for.
    phases = run.phases
    names = set(phases["name"])
    assert {"import_torch", "weights", "first_forward"} <= names, names
    for launch in launches:
        assert launch["spawn_s"] < launch["health_s"] < launch["ready_s"] <= launch["first_token_s"]

    page = tmp_path / "page.html"
    assert main(["report", said["run"], "-o", str(page)]) == 0
    text = page.read_text()
    assert "whole-road" in text
    assert "https://" not in text.replace("https://github.com", ""), "the page works offline"
    assert page.stat().st_size < 2_000_000


def test_what_was_really_loaded_is_recorded_beside_what_was_asked_for(tmp_path: Path) -> None:
    scenario, results = tmp_path / "facts.yaml", tmp_path / "results"
    scenario.write_text(SCENARIO.replace("whole-road", "facts").replace(", warmup: [none, requests]", ""))
    assert main(["run", str(scenario), "--results", str(results), "--no-report", "--json"]) == 0
    (folder,) = (results / "facts").glob("[!.]*")
    facts = {launch.record.factors["quantization"]: launch.record.facts for launch in bench.Run.open(folder).all}
    assert {quantization: seen["dtype"] for quantization, seen in facts.items()} == {
        "fp32": "float32",
        "bf16": "bfloat16",
    }
