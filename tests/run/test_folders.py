"""What of a run is written down: what it takes to go on with it, and no secret."""

from __future__ import annotations

from pathlib import Path

from bench.analyse.run import Run
from bench.judge.baseline import save, start
from bench.plan.blocks import draw
from bench.record.store import RunFolder
from bench.run.conductor import Setting, carry_out
from bench.run.folders import pending
from bench.scenario.load import Scenario
from bench.scenario.redaction import WITHHELD

SCENARIO = """
scenario: kept
engines: {sim: {engine: simulated, args: {ttft_ms: 5, itl_ms: 1}, env: {HF_TOKEN: hf_hush, OMP_NUM_THREADS: "1"}}}
workload: {prompts: {kind: random, tokens: 16}, output_tokens: 4, requests: 4}
design: {blocks: 1, retries: 4, max_steal: 1.0, max_contention: 1.0}
"""


def test_a_secret_of_the_scenario_is_in_no_file_and_the_run_is_gone_on_with_all_the_same(tmp_path: Path) -> None:
    scenario = Scenario.parse(SCENARIO)
    path = carry_out(scenario, Setting(results=tmp_path, check_client=False))
    folder = RunFolder.open(path)
    (planned,) = folder.manifest.variants
    assert planned.engine["env"] == {"HF_TOKEN": WITHHELD, "OMP_NUM_THREADS": "1"}
    assert folder.manifest.scenario_digest == scenario.digest
    assert Run.open(path).all[0].record.command is not None

    save(start(Run.open(path), planned.id), tmp_path / "baselines")
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"hf_hush" not in file.read_bytes(), file

    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"interrupted"'))
    again = pending(tmp_path, scenario, draw(scenario))
    assert again is not None
    assert again.path == path
    # Another key is another scenario: what is withheld is part of what was asked for.
    other = Scenario.parse(SCENARIO.replace("hf_hush", "hf_other"))
    assert pending(tmp_path, other, draw(other)) is None
