"""Emulated boards from sensors to report: the road that a real board takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.analyse import energy
from bench.analyse.run import Run
from bench.analyse.series import Samples
from bench.cli import main
from bench.judge.validity import judge_folder
from bench.report import html, text
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.load import Scenario

SCRIPTED = """
scenario: emulated-{board}
host: {{class: jetson, clocks: locked}}
model: {{source: "dummy:tiny-llama"}}
engines: {{sim: {{engine: simulated}}}}
matrix: {{quantization: [fp32]}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 32, requests: 30}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}}
measure: [ttft, energy, memory]
"""
SCOPES = {
    "orin-nx": "module: VDD_IN",
    "orin-nano": "module: VDD_IN",
    "agx-orin": "module: VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0",
    "thor": "module: VIN",
}


@pytest.mark.end_to_end
@pytest.mark.parametrize("board", SCOPES)
def test_a_board_runs_from_its_sensors_to_a_report(tmp_path: Path, board: str) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(SCRIPTED.format(board=board))
    results, rules = tmp_path / "results", Rules(judge_folder)
    setting = Setting(results=results, rules=rules, emulate=board, apply=True, check_client=False)
    folder = carry_out(Scenario.load(file), setting)
    run = Run.open(folder)
    (launch,) = run.all
    samples = Samples(launch.table("samples"))
    steady = energy.phases(launch.record, launch.requests(), samples)["steady"]

    assert run.manifest.emulated == board
    assert run.manifest.fingerprint["host_class"].endswith("-emulated")
    assert run.manifest.fingerprint["jetson"]["clocks_locked"] is True
    assert steady["scope"] == SCOPES[board]
    assert steady["joules"], steady["reason"]
    assert run.per_launch["energy.per_token"].iloc[0] > 0
    assert {check.name for check in launch.record.checks} >= {"thermal_throttle", "over_current", "swap", "memory_fits"}
    assert launch.record.memory.before is not None
    assert launch.record.memory.before.kind == "unified"
    assert "EMULATED" in html.write(run, tmp_path / "page.html").read_text()
    assert json.loads(text.as_json(run, None))["emulated"] == board


REAL = """
scenario: emulated-real
host: {class: jetson, clocks: locked}
model: {source: default}
engines: {transformers: {engine: transformers, args: {threads: 1}}}
warmups: {each-length: {strategy: multi-stage, tokens: [15, 64]}}
matrix: {quantization: [fp32, bf16], warmup: [each-length]}
workload: {prompts: {kind: random, tokens: [15, 64]}, output_tokens: 16, requests: 12}
design: {max_steal: 1.0, max_contention: 1.0, blocks: 1, retries: 0}
measure: [ttft, tpot, startup, energy, memory]
"""


@pytest.mark.end_to_end
@pytest.mark.timeout(900)
def test_the_embedded_model_under_transformers_runs_on_an_emulated_orin(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(REAL)
    results, rules = tmp_path / "results", Rules(judge_folder)
    folder = carry_out(Scenario.load(file), Setting(results=results, rules=rules, emulate="orin-nx", apply=True))
    run = Run.open(folder)
    assert [launch.record.status for launch in run.all] == ["ok", "ok"], [launch.record.reason for launch in run.all]
    for launch in run.all:
        power = Samples(launch.table("samples")).of("jetson", "power_w")
        assert len(power) > 20, "the board's sensors were read while the engine ran"
        assert float(power.value.max()) > float(power.value.min()), "load is seen in its power"
        phases = energy.phases(launch.record, launch.requests(), Samples(launch.table("samples")))
        assert phases["startup"]["joules"], phases["startup"]["reason"]
        assert phases["steady"]["joules"], phases["steady"]["reason"]
        assert phases["steady"]["scope"] == "module: VDD_IN"
    assert set(run.per_launch["status"]) == {"ok"}
    assert (run.per_launch["energy.per_token"] > 0).all()
    assert (run.per_launch["ttft.p50"] > 1).all()
    page = html.write(run, tmp_path / "page.html").read_text()
    assert "EMULATED" in page
    assert "VDD_IN" in page


@pytest.mark.end_to_end
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_orin_suite_on_an_emulated_board_with_a_real_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenarios = Path("scenarios").resolve()
    monkeypatch.chdir(tmp_path)
    ended = main(["suite", "orin", "--emulate", "orin-nx", "--scenarios", str(scenarios)])
    said = capsys.readouterr().out
    runs = [Run.open(line.split()[1]) for line in said.splitlines() if line.startswith("run ")]
    assert len(runs) == 4, said
    assert ended == 0, said
    assert all(any(launch.record.status == "ok" for launch in run.all) for run in runs)
    (page,) = (tmp_path / "reports").glob("suite-orin-*.html")
    assert page.read_text().count("EMULATED") >= 4
