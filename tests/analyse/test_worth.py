"""Saving, cost and break-even come out of runs with known truth, and no interval claims more than its blocks."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.analyse.estimate import Estimate
from bench.analyse.run import Run
from bench.analyse.worth import (
    _words,
    against,
    break_even,
    by_variant,
    cost_curve,
    fieller,
    launches,
    summary,
)
from bench.record.launches import Check, ImageAccount, ParentAccount, StartAccount
from bench.record.store import RunFolder
from tests.runs import Behaviour, synthetic_run

# 16 tokens: eager 100 + 15·20 = 400 ms a request, compiled 100 + 15·10 = 250 ms, for 60 s more at the start.
EAGER = Behaviour(load_s=10.0, tpot=20.0, first=100.0)
COMPILED = Behaviour(load_s=70.0, tpot=10.0, first=100.0)
TRUE = 60.0 / 0.150


def opened(tmp_path: Path, blocks: int = 4, jitter: float = 0.02) -> Run:
    variants = {
        "eager": dataclasses.replace(EAGER, jitter=jitter, launch_sd=jitter),
        "compiled": dataclasses.replace(COMPILED, jitter=jitter, launch_sd=jitter),
    }
    return Run.open(synthetic_run(tmp_path, variants, blocks=blocks))


def test_break_even_is_cost_over_gain_with_an_interval_around_it(tmp_path: Path) -> None:
    row: Any = against(opened(tmp_path), "eager").set_index("variant").loc["compiled"]
    assert row["break_even"] == pytest.approx(TRUE, rel=0.05)
    assert row["break_even_low"] < TRUE < row["break_even_high"]
    assert row["verdict"].startswith("pays after")
    assert row["cold_saving_s"] == pytest.approx(-60.0, abs=0.5)
    assert row["steady_tpot_ratio"] == pytest.approx(0.5, rel=0.01)


def test_the_faster_start_has_nothing_to_pay_back(tmp_path: Path) -> None:
    row: Any = against(opened(tmp_path), "compiled").set_index("variant").loc["eager"]
    assert row["break_even"] == 0
    # 16 tokens a request; the numbers are those of the break-even seen from the other side.
    assert row["lost_after"] == pytest.approx(TRUE, rel=0.05)
    assert row["lost_after_low"] < TRUE < row["lost_after_high"]
    tokens, requests = 16 * row["lost_after"], round(row["lost_after"])
    assert row["verdict"] == (
        f"starts faster, serves slower: its lead is lost after {tokens:.0f} tokens ({requests} requests)"
    )


def test_a_faster_start_that_serves_no_slower_keeps_its_lead(tmp_path: Path) -> None:
    variants = {"slow": dataclasses.replace(EAGER, load_s=70.0), "quick": EAGER}
    row: Any = against(Run.open(synthetic_run(tmp_path, variants, blocks=3)), "slow").iloc[0]
    assert row["verdict"] == "starts faster"
    assert math.isinf(row["lost_after"])


def test_never_is_said_only_where_the_intervals_say_it() -> None:
    # The start saves between −0.08 and 0.04 s, and a request gains about nothing: neither is sure.
    figures = {
        "break_even": Estimate(math.inf, 0.0, math.inf, 4),
        "lost_after": Estimate(None),
        "cold_saving_s": Estimate(-0.02, -0.08, 0.04, 4),
        "steady_saving_ms": Estimate(-1.0, -4.0, 2.0, 4),
    }
    assert _words(figures, 16) == (
        "no difference at the start is sure; that it serves faster was not seen, and is not excluded"
    )
    slower = figures | {"cold_saving_s": Estimate(-2.0, -2.1, -1.9, 4)}
    assert _words(slower, 16).startswith("starts slower; that it serves faster was not seen")
    sure = slower | {"steady_saving_ms": Estimate(-3.0, -4.0, -2.0, 4)}
    assert _words(sure, 16) == "starts slower and serves no faster: never pays"


def test_a_slower_start_that_serves_no_faster_never_pays(tmp_path: Path) -> None:
    variants = {"a": EAGER, "b": dataclasses.replace(EAGER, load_s=70.0, tpot=25.0)}
    row: Any = against(Run.open(synthetic_run(tmp_path, variants, blocks=3)), "a").iloc[0]
    assert math.isinf(row["break_even"])
    assert "never pays" in row["verdict"]


def test_one_block_has_a_value_and_no_interval(tmp_path: Path) -> None:
    row: Any = against(opened(tmp_path, blocks=1), "eager").iloc[0]
    assert row["break_even"] == pytest.approx(TRUE, rel=0.1)
    assert row["break_even_low"] is None
    assert row["break_even_high"] is None
    assert "cannot say surely" in row["verdict"]


def test_launches_that_were_not_as_asked_are_shown_apart_and_never_averaged(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path, {"eager": EAGER, "warm": EAGER}, blocks=3)
    with RunFolder.open(folder) as store:
        record = next(r for r in store.finished().values() if r.variant == "warm" and r.block == 0)
        missed = Check("compile_cache.state", "violated", "compiled again: other torch")
        stamps = {name: at and at + 500_000_000_000 for name, at in record.stamps.items()}
        late = stamps | {"spawn": record.stamps["spawn"]}
        store.amend(dataclasses.replace(record, checks=[missed], stamps=late, status="invalid"))
    run = Run.open(folder)
    table: Any = summary(run).set_index(["variant", "state"])
    assert table.loc[("warm", "as asked"), "launches"] == 2
    assert table.loc[("warm", "as asked"), "cold_ttft_s"] < 20
    assert table.loc[("warm", "not as asked"), "cold_ttft_s"] > 500
    assert table.loc[("warm", "not as asked"), "why"] == "compiled again: other torch"
    assert against(run, "eager").iloc[0]["n"] == 2


def test_the_cost_curve_starts_at_the_cold_start_and_the_lines_cross_at_break_even(tmp_path: Path) -> None:
    curve: Any = cost_curve(opened(tmp_path, jitter=0.0), [1, int(TRUE) - 20, int(TRUE) + 20]).set_index(
        ["variant", "requests"]
    )["seconds"]
    assert curve["eager", 1] < curve["compiled", 1]
    assert curve["eager", int(TRUE) - 20] < curve["compiled", int(TRUE) - 20]
    assert curve["eager", int(TRUE) + 20] > curve["compiled", int(TRUE) + 20]


def test_fiellers_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        low, high = fieller(draw.normal(60, 3, 6), draw.normal(0.15, 0.01, 6))
        assert low is not None
        assert high is not None
        covered += low <= TRUE <= high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_gain_that_may_be_none_has_no_upper_end() -> None:
    _, high = fieller(np.array([60.0, 61.0, 59.0]), np.array([0.1, -0.05, 0.02]))
    assert high == math.inf


def test_nulls_are_not_zeros() -> None:
    pairs = pd.DataFrame({"cold_ttft_s_a": [1.0], "cold_ttft_s_b": [2.0], "e2el_ms_a": [np.nan], "e2el_ms_b": [np.nan]})
    assert break_even(pairs).value is None


def test_a_run_of_failures_has_no_rows(tmp_path: Path) -> None:
    broken = Behaviour(status={0: ("failed", "crash_at_start", "it died")})
    run = Run.open(synthetic_run(tmp_path, {"broken": broken}, blocks=1))
    assert launches(run).empty
    assert summary(run).empty
    assert against(run, "broken").empty
    assert cost_curve(run, [1, 2]).empty


def test_a_variant_has_one_row_also_where_some_of_its_launches_could_not_be_verified(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"none": Behaviour(), "kept": Behaviour()}, blocks=3))
    doubtful, *_ = [launch for launch in run.all if launch.record.variant == "kept"]
    doubtful.record.checks.append(Check("compile_cache.state", "unknown", "no word of it", None, None))
    rows = by_variant(run)
    assert {name: (row["state"], row["launches"]) for name, row in rows.items()} == {
        "none": ("as asked", 3),
        "kept": ("as asked", 2),
    }


def with_parent(folder: Path, variant: str, seconds: float, mib: float) -> Run:
    """The run with all launches of a variant forked from a parent of that cost."""
    with RunFolder.open(folder) as store:
        for record in store.finished().values():
            if record.variant == variant:
                parent = ParentAccount(seconds=seconds, pss_mib=mib)
                start = StartAccount(asked="forked", mode="forked", parent=parent)
                store.amend(dataclasses.replace(record, start=start))
    return Run.open(folder)


def test_a_parent_has_paid_after_as_many_starts_as_its_making_took_of_their_savings(tmp_path: Path) -> None:
    variants = {"exec": Behaviour(load_s=24.0), "forked": Behaviour(load_s=4.0)}
    run = with_parent(synthetic_run(tmp_path, variants, blocks=3), "forked", 50.0, 600.0)
    row: Any = against(run, "exec").iloc[0]
    assert row["cold_saving_s"] == pytest.approx(20.0, rel=0.01)
    assert row["parent_even"] == pytest.approx(2.5, rel=0.01)
    assert row["break_even"] == 0
    assert row["verdict"] == "starts faster; its parent has paid after 3 starts"
    costs = by_variant(run)
    assert (costs["forked"]["parent_s"], costs["forked"]["parent_mib"], costs["forked"]["start"]) == (50, 600, "forked")
    assert (costs["exec"]["parent_s"], costs["exec"]["parent_mib"], costs["exec"]["start"]) == (0, 0, "exec")


def with_image(folder: Path, variant: str, seconds: float, mib: float) -> Run:
    """The run with all launches of a variant restored from an image of that cost, 1.5 s after their spawn."""
    with RunFolder.open(folder) as store:
        for record in store.finished().values():
            if record.variant == variant:
                image = ImageAccount(name="i", seconds=seconds, mib=mib)
                start = StartAccount(asked="restored", mode="restored", image=image)
                stamps = record.stamps | {"restored": int(record.stamps["spawn"] or 0) + 1_500_000_000}
                store.amend(dataclasses.replace(record, start=start, stamps=stamps))
    return Run.open(folder)


def test_a_restored_launch_has_three_times_and_its_image_has_paid_as_a_parent_would(tmp_path: Path) -> None:
    variants = {"exec": Behaviour(load_s=24.0), "restored": Behaviour(load_s=4.0)}
    run = with_image(synthetic_run(tmp_path, variants, blocks=3), "restored", 50.0, 900.0)
    row: Any = against(run, "exec").iloc[0]
    assert row["parent_even"] == pytest.approx(2.5, rel=0.01)
    assert row["verdict"] == "starts faster; its image has paid after 3 starts"
    costs = by_variant(run)["restored"]
    assert (costs["start"], costs["parent_s"], costs["image_mib"]) == ("restored", 50, 900)
    assert costs["parent_mib"] == 0, "nothing is held in memory while nothing is served"
    table = launches(run).set_index("variant")
    for _, one in table.loc["restored"].iterrows():
        assert one["restored_s"] == 1.5 < one["cold_ttft_s"] < one["second_token_s"]
        # Token by token, as the answer came.
        assert one["second_token_s"] - one["cold_ttft_s"] == pytest.approx(Behaviour().tpot / 1e3, rel=0.2)
    others = table[table.index == "exec"]
    assert others[["restored_s", "second_token_s"]].isna().to_numpy().all()


def test_a_forked_start_that_is_slower_all_the_same_pays_for_its_parent_with_requests(tmp_path: Path) -> None:
    variants = {"eager": EAGER, "compiled": COMPILED}
    run = with_parent(synthetic_run(tmp_path, variants, blocks=3), "compiled", 30.0, 600.0)
    row: Any = against(run, "eager").iloc[0]
    assert row["break_even"] == pytest.approx((60.0 + 30.0) / 0.150, rel=0.05)
    assert row["parent_even"] is None or math.isnan(row["parent_even"])
    assert "parent" not in row["verdict"]
