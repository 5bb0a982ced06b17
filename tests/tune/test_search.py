"""A whole search on the scripted engine, whose first token comes when its flag says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.analyse.metrics import metric
from bench.errors import UsageError
from bench.record.store import RunFolder
from bench.run.conductor import Setting
from bench.run.folders import Resume
from bench.run.refusals import refusals
from bench.scenario.load import Scenario
from bench.tune.search import Found, guards, search
from bench.tune.winner import kept
from tests.tune.fields import scenario


def find(folder: Path, changes: Mapping[str, str] | None = None, resume: bool = False) -> Found:
    asked = scenario(folder, **(changes or {}))
    # The client's own check has tests of its own and takes seconds.
    kept: Resume = "finished too" if resume else "never"
    return search(asked, asked.variants[0], Setting(results=folder / "results", resume=kept, check_client=False))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return find(tmp_path_factory.mktemp("tune"), {"design": "{blocks: 4, max_steal: 1, max_contention: 1}"})


def test_the_faster_flag_is_found_and_confirmed_on_launches_of_its_own(found: Found) -> None:
    assert found.chosen is not None
    assert found.chosen.candidate.changes == {"ttft_ms": 5}
    assert found.chosen.gain.blocks == 4
    assert found.confirm is not None
    assert found.confirm not in found.chosen_by
    race, confirm = (RunFolder.open(folder).manifest for folder in (found.chosen_by[0], found.confirm))
    assert race.seed != confirm.seed
    assert {variant.id for variant in confirm.variants} == {"start", "ttft-ms-5"}


def test_one_that_has_fallen_out_is_launched_no_more(found: Found) -> None:
    assert found.out == {"ttft-ms-60": "slower than ttft-ms-5"}
    folder = RunFolder.open(found.chosen_by[0])
    records = folder.finished().values()
    blocks = {name: sum(one.variant == name for one in records) for name in ("start", "ttft-ms-5", "ttft-ms-60")}
    assert blocks == {"start": 4, "ttft-ms-5": 4, "ttft-ms-60": 3}
    assert any("not launched from block 4 on: ttft-ms-60" in note for note in folder.manifest.notes)


def test_a_search_that_was_broken_off_keeps_what_is_finished(found: Found) -> None:
    assert found.confirm is not None
    manifest = found.confirm / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"state": "interrupted"}))
    folder = found.confirm.parents[2]
    again = find(folder, {"design": "{blocks: 4, max_steal: 1, max_contention: 1}"}, resume=True)
    assert again.runs == found.runs
    assert again.chosen == found.chosen
    assert len(list((folder / "results" / "small").glob("[!.]*/manifest.json"))) == 2


def test_nothing_is_recommended_where_nothing_is_better(tmp_path: Path) -> None:
    found = find(tmp_path, {"tune": "{levers: {ttft_ms: [60]}, objective: ttft.p50}"})
    assert (found.chosen, found.confirm, found.confirmed) == (None, None, ())


def test_what_the_gate_asks_of_the_other_metrics_guards_the_search(tmp_path: Path) -> None:
    asked = scenario(tmp_path, gate="{baseline: {engine: s}, metrics: {ttft: 5%, tpot.p50: 50%}}")
    assert guards(asked, metric("ttft.p50")) == {"tpot.p50": 0.5}
    assert guards(scenario(tmp_path), metric("ttft.p50")) == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"tune": "{levers: {ttft_ms: [20]}}"}, "nothing to try"), ({"design": "{blocks: 2}"}, "at least 3 blocks")],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(
    tmp_path: Path, changes: Mapping[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        find(tmp_path, changes)
    assert not (tmp_path / "results").exists()


# 2⁴ settings are too many to race: the first token comes after cold_ms and ttft_ms, and only together are two quick.
MANY = {
    "engines": "{s: {engine: simulated, args: {cold_ms: 1500, ttft_ms: 20, itl_ms: 1}}}",
    "tune": (
        "{budget_minutes: 30, objective: cold_ttft, levers: {cold_ms: [1400, 200], itl_ms: [2], role_first: [true], "
        "late: {late: {args: {never_ready: true}}}}}"
    ),
}


def test_many_settings_are_screened_the_late_are_stopped_and_the_best_is_confirmed_and_kept(tmp_path: Path) -> None:
    found = find(tmp_path, MANY)
    assert len(found.field.candidates) == 3 * 2 * 2 * 2 - 1
    assert not found.field.every
    assert len(found.chosen_by) == 3
    assert found.chosen is not None
    assert found.chosen.candidate.changes["cold_ms"] == 200
    assert "late" not in found.chosen.candidate.changes
    late = [name for name in found.out if name.endswith("late")]
    assert late
    assert all("cannot be among the best any more" in found.out[name] for name in late)
    seen = [RunFolder.open(folder).finished().values() for folder in found.chosen_by]
    launches = sum(map(len, seen)) + 3 * len(found.confirmed) + 3
    assert launches <= 8 + 4 + 2 + 9
    first = next(iter(seen[0]))
    assert first.variant == "start", "it comes first, so that the others can be cut short"

    asked = scenario(tmp_path, **MANY)
    path = kept(asked, asked.variants[0], found, tmp_path / "results", {"study": "this"})
    assert path is not None
    answered = Scenario.load(path)
    assert refusals(answered) == []
    (variant,) = answered.variants
    assert variant.engine.args == found.chosen.candidate.variant.engine.args
    assert json.loads(path.with_suffix(".json").read_text()) == {"study": "this"}


def test_a_budget_that_holds_no_launch_begins_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not one launch is begun: a launch of .* takes about"):
        find(tmp_path, {"tune": "{levers: {ttft_ms: [5]}, budget_minutes: 0.001}"})
    assert not (tmp_path / "results").exists()


def test_a_budget_is_honoured_launch_by_launch(tmp_path: Path) -> None:
    asked = scenario(tmp_path, **MANY | {"tune": MANY["tune"].replace("budget_minutes: 30", "budget_minutes: 10")})
    ticks = iter(range(0, 100_000, 30))
    # Every look at the clock is half a minute later: two or three launches fit six tenths of ten minutes.
    setting = Setting(results=tmp_path / "results", check_client=False)
    found = search(asked, asked.variants[0], setting, clock=lambda: float(next(ticks)))
    (folder,) = found.chosen_by
    manifest = RunFolder.open(folder)
    assert len(manifest.finished()) < 8
    assert any("are left of this part's" in note for note in manifest.manifest.notes)
