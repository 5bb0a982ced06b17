"""`bench tune` on the simulated engine, launched for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import main
from tests.children import ended

SCENARIO = """\
scenario: tuned
engines: {server: {engine: simulated, args: {ttft_ms: 40, itl_ms: 2}}}
workload: {prompts: {kind: random, tokens: 16}, output_tokens: 4, requests: 6}
design: {blocks: 3, max_steal: 1, max_contention: 1}
tune: {levers: {ttft_ms: [10]}, objective: ttft.p50}
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tuned.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_search_ends_with_a_setting_to_put_into_the_scenario(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(scenario), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["objective"], found["chosen"]) == ("ttft.p50", "ttft-ms-10")
    (confirmed,) = found["confirmed"]
    assert confirmed["changes"] == {"ttft_ms": 10}
    assert len(found["runs"]) == 2
    page = Path(found["report"]).read_text()
    assert "that had no part in choosing them" in page

    # The answer is a scenario as it is: checked, and served.
    answer = found["scenario"]
    assert main(["check", answer]) == 0
    assert "1 variant" in capsys.readouterr().out
    command = [Path(sys.executable).parent / "bench", "serve", answer, "--port", "0", "--json"]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as serving:
        assert serving.stdout is not None
        ready = json.loads(serving.stdout.readline())
        # The engine that was chosen, of 10 ms, and not the start, of 40.
        assert 5 < ready["warm_ttft_ms"] < 40
        serving.terminate()
        assert serving.wait(timeout=30) == 0

    # Both runs are there: the same again, in words, launches nothing.
    assert main(["tune", str(scenario), "--resume", "--no-report"]) == 0
    said = capsys.readouterr().out
    pasted = next(line.strip() for line in said.splitlines() if line.startswith("  server: "))
    assert pasted == "server: {engine: simulated, args: {ttft_ms: 10, itl_ms: 2}}"
    before = "server: {engine: simulated, args: {ttft_ms: 40, itl_ms: 2}}"
    assert before in SCENARIO
    scenario.write_text(SCENARIO.replace(before, pasted))
    assert main(["check", str(scenario)]) == 0
    scenario.write_text(SCENARIO)
    said += capsys.readouterr().out
    assert "ttft-ms-10" in said
    assert "in the confirmation" in said
    assert len(list(Path("results/tuned").glob("[!.]*/manifest.json"))) == 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tune: {levers: {ttft_ms: [10]}, objective: ttft.p50}", "", "does not say what may be turned"),
        ("ttft_ms: [10]", "ttft_ms: [40]", "nothing to try"),
        ("blocks: 3", "blocks: 2", "at least 3 blocks"),
        ("ttft_ms: [10]", "ttft_ms: []", "has no value to try"),
        ("ttft_ms: [10]", "args.ttft_ms: [10]", "write the flag alone: ttft_ms"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    scenario: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    scenario.write_text(SCENARIO.replace(old, new))
    assert main(["tune", str(scenario)]) == 4
    assert says in capsys.readouterr().err
    assert not Path("results").exists()


def test_an_unknown_variant_is_answered_with_those_there_are(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(scenario), "--variant", "server-fp16"]) == 4
    assert "server-bf16" in capsys.readouterr().err
