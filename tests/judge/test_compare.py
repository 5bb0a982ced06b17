from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.judge.compare import Comparison, Terms, compare, overall
from bench.judge.decide import Verdict

METRIC = "ttft.p50"
NOISE = (1.01, 0.99, 1.005, 0.995, 1.0, 1.002, 0.998, 1.003)


def launches(values: list[float], **more: Any) -> pd.DataFrame:
    count = len(values)
    frame = pd.DataFrame(
        {"launch": [f"{block:03d}" for block in range(count)], "block": range(count), "status": "ok", "attempt": 1}
    )
    frame[METRIC] = values
    return frame.assign(**more)


def side(factor: float = 1.0, blocks: int = 5) -> pd.DataFrame:
    return launches([100 * factor * noise for noise in NOISE[:blocks]])


def judge(a: pd.DataFrame, b: pd.DataFrame, margin: float = 0.05) -> Comparison:
    return compare(a, b, Terms({METRIC: margin}))


def flat() -> pd.DataFrame:
    return launches([100.0] * 5)


def test_the_ratio_is_candidate_over_baseline() -> None:
    result = judge(flat(), side(1.2))[METRIC]
    assert result.ratio == pytest.approx(1.2, rel=0.01)
    assert result.bounds is not None
    assert result.bounds[0] < 1.2 < result.bounds[1]
    assert result.limit == pytest.approx(1.05)
    assert result.verdict is Verdict.FAIL


def test_for_throughput_less_is_worse() -> None:
    a = flat().rename(columns={METRIC: "output_throughput"})
    b = side(0.8).rename(columns={METRIC: "output_throughput"})
    result = compare(a, b, Terms({"output_throughput": 0.03}))["output_throughput"]
    assert result.verdict is Verdict.FAIL
    assert result.ratio == pytest.approx(0.8, rel=0.01)
    assert result.bounds is not None
    assert result.bounds[0] < result.bounds[1]
    assert compare(b, a, Terms({"output_throughput": 0.03})).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("name", "factor", "says"),
    [
        (METRIC, 1.2, "up by at least 19.1%; 5.0% is allowed"),
        (METRIC, 1.0, "up by at most 0.8%; 5.0% is allowed"),
        (METRIC, 0.9, "down by at least 9.3%, which is better"),
        ("output_throughput", 1.2, "up by at least 19.1%, which is better"),
        (METRIC, 1.048, "between +4.0% and +5.6%: the limit of +5.0% lies in between"),
        ("output_throughput", 0.8, "down by at least 19.4%; 5.0% is allowed"),
        ("output_throughput", 0.99, "down by at most 1.7%; 5.0% is allowed"),
        ("output_throughput", 0.951, "between -5.6% and -4.2%: the limit of -5.0% lies in between"),
    ],
)
def test_the_reason_speaks_the_metrics_own_direction(name: str, factor: float, says: str) -> None:
    a, b = (rows.rename(columns={METRIC: name}) for rows in (flat(), side(factor)))
    result = compare(a, b, Terms({name: 0.05}))[name]
    assert result.reason == says


def test_a_throughput_cannot_lose_all_of_itself() -> None:
    from bench.errors import UsageError

    rows = flat().rename(columns={METRIC: "output_throughput"})
    with pytest.raises(UsageError, match="below 100%"):
        compare(rows, rows, Terms({"output_throughput": 1.5}))


def test_swapping_the_sides_inverts_the_ratio() -> None:
    there, back = judge(flat(), side(1.2))[METRIC], judge(side(1.2), flat())[METRIC]
    assert there.ratio is not None
    assert there.ratio * (back.ratio or 0) == pytest.approx(1.0)


def test_a_session_that_drifts_does_not_look_like_a_change() -> None:
    drift = np.linspace(1.0, 1.6, 5)
    a, b = side(), side()
    a[METRIC] *= drift
    b[METRIC] *= drift * [1.001, 0.999, 1.0, 1.002, 0.998]
    assert judge(a, b).verdict is Verdict.PASS


