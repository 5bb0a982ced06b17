"""A recorded run: what was put in is found again, launch by launch and in sum."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from bench.analyse.metrics import METRICS
from bench.analyse.run import Run
from bench.errors import RecordError
from tests.runs import Behaviour, synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    variants = {
        "fast": Behaviour(ttft=100, tpot=10, factors={"engine": "x", "quantization": "bf16"}),
        "slow": Behaviour(ttft=200, tpot=20, status={1: ("failed", "crash_at_start", "it died")}, failing=(3,)),
        "hot": Behaviour(status=dict.fromkeys(range(3), ("invalid", "throttle", "75 °C"))),
    }
    return Run.open(synthetic_run(tmp_path_factory.mktemp("results"), variants, requests=40, warmups=2))


def test_one_row_per_launch_with_the_truth_in_it(run: Run) -> None:
    frame = run.per_launch
    assert len(frame) == 9
    assert set(METRICS) <= set(frame.columns)
    fast = frame[frame["variant"] == "fast"]
    assert fast["ttft.p50"].to_list() == pytest.approx([100.0] * 3)
    assert fast["tpot.p50"].to_list() == pytest.approx([10.0] * 3)
    assert fast["itl.p90"].to_list() == pytest.approx([10.0] * 3)
    # ready at 10.8 s, two warm-up requests of 0.951 and 0.251 s, then 0.1 s to the first token of the workload
    assert fast["cold_ttft"].to_list() == pytest.approx([12.102] * 3)
    assert fast["startup"].to_list() == pytest.approx([10.8] * 3)
    assert fast["factor.quantization"].to_list() == ["bf16"] * 3


def test_metric_columns_are_numbers_even_where_nothing_is_known(run: Run) -> None:
    frame = run.per_launch
    assert all(frame[name].dtype == np.float64 for name in METRICS)
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert failed["reason_kind"] == "crash_at_start"
    assert np.isnan(failed["ttft.p50"])
    assert np.isnan(failed["error_rate"])


def test_the_summary_counts_valid_launches_only(run: Run) -> None:
    rows = run.summary().to_dict("records")
    summary = {(str(row["variant"]), str(row["metric"])): row for row in rows}
    slow = summary["slow", "ttft.p50"]
    assert slow["value"] == pytest.approx(200)
    assert (slow["n"], slow["launches"]) == (2 * 39, 2)
    assert summary["slow", "error_rate"]["value"] == pytest.approx(1 / 40)
    hot = summary["hot", "ttft.p50"]
    assert pd.isna(hot["value"])
    assert hot["reason"] == "no valid launch"
    assert pd.isna(summary["fast", "ttft.p99"]["value"])
    assert "p99 needs at least 368 values, there are 120" in summary["fast", "ttft.p99"]["reason"]


def test_requests_of_all_launches_carry_their_durations_and_what_they_are(run: Run) -> None:
    requests = run.requests
    assert len(requests) == 8 * 43
    assert "text" not in requests
    assert requests.groupby("stage", observed=True)["measured"].unique().map(list).to_dict() == {
        "first": [False],
        "measured": [True],
        "warmup": [False],
    }
    assert requests["sent_ns"].dtype == "Int64"
    assert run.all[0].read("requests", ["text"])["text"].notna().any()


def test_the_other_tables_are_there_too(run: Run) -> None:
    assert run.chunks["user_ns"].dtype == "Int64"
    assert set(run.phases["name"]) == {"imports", "weights", "cuda_graphs"}
    assert "pss_mib" in set(run.samples["field"])
    assert set(run.events["name"]) == {"spawn"}
    assert run.launches["ready_s"].dropna().to_list() == pytest.approx([10.8] * 8)
    assert run.slo == {"ttft": 150}


def test_a_folder_of_runs_opens_as_its_newest(tmp_path: Path) -> None:
    for day in ("1", "2"):
        path = synthetic_run(tmp_path, {"a": Behaviour()}, blocks=1, requests=2, run_id=f"run-{day}")
        os.utime(path / "manifest.json", (int(day), int(day)))
    for opened in (tmp_path, tmp_path / "synthetic", path, path / "manifest.json"):
        assert Run.open(opened).manifest.run_id == "run-2"


def test_what_is_not_a_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="is not a run's folder"):
        Run.open(tmp_path)
    with pytest.raises(RecordError, match="does not exist"):
        Run.open(tmp_path / "nothing")


def test_a_run_without_launches_is_empty_not_an_error(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour()}, blocks=0))
    assert run.requests.empty
    assert run.per_launch.empty
    assert run.summary()["reason"].unique().tolist() == ["no valid launch"]


def test_run_is_one_of_the_public_names() -> None:
    assert bench.Run is Run
