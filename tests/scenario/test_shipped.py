"""Every scenario that ships is right, and its plan can be drawn up."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.errors import ScenarioError
from bench.plan.blocks import draw
from bench.plan.budget import expect
from bench.scenario import shipped
from bench.scenario.load import Scenario

FOLDER = Path("scenarios")
FILES = sorted(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_shipped_scenario_is_right_and_can_be_planned(file: Path) -> None:
    scenario = Scenario.load(file)
    plan = draw(scenario)
    assert len(plan.launches) == len(scenario.variants) * scenario.model.design.blocks
    assert expect(plan, scenario.model).seconds > 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_shipped_scenario_tells_editors_its_schema(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (file.parent / first.removeprefix(prefix)).resolve() == Path("docs/scenario.schema.json").resolve()


def test_scenarios_do_not_share_a_results_folder() -> None:
    names = [Scenario.load(file).name for file in FILES]
    assert len(set(names)) == len(names)


def test_the_quick_scenario_compares_two_formats_cold_and_warmed() -> None:
    scenario = Scenario.load("scenarios/quick.yaml")
    assert {variant.quantization for variant in scenario.variants} == {"fp32", "bf16"}
    assert {variant.warmup_name for variant in scenario.variants} == {"none", "requests"}
    assert scenario.model.design.blocks >= 3


def test_a_shipped_scenario_is_found_outside_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Scenario.load("scenarios/quick.yaml").path == shipped.folder() / "quick.yaml"
    names = {path.stem for path in (shipped.folder() / "orin").glob("*.yaml")}
    assert names == {"awq-vs-fp16", "batch-4", "cold-start", "engines", "first-token"}
    with pytest.raises(ScenarioError, match=r"^scenarios/nope\.yaml:1:1"):
        Scenario.load("scenarios/nope.yaml")


def test_one_s_own_file_goes_before_a_shipped_one_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "scenarios" / "quick.yaml"
    own.parent.mkdir()
    own.write_text((shipped.folder() / "quick.yaml").read_text().replace("scenario: ", "scenario: my-"))
    assert Scenario.load("scenarios/quick.yaml").name.startswith("my-")


@pytest.mark.slow
def test_an_installed_wheel_runs_the_suite_from_anywhere(tmp_path: Path) -> None:
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir", "--wheel-dir", str(tmp_path), "."]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("firsttoken-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    inside = {str(path.relative_to(tmp_path / "site" / "bench")) for path in (tmp_path / "site").rglob("*.yaml")}
    assert {str(file) for file in FILES} <= inside
    command = [sys.executable, "-m", "bench", "suite", "orin", "--emulate", "orin-nx", "--plan"]
    done = subprocess.run(
        command, cwd=tmp_path / "site", env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "emulated-first-token" in done.stdout