def test_launches_are_paired_by_block_and_not_by_row() -> None:
    a, b = side(), side(1.2)
    assert judge(a, b.sample(frac=1, random_state=1))[METRIC].pairs == judge(a, b)[METRIC].pairs


def test_a_repeated_launch_counts_once() -> None:
    b = side()
    first = b.iloc[[2]].assign(status="invalid", **{METRIC: 900.0}, attempt=1)
    comparison = judge(flat(), pd.concat([first, b.assign(attempt=2)], ignore_index=True))
    assert comparison.verdict is Verdict.PASS
    assert comparison.b.invalid == ()
    assert len(comparison[METRIC].pairs) == 5


def test_survivors_alone_do_not_pass() -> None:
    b = side(blocks=8)
    b.loc[3, "status"] = "failed"
    b.loc[3, "reason"] = "out of memory"
    comparison = judge(launches([100.0] * 8), b)
    assert comparison.verdict is Verdict.INCONCLUSIVE
    assert comparison.b.failed == ("block 4: out of memory",)
    assert "1 launch failed" in comparison[METRIC].reason
    assert comparison[METRIC].notes == ("no partner in block 4",)


def test_a_regression_is_a_regression_even_if_a_launch_failed() -> None:
    b = side(1.3, blocks=8)
    b.loc[3, "status"] = "failed"
    assert judge(launches([100.0] * 8), b).verdict is Verdict.FAIL


def spoil(change: Callable[[pd.DataFrame], None]) -> Comparison:
    b = side()
    change(b)
    return judge(flat(), b)


def none_valid(b: pd.DataFrame) -> None:
    b["status"], b["reason"] = "failed", "crashed at start"


def zero(b: pd.DataFrame) -> None:
    b.loc[1, METRIC] = 0.0


def negative(b: pd.DataFrame) -> None:
    b.loc[1, METRIC] = -3.0


def absent(b: pd.DataFrame) -> None:
    b[METRIC] = math.nan


def no_column(b: pd.DataFrame) -> None:
    del b[METRIC]


def mostly_invalid(b: pd.DataFrame) -> None:
    b.loc[:2, "status"] = "invalid"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (none_valid, "no valid launch of b: block 1: crashed at start"),
        (zero, "TTFT p50 is zero in block 2: there is no ratio to nothing"),
        (negative, "TTFT p50 is negative in block 2: a stepped clock or a damaged record"),
        (absent, "TTFT p50 was not measured for b"),
        (no_column, "TTFT p50 was not measured for b"),
        (mostly_invalid, "only 2 of 5 blocks have a valid launch on both sides"),
    ],
)
def test_what_cannot_be_judged_is_invalid_and_says_why(change: Callable[[pd.DataFrame], None], says: str) -> None:
    comparison = spoil(change)
    assert comparison.verdict is Verdict.INVALID
    assert comparison[METRIC].reason == says


def test_a_side_without_launches_is_invalid() -> None:
    comparison = judge(flat(), flat().iloc[:0])
    assert comparison.verdict is Verdict.INVALID
    assert "nothing was launched" in comparison[METRIC].reason


def test_one_block_is_inconclusive() -> None:
    comparison = judge(launches([100.0]), launches([150.0]))
    assert comparison.verdict is Verdict.INCONCLUSIVE
    assert "only one block" in comparison[METRIC].reason
    assert comparison[METRIC].bounds is None


def test_a_missing_value_leaves_its_block_out() -> None:
    b = side()
    b.loc[4, METRIC] = math.nan
    comparison = judge(flat(), b)
    assert comparison[METRIC].notes == ("no partner in block 5",)
    assert comparison[METRIC].decision.blocks == 4


def test_a_tail_that_the_launches_do_not_carry_is_not_judged() -> None:
    a = flat().assign(**{"ttft.p99": math.nan})
    result = compare(a, a, Terms({"ttft.p99": 0.1}))["ttft.p99"]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "368 steady requests per launch" in result.reason


