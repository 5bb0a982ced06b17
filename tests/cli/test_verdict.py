"""`bench compare`, `gate`, `baseline` and `history` as they are called: output, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from tests.runs import Behaviour, synthetic_run

TEXT = """\
scenario: synthetic
gate: {baseline: {build: old}, metrics: {ttft.p50: 5%}}
"""


def recorded(root: Path, ttft: float = 100.0, *, blocks: int = 5, name: str = "one") -> str:
    variants = {
        "old": Behaviour(launch_sd=0.01, factors={"build": "old"}),
        "new": Behaviour(ttft=ttft, launch_sd=0.01, factors={"build": "new"}),
    }
    return str(
        synthetic_run(
            root, variants, blocks=blocks, requests=4, samples=False, scenario_text=TEXT, run_id=name, seed=len(name)
        )
    )


@pytest.mark.parametrize(("ttft", "blocks", "code"), [(100, 5, 0), (120, 5, 1), (120, 2, 2)])
def test_the_exit_code_is_the_verdict(tmp_path: Path, ttft: float, blocks: int, code: int) -> None:
    assert main(["gate", recorded(tmp_path, ttft, blocks=blocks), "--enforce"]) == code


def test_a_gate_writes_what_ci_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    files = {name: tmp_path / name for name in ("gate.md", "gate.xml", "gate.json")}
    options = ["--markdown", files["gate.md"], "--junit", files["gate.xml"], "--json-file", files["gate.json"]]
    assert main(["gate", recorded(tmp_path, 120), "--enforce", *map(str, options)]) == 1
    assert "::error " in capsys.readouterr().out
    assert json.loads(files["gate.json"].read_text())["exit_code"] == 1
    assert "<failure" in files["gate.xml"].read_text()
    assert files["gate.md"].read_text() == (tmp_path / "summary.md").read_text()


def test_advice_ends_with_0_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", recorded(tmp_path, 120), "--baselines", str(tmp_path / "none")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ADVISORY FAIL")
    assert "ADVISORY" in out


def test_json_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["gate", recorded(tmp_path, 120), "--json"])
    assert json.loads(capsys.readouterr().out)["verdict"] == "FAIL"
    main(["compare", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["verdict"] is None


def test_compare_estimates_and_with_a_margin_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recorded(tmp_path, 120)
    assert main(["compare", run]) == 0
    assert "TTFT p50" in capsys.readouterr().out
    assert main(["compare", run, "--a", "build=old", "--b", "new", "--margin", "ttft=5%"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "{run}", "--a", "old"],
        ["compare", "{run}", "--a", "old", "--b", "nwe"],
        ["compare", "{run}", "--margin", "ttft"],
        ["compare", "{run}", "--margin", "ttft=five"],
        ["compare", "{run}", "--margin", "tftt=5%"],
        ["gate", "nowhere"],
        ["gate", "{run}", "--stored", "--baselines", "nowhere"],
        ["baseline", "add", "{run}"],
        ["baseline", "show", "nowhere.json"],
        ["baseline", "prune", "nowhere.json"],
        ["history", "nowhere"],
        ["inject", "nowhere.yaml"],
        ["aa", "nowhere.yaml"],
    ],
)
def test_mistakes_end_with_4_in_words(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = recorded(tmp_path)
    assert main([argument.format(run=run) for argument in arguments]) == 4
    said = capsys.readouterr().err
    assert said
    assert "Traceback" not in said


def test_a_baselines_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ["--baselines", str(tmp_path / "kept")]
    for name in ("one", "three"):
        assert main(["baseline", "add", recorded(tmp_path, name=name), "--variant", "old", *kept]) == 0
    assert "2 sessions; commit it" in capsys.readouterr().out
    (path,) = (tmp_path / "kept").glob("*/*.json")
    assert main(["baseline", "list", *kept]) == 0
    assert "2 sessions" in capsys.readouterr().out
    assert main(["baseline", "show", str(path)]) == 0
    assert "a verdict needs 10" in capsys.readouterr().out
    assert main(["history", str(path)]) == 0
    assert "6 are needed" in capsys.readouterr().out
    assert main(["baseline", "prune", str(path), "--keep", "1"]) == 0
    assert "2 → 1 session" in capsys.readouterr().out
    assert main(["gate", recorded(tmp_path, name="seven__"), "--stored", "--enforce", *kept]) == 2
