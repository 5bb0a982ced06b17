"""fleet.yaml is read strictly, and every mistake is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import ScenarioError
from bench.fleet.order import Order

SCENARIO = """scenario: tiny
model: {source: "dummy:tiny-llama"}
engines: {sim: {engine: simulated}}
workload: {prompts: {kind: random, tokens: 15}, output_tokens: 8, requests: 10}
"""


def order(tmp_path: Path, text: str) -> Order:
    (tmp_path / "tiny.yaml").write_text(SCENARIO)
    (tmp_path / "fleet.yaml").write_text(text)
    return Order.load(tmp_path / "fleet.yaml")


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ScenarioError) as raised:
        order(tmp_path, text)
    return [str(one).removeprefix(f"{tmp_path}/") for one in raised.value.problems]


def test_the_least_that_a_fleet_needs(tmp_path: Path) -> None:
    found = order(tmp_path, "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml]\n")

    assert found.inventory == tmp_path / "hosts.ini"
    assert list(found.digests()) == ["tiny"]
    assert found.model.group == "all"
    assert found.boards(found.model.quorum, 8) == 8


def test_a_shipped_scenario_is_found_by_its_name(tmp_path: Path) -> None:
    found = order(tmp_path, "fleet: shelf\ninventory: hosts.ini\nscenarios: [scenarios/orin/first-token.yaml]\n")

    assert [scenario.name for scenario in found.scenarios] == ["orin-first-token"]


def test_amounts_of_boards_are_numbers_or_percentages_rounded_up(tmp_path: Path) -> None:
    text = "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml]\nserial: 10%\nquorum: 75%\nfailures: 2\n"
    found = order(tmp_path, text)

    assert found.boards(found.model.serial, 8) == 1
    assert found.boards(found.model.serial, 200) == 20
    assert found.boards(found.model.quorum, 7) == 6
    assert found.boards(found.model.failures, 200) == 2


def test_every_mistake_is_told_with_line_and_column(tmp_path: Path) -> None:
    text = "fleet: Shelf One\ninventory: hosts.ini\nscenarios: [tiny.yaml]\nserail: 4\nquorum: 120%\n"
    found = problems(tmp_path, text)

    assert [line.split("  ")[0] for line in found] == ["fleet.yaml:1:8", "fleet.yaml:4:1", "fleet.yaml:5:9"]
    assert "did you mean serial?" in found[1]


def test_mistakes_of_a_scenario_are_told_in_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(SCENARIO.replace("simulated", "similated"))
    found = problems(tmp_path, "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml, bad.yaml]\n")

    assert len(found) == 1
    assert found[0].startswith("bad.yaml:3:")


def test_a_scenario_may_stand_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml, tiny.yaml]\n")

    assert found == [
        "fleet.yaml:3:24  scenarios[1]: a scenario called 'tiny' stands above; keep one of the two",
    ]


def test_the_fleet_in_the_documentation_is_right(tmp_path: Path) -> None:
    page = Path("docs/fleet.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "fleet.yaml").write_text(text)
    found = Order.load(tmp_path / "fleet.yaml")

    assert found.boards(found.model.quorum, 8) == 7
    assert found.model.provision is not None


def test_a_file_that_is_not_there_or_no_fleet_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        Order.load(tmp_path / "none.yaml")
    assert "a fleet is a mapping" in problems(tmp_path, "- shelf\n")[0]
