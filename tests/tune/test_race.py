from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.analyse.metrics import metric
from bench.tune import race
from tests.tune.fields import field, launches

COLD = metric("cold_ttft")
ONE_BY_ONE = {"a": [1, 2], "b": [1, 2], "c": [1, 2]}


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


def test_levers_turned_one_by_one_rival_their_own_kind_and_the_start(tmp_path: Path) -> None:
    many = field(tmp_path, ONE_BY_ONE)
    rows = launches({"start": 10, "a-1": 5, "a-2": 8, "b-1": 9, "b-2": 11, "c-1": 10, "c-2": 10})
    # b-1 is far behind a-1, but it turns another lever: both together may be better still.
    assert set(race.fallen(rows, COLD, many)) == {"a-2", "b-2"}


def test_all_that_helped_goes_on_together_beside_the_best_alone(tmp_path: Path) -> None:
    many = field(tmp_path, ONE_BY_ONE)
    rows = launches({"start": 10, "a-1": 5, "a-2": 8, "b-1": 9, "b-2": 11, "c-1": 10.5, "c-2": 10.6})
    out = race.fallen(rows, COLD, many)
    last = race.finalists(rows, COLD, many, ONE_BY_ONE, out)
    assert [one.id for one in last] == ["a-1-b-1", "a-1"]
    assert last[0].variant.engine.args == {"ttft_ms": 20, "itl_ms": 1, "a": 1, "b": 1}


def test_of_every_combination_the_two_best_go_on(tmp_path: Path) -> None:
    levers = {"a": [1], "b": [1]}
    few = field(tmp_path, levers)
    rows = launches({"start": 10, "a-1": 8, "b-1": 9, "a-1-b-1": 8})
    best = rows.loc[rows["variant"] == "a-1-b-1", "cold_ttft"].to_numpy()
    rows.loc[rows["variant"] == "a-1", "cold_ttft"] = best * [1.02, 0.99, 1.02, 0.99, 1.02]
    last = race.finalists(rows, COLD, few, levers, race.fallen(rows, COLD, few))
    assert [one.id for one in last] == ["a-1-b-1", "a-1"]


def test_nobody_goes_on_who_did_not_look_better(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    assert race.finalists(launches({"start": 10, "a-1": 11, "a-2": 12}), COLD, few, {"a": [1, 2]}, {}) == ()
    assert race.finalists(pd.DataFrame(), COLD, few, {"a": [1, 2]}, {}) == ()


def test_more_is_better_where_the_objective_says_so(tmp_path: Path) -> None:
    few = field(tmp_path, {"a": [1, 2]})
    rows = launches({"start": 10, "a-1": 8, "a-2": 12}).rename(columns={"cold_ttft": "output_throughput"})
    assert set(race.fallen(rows, metric("output_throughput"), few)) == {"a-1"}
