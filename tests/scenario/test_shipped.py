"""Every scenario that ships is right, and its plan can be drawn up."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.plan.blocks import draw
from bench.plan.budget import expect
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
