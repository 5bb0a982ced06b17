"""A run on the scripted engine, whole: launches, record, resume, and every way of breaking off."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.analyse.run import Launch
from bench.engines import parent
from bench.errors import RecordError, UsageError
from bench.judge.validity import judge_folder
from bench.plan.blocks import Plan, draw, in_blocks
from bench.record.documents import read_launch
from bench.record.launches import Check, LaunchRecord, ParentAccount
from bench.record.manifest import PlannedLaunch
from bench.record.store import RunFolder
from bench.run.conductor import Rules, Setting, carry_out
from bench.run.folders import recorded, unfinished
from bench.run.progress import Silent
from bench.scenario.load import Scenario


def write(folder: Path, **changes: str) -> Scenario:
    parts = {
        "engines": "{s: {engine: simulated, args: {ttft_ms: 5, itl_ms: 1}}}",
        "matrix": "{warmup: [none, requests]}",
        "workload": "{prompts: {kind: random, tokens: [8, 16]}, output_tokens: 4, requests: 4}",
        "design": "{blocks: 1}",
        "host": "{class: any}",
    } | changes
    path = folder / "small.yaml"
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    head = f'scenario: small\nmodel: {{source: "path:{weights}"}}\n'
    path.write_text(head + "".join(f"{key}: {text}\n" for key, text in parts.items()))
    return Scenario.load(path)


def run(scenario: Scenario, plan: Plan | None = None, **how: Any) -> Path:
    return carry_out(scenario, Setting(results=scenario.base / "results", check_client=False, **how), plan)


@dataclasses.dataclass(frozen=True)
class BreakingOff(Silent):
    """Ctrl-C when the nth launch begins to measure."""

    at: int
    seen: list[str] = dataclasses.field(default_factory=list)

    def launch(self, planned: PlannedLaunch, number: int, of: int, attempt: int) -> None:
        self.seen.append(planned.id)

    def phase(self, name: str) -> None:
        if name == "measuring" and len(self.seen) == self.at:
            raise KeyboardInterrupt


def rows(table: Any) -> list[dict[str, Any]]:
    return list(table.to_dict("records"))


def test_a_run_records_every_launch_and_opens_as_tables(tmp_path: Path) -> None:
    opened = bench.Run.open(run(write(tmp_path)))

    assert opened.manifest.state == "complete"
    assert [row["status"] for row in rows(opened.launches)] == ["ok", "ok"]
    begun = [datetime.fromisoformat(row["wall_time"]) for row in rows(opened.launches)]
    assert datetime.fromisoformat(str(opened.manifest.created)) <= begun[0] < begun[1] < datetime.now(UTC)
    # However short the launch, its memory was read while it held all it needs to serve.
    assert all(row["memory.peak"] > 1 for row in rows(opened.per_launch))
    for variant, warmups in (("none", 0), ("requests", 1)):
        asked = [row for row in rows(opened.requests) if row["variant"] == variant]
        assert [row["stage"] for row in asked if row["stage"] != "warmup"] == ["first", *["measured"] * 3]
        assert [row["measured"] for row in asked] == [row["stage"] == "measured" for row in asked]
        assert any(row["stage"] == "warmup" for row in asked) == bool(warmups)
        assert all(4 <= row["ttft_ms"] <= 500 for row in asked)


def test_the_workload_is_the_same_for_every_variant_of_a_block_and_apart_from_the_warmup(tmp_path: Path) -> None:
    opened = bench.Run.open(run(write(tmp_path)))
    requests = rows(opened.requests)
    asked = {
        variant: [row["prompt_id"] for row in requests if row["variant"] == variant and row["stage"] != "warmup"]
        for variant in ("none", "requests")
    }
    assert asked["none"] == asked["requests"]
    assert not {row["prompt_id"] for row in requests if row["stage"] == "warmup"} & set(asked["none"])
    assert not bench.Comparison.of(opened, "none", "requests").refused, "a warm-up is a factor, not another workload"


def test_ready_is_the_first_completion_and_cold_ends_with_the_workloads_first(tmp_path: Path) -> None:
    for row in rows(bench.Run.open(run(write(tmp_path))).launches):
        assert 0 < row["health_s"] < row["ready_s"] <= row["first_token_s"] < row["second_token_s"] < row["stop_s"]
        assert (row["ready_s"] == row["first_token_s"]) == (row["variant"] == "none")


def test_an_engine_that_dies_is_a_failed_launch_and_the_run_goes_on(tmp_path: Path) -> None:
    dying = "{engine: command, command: [sh, -c, 'echo Bad luck; exit 3', '{port}']}"
    scenario = write(tmp_path, engines=f"{{good: {{engine: simulated}}, bad: {dying}}}", matrix="{engine: [good, bad]}")
    launches = {row["factor.engine"]: row for row in rows(bench.Run.open(run(scenario)).launches)}
    assert launches["good"]["status"] == "ok"
    assert launches["bad"]["status"] == "failed"
    assert launches["bad"]["reason_kind"] == "crash_at_start"
    assert "Bad luck" in launches["bad"]["reason"]


def test_breaking_off_keeps_what_is_finished_and_resume_completes_the_plan(tmp_path: Path) -> None:
    scenario = write(tmp_path, design="{blocks: 2}")
    with pytest.raises(KeyboardInterrupt):
        run(scenario, progress=BreakingOff(at=3))

    path = unfinished(tmp_path / "results", scenario)
    kept = set(RunFolder.open(path).finished())
    assert len(kept) == 2
    assert RunFolder.open(path).manifest.state == "interrupted"
    assert not list((path / "launches").glob(".*"))

    again = BreakingOff(at=0)
    assert run(scenario, resume="always", progress=again) == path
    assert len(again.seen) == 2
    assert not kept & set(again.seen)
    assert len(RunFolder.open(path).finished()) == 4
    with pytest.raises(RecordError, match="no unfinished run"):
        unfinished(tmp_path / "results", scenario)


def test_a_run_by_another_plan_is_passed_over_by_who_goes_on(tmp_path: Path) -> None:
    scenario = write(tmp_path)
    other = draw(scenario, blocks=2)
    with pytest.raises(KeyboardInterrupt):
        run(scenario, plan=other, progress=BreakingOff(at=2))
    with pytest.raises(RecordError, match="no unfinished run"):
        unfinished(tmp_path / "results", scenario)
    path = unfinished(tmp_path / "results", scenario, other)
    found = recorded(tmp_path / "results", scenario, other)
    assert found is not None
    assert found.path == path
    assert recorded(tmp_path / "results", scenario, other, emulated="orin-nx") is None
    assert recorded(tmp_path / "results", scenario, draw(scenario)) is None


def test_a_variant_that_needs_no_more_launches_gets_none(tmp_path: Path) -> None:
    def retire(folder: Path) -> dict[str, str]:
        blocks = {record.block for record in RunFolder.open(folder).finished().values()}
        return {"requests": "known well enough"} if len(blocks) >= 2 else {}

    path = run(write(tmp_path, design="{blocks: 4}"), rules=Rules(retire=retire), note="a race")
    folder = RunFolder.open(path)
    seen = [record.variant for record in folder.finished().values()]
    assert (seen.count("none"), seen.count("requests")) == (4, 2)
    assert folder.manifest.notes == [
        "a race",
        "not launched from block 3 on: requests (known well enough)",
    ]
    assert folder.manifest.state == "complete"


def test_a_changed_scenario_is_not_resumed(tmp_path: Path) -> None:
    scenario = write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(scenario, progress=BreakingOff(at=1))
    with pytest.raises(RecordError, match="another version"):
        run(write(tmp_path, design="{blocks: 2}"), resume="always")


def test_an_invalid_launch_is_repeated_within_its_budget_and_then_reported(tmp_path: Path) -> None:
    doubtful = Check("steal", "violated", "steal 9 %", "≤ 1 %", "use a quiet machine")

    def judge(folder: Path) -> list[Check]:
        return [doubtful] if folder.name.startswith("000-00") else []

    path = run(write(tmp_path, design="{blocks: 1, retries: 1}"), rules=Rules(judge))
    records: dict[str, LaunchRecord] = RunFolder.open(path).finished()
    assert [(record.attempt, record.status) for record in records.values()] == [
        (1, "invalid"),
        (2, "invalid"),
        (1, "ok"),
    ]
    assert "steal 9 %" in str(next(iter(records.values())).reason)


def test_what_stayed_invalid_although_repeated_is_not_repeated_in_the_next_blocks(tmp_path: Path) -> None:
    stubborn = Check("compile_cache.state", "violated", "compiled again", None, None)

    def judge(folder: Path) -> list[Check]:
        return [stubborn] if read_launch(folder).variant == "requests" else []

    path = run(write(tmp_path, design="{blocks: 3, retries: 1}"), rules=Rules(judge))
    attempts: dict[str, list[int]] = {}
    for record in RunFolder.open(path).finished().values():
        attempts.setdefault(record.variant, []).append(record.attempt)
    assert {name: sorted(tried) for name, tried in attempts.items()} == {"none": [1, 1, 1], "requests": [1, 1, 1, 2]}


def test_a_stop_rule_ends_the_run_after_a_block_and_says_why(tmp_path: Path) -> None:
    path = run(write(tmp_path, design="{blocks: 3}"), rules=Rules(stop=lambda folder: "precise enough"))
    folder = RunFolder.open(path)
    assert len(folder.finished()) == 2
    assert any("precise enough" in note for note in folder.manifest.notes)


def test_a_run_refuses_the_wrong_machine_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asked for jetson-orin-nx"):
        run(write(tmp_path, host="{class: jetson-orin-nx}"))
    assert not (tmp_path / "results").exists()


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    scenario = write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(scenario, progress=BreakingOff(at=1))
    path = unfinished(tmp_path / "results", scenario)
    with RunFolder.open(path), pytest.raises(RecordError, match="in use by another run"):
        run(scenario, resume="always")


FORKED = "{start: [exec, forked]}"
# Whatever else this machine does.
LENIENT = "max_steal: 1.0, max_contention: 1.0, retries: 0"


def test_forked_launches_are_recorded_with_their_parent_and_checked_against_those_by_exec(tmp_path: Path) -> None:
    scenario = write(tmp_path, matrix=FORKED, design=f"{{blocks: 2, seed: 3, {LENIENT}}}")
    opened = bench.Run.open(run(scenario, rules=Rules(judge_folder)))
    assert [launch.record.variant for launch in opened.all[:2]] == ["exec", "forked"], "the reference comes first"
    forked = [launch.record for launch in opened.all if launch.record.variant == "forked"]
    executed = [launch.record for launch in opened.all if launch.record.variant == "exec"]
    for record in forked:
        checks = {check.name: check for check in record.checks}
        assert (checks["start.state"].status, checks["oracle.state"].status) == ("ok", "ok")
        assert (record.start.asked, record.start.mode) == ("forked", "forked")
        assert record.start.oracle is not None
        assert record.start.oracle.logprob == -1.0
        assert (parent_of(record).pss_mib or 0) > 1
        assert record.factors["start"] == "forked"
        phases = {phase["name"]: phase["reason"] for phase in rows(launch_of(opened, record).read("phases"))}
        assert phases["imports"] == "forked"
    assert [record.start.mode for record in executed] == ["exec"] * 2
    assert [parent_of(record).forks for record in forked] == [0, 1]
    assert parent_of(forked[0]).pid == parent_of(forked[1]).pid
    # Its parent has gone with the run.
    assert not Path(f"/proc/{parent_of(forked[0]).pid}").exists()


def parent_of(record: LaunchRecord) -> ParentAccount:
    assert record.start.parent is not None
    return record.start.parent


def folder_of(launch: Launch) -> Path:
    return launch.folder.launch_path(launch.id)


def launch_of(opened: bench.Run, record: LaunchRecord) -> Any:
    return next(launch for launch in opened.all if launch.id == record.launch_id)


def test_a_variant_that_cannot_be_forked_goes_on_by_exec_and_is_never_counted_as_forked(tmp_path: Path) -> None:
    scenario = write(tmp_path, matrix="{start: [forked]}", design=f"{{blocks: 1, {LENIENT}}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parent, "PROGRAM", tmp_path / "no-such-program.py")
        opened = bench.Run.open(run(scenario, rules=Rules(judge_folder)))
    (launch,) = opened.all
    assert (launch.record.status, launch.record.reason_kind) == ("invalid", "start.state")
    assert "started by exec: the parent died" in str(launch.record.reason)
    assert launch.record.variant == "s-bf16-forked"
    assert launch.record.start.mode == "exec"


def test_a_forked_variant_alone_brings_its_own_reference_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    alone = write(tmp_path, matrix="{start: [forked]}", design=f"{{blocks: 2, {LENIENT}}}")
    first, second = bench.Run.open(run(alone, rules=Rules(judge_folder))).all
    for launch in (first, second):
        assert (launch.record.status, launch.record.start.mode) == ("ok", "forked"), launch.record.reason
        assert "by exec as kept from" in next(c.evidence for c in launch.record.checks if c.name == "oracle.state")
    assert first.record.start.reference == second.record.start.reference
    # What was started for it is in the first launch's folder, and no launch of the run.
    assert (folder_of(first) / "by-exec" / "engine.log").is_file()
    assert not (folder_of(second) / "by-exec").exists()


def test_arms_that_are_all_forked_count_whatever_else_the_scenario_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    # As `bench aa` and `bench tune` do: a plan of variants that are not in the matrix.
    one = dataclasses.replace(write(tmp_path, design=f"{{blocks: 1, {LENIENT}}}").variants[0], start="forked")
    arms = [dataclasses.replace(one, id=label, factors={**one.factors, "label": label}) for label in "ab"]
    scenario = write(tmp_path, design=f"{{blocks: 1, {LENIENT}}}")
    both = bench.Run.open(run(scenario, in_blocks(arms, 1, 1), rules=Rules(judge_folder))).all
    assert [launch.record.status for launch in both] == ["ok", "ok"]
    assert sum((folder_of(launch) / "by-exec").exists() for launch in both) == 1


def test_a_fork_whose_twin_does_not_answer_is_not_started_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    dying = "{s: {engine: simulated, args: {never_ready: true}, ready_timeout_s: 1}}"
    alone = write(tmp_path, engines=dying, matrix="{start: [forked]}", design=f"{{blocks: 1, {LENIENT}}}")
    (launch,) = bench.Run.open(run(alone, rules=Rules(judge_folder))).all
    assert (launch.record.status, launch.record.reason_kind) == ("failed", "no_reference")
    assert "s-bf16-forked by exec, which it is checked against, does not start" in str(launch.record.reason)
    assert launch.record.stamps.get("spawn") is None
