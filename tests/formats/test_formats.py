"""Other tools' formats: what we write is read back, what they write is read by its meaning and not by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.run import Run
from bench.errors import RecordError, UnknownName
from bench.formats import exporter, importer
from tests.runs import Behaviour, synthetic_run

GUIDELLM: dict[str, Any] = {
    "benchmarks": [
        {
            "metrics": {
                "time_to_first_token_ms": {"successful": {"mean": 90.0, "percentiles": {"p50": 88.0, "p99": 120.0}}},
                "inter_token_latency_ms": {"successful": {"mean": 9.0, "percentiles": {"p50": 8.9}}},
                "request_latency": {"successful": {"mean": 1.5, "percentiles": {}}},
                "output_tokens_per_second": {"successful": {"mean": 101.0}},
            }
        }
    ]
}
AIPERF: dict[str, Any] = {
    "time_to_first_token": {"unit": "ms", "avg": 90.0, "p50": 88.0, "p99": 120.0},
    "inter_token_latency": {"unit": "ms", "avg": 9.0},
    "inter_chunk_latency": {"unit": "ms", "avg": 9.5},
    "request_latency": {"unit": "ms", "avg": 1500.0},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 101.0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    variants = {
        "fast": Behaviour(ttft=100, jitter=0.02),
        "slow": Behaviour(ttft=200, failing=(3,)),
        "dead": Behaviour(status=dict.fromkeys(range(3), ("failed", "crash_at_start", "it died"))),
    }
    return Run.open(synthetic_run(tmp_path_factory.mktemp("runs"), variants, requests=10, samples=False))


def by_metric(document: Any) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in importer(document)[1].read(document)}


def test_vllms_keys_and_units(run: Run) -> None:
    made = exporter("vllm").export(run)
    assert set(made) == {"synthetic-fast.json", "synthetic-slow.json"}
    slow = made["synthetic-slow.json"]
    assert slow["median_ttft_ms"] == pytest.approx(200)
    assert slow["ttfts"][0] == pytest.approx(0.2)
    assert (slow["completed"], slow["failed"]) == (27, 3)
    assert slow["total_output_tokens"] == 27 * 16
    assert slow["p99_itl_ms"] == pytest.approx(10)
    assert slow["request_rate"] == "inf"
    json.dumps(made, allow_nan=False)


def test_what_we_write_for_vllm_we_read_back(run: Run) -> None:
    document = exporter("vllm").export(run)["synthetic-fast.json"]
    name, _ = importer(document)
    assert name == "vllm"
    # Their TTFT is the first chunk: read as TTFR.
    assert by_metric(document)["ttfr.p50"] == pytest.approx(document["p50_ttft_ms"])


def test_pytest_benchmark_gets_a_round_per_launch_in_seconds(run: Run) -> None:
    (document,) = exporter("pytest-benchmark").export(run).values()
    found = {one["name"]: one["stats"] for one in document["benchmarks"]}
    assert found["slow[ttft.p50]"]["rounds"] == 3
    assert found["slow[ttft.p50]"]["median"] == pytest.approx(0.2)
    assert "slow[output_throughput]" not in found
    json.dumps(document, allow_nan=False)


def test_github_action_splits_by_direction(run: Run) -> None:
    made = exporter("github-action").export(run)
    assert {one["name"] for one in made["synthetic-bigger-is-better.json"]} == {
        "fast output_throughput",
        "slow output_throughput",
    }
    entry = made["synthetic-smaller-is-better.json"][0]
    assert set(entry) == {"name", "unit", "value", "range", "extra"}


def test_bencher_has_value_and_bounds(run: Run) -> None:
    (document,) = exporter("bencher").export(run).values()
    measure = document["synthetic/fast"]["ttft-p50"]
    assert measure["lower_value"] <= measure["value"] <= measure["upper_value"]


def test_guidellms_names_are_translated() -> None:
    assert by_metric(GUIDELLM) == {
        "ttft.mean": 90.0,
        "ttft.p50": 88.0,
        "ttft.p99": 120.0,
        "tpot.mean": 9.0,
        "tpot.p50": 8.9,
        "e2el.mean": 1500.0,
        "output_throughput": 101.0,
    }


def test_aiperfs_names_are_translated() -> None:
    found = by_metric(AIPERF)
    assert (found["tpot.mean"], found["itl.mean"], found["e2el.mean"]) == (9.0, 9.5, 1500.0)
    assert by_metric({"records": AIPERF}) == found


def test_unknown_formats_and_files_say_what_there_is() -> None:
    with pytest.raises(UnknownName, match="bencher, github-action, pytest-benchmark, vllm"):
        exporter("vlm")
    with pytest.raises(UnknownName, match="aiperf, guidellm, vllm"):
        importer({}, "bencher")
    with pytest.raises(RecordError, match="no known tool wrote this file"):
        importer({"a": 1})


def test_the_commands(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    assert main(["export", str(run.path), "--format", "vllm", "--out", str(tmp_path)]) == 0
    assert main(["import", str(tmp_path / "synthetic-fast.json"), "--json"]) == 0
    assert '"format": "vllm"' in capsys.readouterr().out
    assert main(["export", str(run.path), "--format", "vllm"]) == 4
    (tmp_path / "broken.json").write_text('{"benchmarks": [{"metrics": 3}]}')
    assert main(["import", str(tmp_path / "broken.json")]) == 4
    assert main(["import", str(tmp_path / "none.json")]) == 4
