"""Launches of the scripted engine that are late, ended before their first token by a rule handed down."""

from __future__ import annotations

from pathlib import Path

import bench
from bench.run.conductor import Rules
from tests.run.test_conductor import LENIENT, launch_of, rows, run, write

ENGINES = "{s: {engine: simulated, args: {ttft_ms: 5, itl_ms: 1}}}"


def test_a_launch_that_is_late_is_stopped_with_its_reason_and_has_no_value(tmp_path: Path) -> None:
    scenario = write(
        tmp_path, engines=ENGINES, matrix="{args.never_ready: [false, true]}", design=f"{{blocks: 1, {LENIENT}}}"
    )
    # 8 s are long for a scripted engine, on whatever machine, and short beside its 900 to become ready.
    rules = Rules(patience=lambda _, variant: 8.0 if variant == "never-ready" else None)
    opened = bench.Run.open(run(scenario, rules=rules))
    found = {launch.record.variant: launch.record for launch in opened.all}
    late, good = found["never-ready"], found["no-never-ready"]
    assert (good.status, late.status, late.reason_kind) == ("ok", "stopped", "hopeless")
    assert "no first token within 8.0 s of the spawn" in str(late.reason)
    assert late.exit.leftover == []
    row = opened.per_launch.set_index("variant").loc["never-ready"]
    assert row.isna()["cold_ttft"]
    stamps = launch_of(opened, late).record.stamps
    assert 8.0 <= (stamps["exit"] - stamps["spawn"]) / 1e9 < 60


def test_a_launch_that_has_answered_in_time_goes_on_to_its_end(tmp_path: Path) -> None:
    scenario = write(tmp_path, engines=ENGINES, matrix="{warmup: [none]}", design=f"{{blocks: 1, {LENIENT}}}")
    (launch,) = bench.Run.open(run(scenario, rules=Rules(patience=lambda *_: 120.0))).all
    assert launch.record.status == "ok"


def test_a_launch_whose_first_token_came_in_time_may_take_longer_to_answer(tmp_path: Path) -> None:
    scenario = write(
        tmp_path,
        engines="{s: {engine: simulated, args: {ttft_ms: 5, itl_ms: 1000}}}",
        matrix="{warmup: [none]}",
        workload="{prompts: {kind: random, tokens: 8}, output_tokens: 10, requests: 2}",
        design=f"{{blocks: 1, {LENIENT}}}",
    )
    # The start takes a second or two; the first answer is complete nine seconds after its first token.
    (row,) = rows(bench.Run.open(run(scenario, rules=Rules(patience=lambda *_: 8.0))).launches)
    assert row["status"] == "ok", row["reason"]
    assert row["first_token_s"] < 8
    # The second request's, sent when the first was answered.
    assert row["second_token_s"] > 9
