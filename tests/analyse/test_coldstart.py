"""Every second of a cold start belongs to one phase, and true hits are never mixed with launches that were none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.analyse import coldstart
from bench.analyse.coldstart import exclusive, phase_table, phases_by_variant, shares, verified, waterfall
from bench.analyse.run import Run
from bench.record.launches import Check
from bench.record.store import RunFolder
from tests.runs import Behaviour, synthetic_run

S = 1_000_000_000


def phases(*rows: tuple[str, float | None, float | None]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "name": name,
                "start_ns": None if start is None else int(start * S),
                "end_ns": None if end is None else int(end * S),
                "source": "log",
                "process": None,
                "parent": None,
                "reason": None,
            }
            for name, start, end in rows
        ]
    )


def test_nested_phases_are_not_counted_twice() -> None:
    own: Any = exclusive(phases(("engine", 0, 10), ("load", 2, 6), ("read", 3, 4)), 0, 10 * S)
    assert own == {"engine": pytest.approx(6), "load": pytest.approx(3), "read": pytest.approx(1)}


def test_an_instant_of_two_overlapping_phases_belongs_to_the_shorter() -> None:
    own: Any = exclusive(phases(("long", 0, 6), ("short", 4, 8)), 0, 8 * S)
    assert own == {"long": pytest.approx(4), "short": pytest.approx(4)}


def test_the_rest_is_unattributed_and_all_adds_up() -> None:
    own: Any = exclusive(phases(("a", 1, 3), ("b", 5, 20), ("null", None, None)), 0, 10 * S)
    assert own["unattributed"] == pytest.approx(3)
    assert sum(own.values()) == pytest.approx(10)


def test_a_phase_outside_the_cold_start_counts_for_nothing() -> None:
    assert exclusive(phases(("after", 12, 14)), 0, 10 * S) == {"unattributed": pytest.approx(10)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    variants = {"cold": Behaviour(load_s=20.0), "warm": Behaviour(load_s=6.0, warmup_s=2.0)}
    return Run.open(synthetic_run(tmp_path, variants, blocks=3))


def test_phases_and_rest_add_up_to_the_cold_ttft_of_every_launch(run: Run) -> None:
    table: Any = phase_table(run)
    cold: Any = run.per_launch.set_index("launch")["cold_ttft"]
    for launch, seconds in table.groupby("launch")["seconds"].sum().items():
        assert seconds == pytest.approx(cold[launch], rel=0.01)


def test_an_absent_phase_stays_null_and_keeps_its_reason(run: Run) -> None:
    row: Any = phases_by_variant(run).query("variant == 'cold' and phase == 'cuda_graphs'").iloc[0]
    assert pd.isna(row["seconds"])
    assert row["reason"] == "not_found"


def test_the_articles_shares_are_measured_and_the_nameless_rest_is_shown(run: Run) -> None:
    table: Any = shares(run).set_index(["variant", "share_of"])
    assert table.loc[("cold", "load"), "seconds"] == pytest.approx(20.0)
    assert table.loc[("cold", "elsewhere"), "seconds"] > 4.0
    assert table.groupby("variant")["share"].sum().to_list() == pytest.approx([1.0, 1.0])


def test_a_waterfall_is_in_order_of_time_with_nesting_as_depth(run: Run) -> None:
    drawn: Any = waterfall(run.all[0])
    assert drawn["name"].to_list() == ["imports", "weights"]
    assert drawn["start_s"].is_monotonic_increasing
    assert set(drawn["depth"]) == {0}


def test_launches_are_sorted_by_what_was_verified(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path, {"warm": Behaviour()}, blocks=3)
    mark(folder, "000-00-warm", Check("compile_cache.state", "violated", "compiled again"))
    mark(folder, "001-00-warm", Check("page_cache.state", "unknown", "resident share unknown"))
    opened = Run.open(folder)
    assert [verified(launch) for launch in opened.all] == ["not as asked", "unverified", "as asked"]
    grouped: Any = phases_by_variant(opened).groupby("state")["launches"].max()
    assert grouped.to_dict() == {"not as asked": 1, "unverified": 1, "as asked": 1}


def test_checks_about_anything_else_say_nothing_about_the_state(run: Run) -> None:
    assert {verified(launch) for launch in run.all} == {"as asked"}


def test_a_run_without_a_first_token_has_no_phases(tmp_path: Path) -> None:
    broken = Behaviour(status={0: ("failed", "crash_at_start", "it died")})
    opened = Run.open(synthetic_run(tmp_path, {"broken": broken}, blocks=1))
    assert phase_table(opened).empty
    assert shares(opened).empty
    assert phases_by_variant(opened).empty


def mark(path: Path, launch: str, *checks: Check) -> None:
    with RunFolder.open(path) as folder:
        record = folder.finished()[launch]
        folder.amend(dataclasses.replace(record, checks=[*record.checks, *checks]))


def test_every_phase_of_the_engines_has_one_share_at_most() -> None:
    names: Sequence[str] = [phase for share in coldstart.SHARES.values() for phase in share]
    assert len(names) == len(set(names))
