from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.errors import Exit
from tests.scenario.texts import GOOD, changed

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text(changed(("[fp16, awq]", "[fp16, awk]"), ("blocks: 4", "blocks: 0")))
    return file


def test_check_says_what_a_good_scenario_amounts_to(good: Path, capsys: Capture) -> None:
    assert main(["check", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}  ok: 6 variants × 4 blocks = 24 launches\n"


def test_check_tells_every_problem_of_every_file(good: Path, bad: Path, tmp_path: Path, capsys: Capture) -> None:
    missing = tmp_path / "missing.yaml"
    assert main(["check", str(bad), str(good), str(missing)]) == Exit.USAGE
    captured = capsys.readouterr()
    assert captured.out.count("ok: ") == 1
    assert captured.err.splitlines() == [
        f"{bad}:8:24  matrix.quantization[1]: 'awk' is not one of fp32, fp16, bf16, awq, gptq, int8, gguf-q4, "
        "gguf-q4_0, gguf-q4_k_m, gguf-q5_k_m, gguf-q6_k, gguf-q8_0 (did you mean awq?)",
        f"{bad}:15:18  design.blocks: 0 is not above 0 (each block launches every variant once, in random order)",
        f"{missing}:1:1  cannot be read: no such file or directory",
    ]


def test_check_speaks_json(good: Path, bad: Path, capsys: Capture) -> None:
    assert main(["check", "--json", str(good), str(bad)]) == Exit.USAGE
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert found["ok"] is False
    assert found["files"] == [str(good), str(bad)]
    assert [(one["file"], one["line"], one["column"], one["path"]) for one in found["problems"]] == [
        (str(bad), 8, 24, "matrix.quantization[1]"),
        (str(bad), 15, 18, "design.blocks"),
    ]


def test_plan_shows_every_launch_in_its_order(good: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["plan", str(good), "--results", str(tmp_path / "none")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sample: 6 variants × 4 blocks = 24 launches, 10 requests each; seed 1"
    blocks = [line for line in lines if line.startswith("  block ")]
    assert len(blocks) == 4
    assert all(len(line.split(" → ")) == 6 for line in blocks)
    assert any(line.startswith("expected  ") and "a guess until a first run" in line for line in lines)
    assert any(line.startswith("power     4 blocks: ") and "(margin 3%," in line for line in lines)


def test_plan_speaks_json_and_says_the_same_twice(good: Path, capsys: Capture) -> None:
    assert main(["plan", str(good), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    main(["plan", str(good), "--json"])
    assert json.loads(capsys.readouterr().out) == first
    assert len(first["launches"]) == 24
    assert {one["variant"] for one in first["launches"]} == {one["id"] for one in first["variants"]}
    main(["plan", str(good), "--json", "--seed", "2"])
    assert json.loads(capsys.readouterr().out)["launches"] != first["launches"]


def test_plan_says_how_many_blocks_a_budget_holds(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(changed(("blocks: 4", "blocks: 50, budget_minutes: 0.5")))
    assert main(["plan", str(file)]) == 0
    assert "budget    0.5 minutes: 1 of 50 blocks are expected to fit" in capsys.readouterr().out


def test_plan_starts_nothing_and_writes_nothing(good: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    main(["plan", str(good), "--results", str(tmp_path / "results")])
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_of_a_wrong_scenario_tells_its_problems(bad: Path, capsys: Capture) -> None:
    assert main(["plan", str(bad)]) == Exit.USAGE
    assert capsys.readouterr().err.count(f"{bad}:") == 2


def test_plugins_are_listed_with_their_origin(capsys: Capture) -> None:
    assert main(["plugins"]) == 0
    assert "transformers  bench.engines.transformers:Transformers  (firsttoken " in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 0
    assert {one["name"] for one in json.loads(capsys.readouterr().out)["engines"]} >= {"vllm", "openai", "simulated"}
