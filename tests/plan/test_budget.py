from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.plan.blocks import draw
from bench.plan.budget import Measured, Traffic, affordable, another_fits, expect, measured, traffic
from bench.scenario.load import Scenario
from tests.scenario.texts import loaded


def cost_s(*changes: tuple[str, str]) -> float:
    scenario = loaded(*changes)
    return expect(draw(scenario), scenario.model).seconds


def test_more_work_is_expected_to_take_longer() -> None:
    plain = cost_s()
    assert cost_s(("requests: 10", "requests: 20")) > plain
    assert cost_s(("blocks: 4", "blocks: 8")) == pytest.approx(2 * plain)
    assert cost_s(("output_tokens: 32", "output_tokens: 64")) > plain
    assert cost_s(("blocks: 4", "blocks: 4, cool_down: {}")) > plain
    assert cost_s(("requests: 10", "requests: 10\n  arrivals: {closed: 5}")) < plain


def test_an_open_process_takes_as_long_as_its_rate_says() -> None:
    slow, fast = (cost_s(("requests: 10", f"requests: 100\n  arrivals: {{rate: {rate}}}")) for rate in (1, 10))
    launches = len(draw(loaded()).launches)
    # 99 gaps of a second, or of a tenth.
    assert slow - fast == pytest.approx(launches * 89.1)


def test_more_chunks_take_more_disk() -> None:
    one, two = loaded(), loaded(("output_tokens: 32", "output_tokens: 1900"))
    assert expect(draw(two), two.model).size_bytes > 2 * expect(draw(one), one.model).size_bytes


def test_what_was_measured_replaces_the_guess() -> None:
    scenario = loaded()
    first, *others = (variant.id for variant in scenario.variants)
    budget = expect(draw(scenario), scenario.model, {first: Measured(3.0, 1000, 5)})
    assert budget.costs[first].seconds == 3.0
    assert budget.costs[first].measured == 5
    assert budget.guessed == tuple(others)


def test_a_budget_in_minutes_is_honoured() -> None:
    scenario = loaded(("blocks: 4", "blocks: 100, budget_minutes: 10"))
    known = {variant.id: Measured(20.0, 1000, 5) for variant in scenario.variants}
    budget = expect(draw(scenario), scenario.model, known)
    assert budget.blocks == 5
    assert budget.seconds == 5 * 6 * 20.0 <= 600


def test_at_least_one_block_is_planned() -> None:
    assert affordable(10_000, 1.0) == 1
    assert affordable(10.0, None) > 1000


@pytest.mark.parametrize(
    ("done", "budget", "fits"),
    [([], 0.1, True), ([50.0], 2, True), ([50.0, 60.0], 2.5, False), ([50.0, 60.0], 3, True), ([9e9], None, True)],
)
def test_another_block_is_begun_only_if_it_will_end_in_time(
    done: list[float], budget: float | None, fits: bool
) -> None:
    assert another_fits(done, budget) is fits


def record(folder: Path, scenario: Scenario, launches: dict[str, dict[str, Any]], digest: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"scenario_digest": digest or scenario.digest}))
    for name, launch in launches.items():
        place = folder / "launches" / name
        place.mkdir(parents=True)
        (place / "launch.json").write_text(json.dumps(launch))


def launch(variant: str, seconds: float | None, status: str = "ok") -> dict[str, Any]:
    end = None if seconds is None else int(1e9 + seconds * 1e9)
    return {"variant": variant, "status": status, "stamps": {"spawn": int(1e9), "exit": end}}


def test_earlier_launches_are_read_from_runs_of_the_same_content(tmp_path: Path) -> None:
    scenario = loaded()
    runs = tmp_path / "sample"
    record(runs / "2", scenario, {"a": launch("v", 4), "b": launch("v", 6), "c": launch("v", 99, "failed")})
    record(runs / "1", scenario, {"a": launch("v", 8), "b": launch("w", None)})
    record(runs / "3", scenario, {"a": launch("v", 500)}, digest="another")
    (runs / "4").mkdir()
    (runs / "4" / "manifest.json").write_text("{damaged")
    found = measured(tmp_path, scenario.name, scenario.digest)
    assert set(found) == {"v"}
    assert found["v"].launch_s == 6.0
    assert found["v"].launches == 3
    assert found["v"].size_bytes > 0


def test_without_earlier_runs_nothing_is_known(tmp_path: Path) -> None:
    assert measured(tmp_path / "none", "sample", "0") == {}


def test_a_trace_is_expected_to_take_as_long_as_it_is_and_to_send_what_it_holds(tmp_path: Path) -> None:
    lines = [{"timestamp": 1000 * n, "input_length": 10 * n + 1, "output_length": 4} for n in range(11)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def sent(prompts: str, arrivals: str) -> Traffic:
        workload = f"{{prompts: {{kind: trace, file: t.jsonl, {prompts}}}, arrivals: {arrivals}}}"
        text = f"scenario: x\nengines: {{s: {{engine: simulated}}}}\nworkload: {workload}\n"
        return traffic(Scenario.parse(text, tmp_path / "x.yaml").model.workload, tmp_path)

    assert sent("limit: 50", "{replay: {speed: 2}}") == Traffic(11, 51.0, 4.0, 5.0)
    assert sent("limit: 3", "{replay: {}}") == Traffic(3, 11.0, 4.0, 2.0)
    assert sent("limit: 3", "{closed: 1}") == Traffic(3, 11.0, 4.0, None)
    assert sent("limit: 11", "{burst: {size: 5, every_s: 7}}").last_s == 14.0
