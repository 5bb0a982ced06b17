from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.analyse.metrics import metric
from bench.tune import race
from tests.tune.fields import field, launches

COLD = metric("cold_ttft")


def test_whoever_is_surely_behind_the_leader_falls_out(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    rows = launches({"start": 10, "a-1": 8, "a-2": 12})
    assert race.fallen(rows, COLD, few) == {"a-2": "slower than a-1"}


def test_nobody_falls_out_before_there_is_noise_to_judge_by(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    assert race.fallen(launches({"start": 10, "a-1": 8, "a-2": 12}, blocks=2), COLD, few) == {}


def test_a_candidate_that_never_starts_is_out_after_two_blocks_with_its_reason(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    rows = launches({"start": 10, "a-1": 8, "a-2": 8}, blocks=2)
    broken = rows["variant"] == "a-2"
    rows.loc[broken, "status"] = "failed"
    rows["reason"] = "bad_argument: no such flag"
    assert race.fallen(rows, COLD, few) == {"a-2": "block 1: bad_argument: no such flag"}
    assert race.fallen(rows[rows["block"] == 0], COLD, few) == {}


def test_a_faster_start_bought_with_slower_tokens_is_out(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1]})
    rows = launches({"start": 10, "a-1": 5}, a_1=13.0)
    assert race.fallen(rows, COLD, few) == {}
    assert "TPOT" in race.fallen(rows, COLD, few, {"tpot.p50": 0.05})["a-1"]


def test_one_that_was_stopped_is_out_at_once_with_its_reason(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    rows = launches({"start": 10, "a-1": 8, "a-2": 8}, blocks=1)
    stopped = rows["variant"] == "a-2"
    rows.loc[stopped, "status"] = "stopped"
    rows.loc[stopped, "cold_ttft"] = float("nan")
    rows["reason"] = "too late"
    assert race.fallen(rows, COLD, few) == {"a-2": "too late"}


def test_of_every_combination_the_two_best_go_on(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1], "b": [1]})
    rows = launches({"start": 10, "a-1": 8, "b-1": 9, "a-1-b-1": 8})
    best = rows.loc[rows["variant"] == "a-1-b-1", "cold_ttft"].to_numpy()
    rows.loc[rows["variant"] == "a-1", "cold_ttft"] = best * [1.02, 0.99, 1.02, 0.99, 1.02]
    last = race.finalists(rows, COLD, few, race.fallen(rows, COLD, few))
    assert [one.id for one in last] == ["a-1-b-1", "a-1"]


def test_nobody_goes_on_who_did_not_look_better(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    assert race.finalists(launches({"start": 10, "a-1": 11, "a-2": 12}), COLD, few, {}) == ()
    assert race.finalists(pd.DataFrame(), COLD, few, {}) == ()


def test_more_is_better_where_the_objective_says_so(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    rows = launches({"start": 10, "a-1": 8, "a-2": 12}).rename(columns={"cold_ttft": "output_throughput"})
    assert set(race.fallen(rows, metric("output_throughput"), few)) == {"a-1"}