def test_identical_values_pass_exactly() -> None:
    comparison = judge(flat(), flat())
    assert comparison.verdict is Verdict.PASS
    assert comparison[METRIC].ratio == 1.0


def test_obstacles_leave_the_ratio_and_take_the_verdict() -> None:
    comparison = compare(flat(), side(1.2), Terms({METRIC: 0.05}, obstacles=("one after the other",)))
    assert comparison.verdict is Verdict.INCONCLUSIVE
    assert comparison[METRIC].reason == "one after the other"
    assert comparison[METRIC].ratio == pytest.approx(1.2, rel=0.01)


def test_a_verdict_must_stand_without_the_blocks_that_were_not_steady() -> None:
    late = [block >= 5 for block in range(8)]
    drifted = side(1.12, blocks=8).assign(unsteady=late)
    assert judge(side(blocks=8).assign(unsteady=False), drifted).verdict is Verdict.FAIL
    all_but_two = drifted.assign(unsteady=[block > 1 for block in range(8)])
    result = judge(side(blocks=8).assign(unsteady=False), all_but_two)[METRIC]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "were not steady, and without them the FAIL does not hold" in result.reason


def test_beside_other_programs_nothing_passes() -> None:
    alone = flat().assign(crowded=False)
    assert judge(alone, alone).verdict is Verdict.PASS
    result = judge(alone, flat().assign(crowded=True))[METRIC]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "were not alone on the processors, and without them the PASS does not hold" in result.reason


def test_one_crowded_block_of_many_leaves_the_verdict_that_the_others_give() -> None:
    some = side(blocks=8).assign(crowded=[block == 3 for block in range(8)])
    assert judge(side(blocks=8), some).verdict is judge(side(blocks=8), side(blocks=8)).verdict


def test_gated_metrics_share_one_false_alarm() -> None:
    # Alone this is a narrow FAIL; beside three others it may be chance.
    a = launches([100.0] * 8)
    b = launches([100 * 1.063 * noise for noise in (1.02, 0.98, 1.01, 0.99, 1.012, 0.988, 1.015, 0.985)])
    alone = judge(a, b)[METRIC]
    assert alone.verdict is Verdict.FAIL
    assert alone.p_adjusted is not None
    assert 0.0125 < alone.p_adjusted < 0.05
    names = ["itl.p50", "tpot.p50", "e2el.p50"]
    a = a.assign(**dict.fromkeys(names, 5.0))
    b = b.assign(**{name: [5.0, 5.01, 4.99, 5.0, 5.02, 5.0, 5.0, 5.01] for name in names})
    comparison = compare(a, b, Terms(dict.fromkeys([METRIC, *names], 0.05)))
    assert comparison[METRIC].verdict is Verdict.INCONCLUSIVE
    assert "one of 4 gated metrics" in comparison[METRIC].reason


def test_metrics_without_margin_get_a_remark_and_no_verdict() -> None:
    a = flat().assign(**{"itl.p50": [5.0, 5.1, 4.9, 5.0, 5.05], "e2el.p50": [9.0, 9.1, 8.9, 9.0, 9.1]})
    b = side().assign(**{"itl.p50": [7.0, 7.1, 7.2, 6.9, 7.0], "e2el.p50": [9.1, 9.0, 8.9, 9.1, 9.0]})
    comparison = compare(a, b, Terms({METRIC: 0.05}, metrics=["itl", "e2el.p50"]))
    assert comparison["itl.p50"].verdict is None
    assert comparison["itl.p50"].reason == "worse"
    assert comparison["e2el.p50"].reason == "no change seen"
    assert comparison.verdict is Verdict.PASS


def test_the_worst_word_wins_but_a_regression_outweighs_a_gap() -> None:
    passed, failed, open_, broken = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID
    assert overall([passed, open_]) is open_
    assert overall([passed, open_, broken]) is broken
    assert overall([passed, broken, failed]) is failed
    assert overall([]) is None


