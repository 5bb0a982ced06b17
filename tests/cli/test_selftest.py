"""`bench aa` and `bench inject` on the simulated engine, launched for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.judge import aa

SCENARIO = """\
scenario: tried
engines: {server: {engine: simulated, args: {ttft_ms: 40, itl_ms: 5}}}
workload: {prompts: {kind: random, tokens: 16}, output_tokens: 4, requests: 9}
design: {blocks: 3, max_steal: 1.0, max_contention: 1.0}
measure: [ttft, throughput]
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FIRSTTOKEN_BESIDE_OTHERS", "1")
    path = tmp_path / "tried.yaml"
    path.write_text(SCENARIO)
    return str(path)


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_an_aa_study_leaves_a_record_for_this_machine(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(tmp_path / "results"), "--baselines", str(tmp_path / "kept"), "--margin", "ttft=20%"]
    assert main(["aa", scenario, "--sessions", "1", *where, "--json"]) == 0
    made = said(capsys)
    assert (made["sessions"], made["blocks"], list(made["alarms"])) == (1, 3, ["ttft.p50"])
    record = aa.load(Path(made["file"]))
    assert record.doubt == "only 1 A/A sessions; 20 are needed"
    # The same run judged again gives the same record, and launches nothing.
    assert main(["aa", scenario, *where, "--analyse", made["run"], "--json"]) == 0
    assert said(capsys) == made


@pytest.mark.slow
def test_an_injected_slowdown_is_measured_and_found(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(tmp_path / "results"), "--margin", "ttft=5%"]
    assert main(["inject", scenario, "--ttft", "60%", "--blocks", "5", *where, "--json"]) == 0
    (found,) = said(capsys)["found"]
    assert (found["injected"], found["fails"]) == ("ttft-60", 1)
    assert found["ratios"][0] == pytest.approx(1.6, abs=0.2)


@pytest.mark.parametrize(
    "wrong", [[], ["--ttft", "ten"], ["--ttft", "10%", "--ttft", "20%", "--itl", "1%", "--itl", "2%", "--itl", "3%"]]
)
def test_nothing_or_nonsense_to_inject_is_refused(
    scenario: str, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inject", scenario, *wrong]) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_variant_is_named(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aa", scenario, "--variant", "nobody"]) == 4
    assert "no variant is called 'nobody'" in capsys.readouterr().err