def test_the_table_has_a_row_per_metric_in_order() -> None:
    table = compare(flat(), side(1.2), Terms({METRIC: 0.05})).table()
    row = table.set_index("metric").loc[METRIC]
    assert (row["verdict"], row["blocks"]) == ("FAIL", 5)
    assert row["low"] < row["ratio"] < row["high"]


def test_hundreds_of_metrics_at_once() -> None:
    from bench.analyse.metrics import METRICS

    rng = np.random.default_rng(0)
    names = [name for name, metric in METRICS.items() if metric.direction != "neither"]
    levels = {name: -3 if METRICS[name].by_difference else 3 for name in names}
    a = (
        flat()
        .drop(columns=names, errors="ignore")
        .join(pd.DataFrame({name: rng.lognormal(level, 0.02, 5) for name, level in levels.items()}))
    )
    b = (
        flat()
        .drop(columns=names, errors="ignore")
        .join(pd.DataFrame({name: rng.lognormal(level, 0.02, 5) for name, level in levels.items()}))
    )
    comparison = compare(a, b, Terms(dict.fromkeys(names, 0.2)))
    assert len(comparison.gated) == len(names)
    assert comparison.verdict is Verdict.PASS


def shares(*values: float, name: str = "error_rate") -> pd.DataFrame:
    return launches(list(values)).rename(columns={METRIC: name})


@pytest.mark.parametrize(
    ("a", "b", "verdict", "reason"),
    [
        ((0.0,) * 5, (0.0,) * 5, Verdict.PASS, "up by at most 0.0 points; 5.0 points is allowed"),
        ((0.0,) * 5, (0.3,) * 5, Verdict.FAIL, "up by at least 30.0 points; 5.0 points is allowed"),
        ((0.2,) * 5, (0.0,) * 5, Verdict.PASS, "down by at least 20.0 points, which is better"),
        ((0.01,) * 5, (0.03,) * 5, Verdict.PASS, "up by at most 2.0 points; 5.0 points is allowed"),
    ],
)
def test_a_share_whose_healthy_value_is_zero_is_compared_by_difference(
    a: tuple[float, ...], b: tuple[float, ...], verdict: Verdict, reason: str
) -> None:
    result = compare(shares(*a), shares(*b), Terms({"error_rate": 0.05}))["error_rate"]
    assert (result.verdict, result.reason) == (verdict, reason)
    assert result.shift == pytest.approx(b[0] - a[0])
    assert result.shifts == pytest.approx((b[0] - a[0], b[0] - a[0]))
    assert (result.ratio, result.bounds, result.limit) == (None, None, 0.05)


def test_a_difference_has_its_interval_in_the_metrics_own_unit() -> None:
    compared = compare(
        shares(0.0, 0.02, 0.0, 0.01, 0.0), shares(0.1, 0.0, 0.08, 0.02, 0.05), Terms({"error_rate": 0.05})
    )
    row = compared.table().set_index("metric").loc["error_rate"]
    assert row["difference"] == pytest.approx(0.044)
    assert row["low"] < 0.044 < row["high"]
    assert row["verdict"] == "INCONCLUSIVE"
    assert row["ratio"] is None
    # With sd 0.0493 over five blocks: t(0.95, 4)·sd/√5 = 0.047.
    assert row["high"] - row["low"] == pytest.approx(2 * 0.0470, rel=0.01)


def test_a_negative_share_is_a_damaged_record_and_a_zero_time_has_no_ratio() -> None:
    damaged = compare(shares(0.0, 0.0, 0.0), shares(0.0, -0.1, 0.0), Terms({"error_rate": 0.05}))["error_rate"]
    assert damaged.verdict is Verdict.INVALID
    assert damaged.reason == "failed requests is negative in block 2: a stepped clock or a damaged record"
