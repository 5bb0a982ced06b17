"""Other tools' formats: what we write is read back, what they write is read by its meaning and not by its name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.run import Run
from bench.errors import RecordError, UnknownName
from bench.formats import directions, exporter, importer
from bench.plugins import load, names
from tests.runs import Behaviour, synthetic_run

GUIDELLM: dict[str, Any] = {
    "benchmarks": [
        {
            "metrics": {
                "time_to_first_token_ms": {"successful": {"mean": 90.0, "percentiles": {"p50": 88.0, "p99": 120.0}}},
                "time_to_first_output_token_ms": {"successful": {"mean": 95.0, "median": 94.0}},
                "inter_token_latency_ms": {"successful": {"mean": 9.0, "percentiles": {"p50": 8.9}}},
                "request_latency": {"successful": {"mean": 1.5, "percentiles": {}}},
                "output_tokens_per_second": {"successful": {"mean": 101.0}},
            }
        }
    ]
}
SGLANG: dict[str, Any] = {
    "backend": "sglang",
    "completed": 160,
    "total_output_tokens_retokenized": 20471,
    "request_throughput": 7.8,
    "output_throughput": 999.0,
    "total_throughput": 8991.2,
    "mean_e2e_latency_ms": 1510.0,
    "median_e2e_latency_ms": 1500.5,
    "p90_e2e_latency_ms": 1600.0,
    "mean_ttft_ms": 88.0,
    "median_ttft_ms": 80.0,
    "p99_ttft_ms": 170.0,
    "mean_tpot_ms": 11.2,
    "accept_length": None,
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


@pytest.mark.parametrize(
    "name",
    [n for n in names("formats") if directions(load("formats", n)) == ("reads", "writes")],
)
def test_what_is_written_is_read_back_with_the_same_names(run: Run, name: str) -> None:
    from bench.analyse.metrics import METRICS

    for file, document in exporter(name).export(run).items():
        found = {row["metric"]: row["value"] for row in importer(document)[1].read(document)}
        launches = run.per_launch
        of = launches[(launches["variant"] == file.removesuffix(".json").split("-")[-1]) & (launches["status"] == "ok")]
        assert importer(document)[0] == name
        assert {"ttft.p50", "ttfr.p50", "ttfot.p50", "tpot.p50", "itl.p50", "e2el.p50"} <= set(found) <= set(METRICS)
        for metric in ("ttft.p50", "ttfr.p50", "ttfot.p50", "tpot.p50", "itl.p50", "e2el.p50"):
            assert found[metric] == pytest.approx(of[metric].median(), rel=0.05), metric


def test_some_format_has_both_directions() -> None:
    assert directions(load("formats", "vllm")) == ("reads", "writes")
    assert directions(load("formats", "sglang")) == ("reads",)
    assert directions(load("formats", "bencher")) == ("writes",)


def test_vllms_own_first_chunk_is_not_our_first_token() -> None:
    found = by_metric({"completed": 9, "mean_ttft_ms": 61.4, "median_ttft_ms": 58.2, "request_goodput:": 3.21})
    assert found == {"ttfr.mean": 61.4, "ttfr.p50": 58.2, "goodput": 3.21}


def test_sglangs_results_are_sglangs() -> None:
    assert importer(SGLANG)[0] == "sglang"
    assert by_metric(SGLANG) == {
        "ttft.mean": 88.0,
        "ttft.p50": 80.0,
        "ttft.p99": 170.0,
        "e2el.mean": 1510.0,
        "e2el.p50": 1500.5,
        "e2el.p90": 1600.0,
        "tpot.mean": 11.2,
        "output_throughput": 999.0,
        "total_throughput": 8991.2,
        "request_throughput": 7.8,
    }


ZERO = {"mean": 0.0, "median": 0.0, "count": 0, "percentiles": {"p50": 0.0, "p99": 0.0}}


@pytest.mark.parametrize(
    "document",
    [
        {"completed": 0, "failed": 9, "mean_ttft_ms": 0.0, "median_ttft_ms": 0.0, "output_throughput": 0.0},
        {**SGLANG, "completed": 0, "mean_ttft_ms": 0.0},
        {"benchmarks": [{"metrics": {"request_latency": {"successful": ZERO, "errored": {"count": 12}}}}]},
        {"time_to_first_token": {"unit": "ms", "avg": 0.0, "p50": 0.0}},
    ],
    ids=["vllm", "sglang", "guidellm", "aiperf"],
)
def test_statistics_of_no_request_are_no_figures(document: dict[str, Any]) -> None:
    assert by_metric(document) == {}


def test_a_time_that_was_not_measured_is_left_out_and_a_true_zero_among_others_stays() -> None:
    found = by_metric({"completed": 9, "mean_ttft_ms": 5.0, "mean_itl_ms": 0.0, "p99_itl_ms": 0.0, "p50_tpot_ms": 0.0,
                       "mean_tpot_ms": 2.0})  # fmt: skip
    assert found == {"ttfr.mean": 5.0, "tpot.mean": 2.0, "tpot.p50": 0.0}


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"completed": 5, "mean_ttft_ms": 50.0, "p99_ttft_ms": math.nan}, "p99_ttft_ms is nan"),
        ({"completed": 5, "mean_ttft_ms": 50.0, "mean_itl_ms": math.inf}, "mean_itl_ms is inf"),
        ({"completed": 5, "mean_ttft_ms": "N/A"}, "mean_ttft_ms is 'N/A'"),
        ({"benchmarks": [{"metrics": {"request_latency": {"successful": {"mean": math.nan}}}}]},
         r"benchmarks\[0\].metrics.request_latency mean is nan"),
        ({"time_to_first_token": {"unit": "fortnights", "avg": 1.0}}, "time_to_first_token is in 'fortnights'"),
    ],
)  # fmt: skip
def test_what_is_no_figure_is_named_with_its_place(document: Any, where: str) -> None:
    with pytest.raises(RecordError, match=where):
        by_metric(document)


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
        "ttfot.mean": 95.0,
        "ttfot.p50": 94.0,
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
    with pytest.raises(UnknownName, match="aiperf, guidellm, sglang, vllm"):
        importer({}, "bencher")
    with pytest.raises(RecordError, match="no known tool wrote this file"):
        importer({"a": 1})


def test_the_commands(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    assert main(["export", str(run.path), "--format", "vllm", "--out", str(tmp_path)]) == 0
    assert main(["import", str(tmp_path / "synthetic-fast.json"), "--json"]) == 0
    assert '"format": "vllm"' in capsys.readouterr().out
    (tmp_path / "broken.json").write_text('{"benchmarks": [{"metrics": 3}]}')
    assert main(["import", str(tmp_path / "broken.json")]) == 4
    assert main(["import", str(tmp_path / "none.json")]) == 4


def test_every_export_goes_to_standard_output_and_vllms_comes_back(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli import main

    for name in (one for one in names("formats") if "writes" in directions(load("formats", one))):
        assert main(["export", str(run.path), "--format", name]) == 0
        text = capsys.readouterr().out
        expected = exporter(name).export(run)
        assert json.loads(text).keys() == expected.keys() if len(expected) > 1 else json.loads(text)
        (tmp_path / f"{name}.json").write_text(text)
    assert main(["import", str(tmp_path / "vllm.json"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["metrics"]
    assert {row["result"] for row in rows if row["metric"] == "ttft.p50"} == {0, 1}
    assert [row["value"] for row in rows if row["metric"] == "ttft.p50"] == pytest.approx([100, 200], rel=0.05)


def test_a_file_of_several_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    file = tmp_path / "several.jsonl"
    file.write_text("".join(f"{json.dumps({**SGLANG, 'completed': done})}\n" for done in (160, 0, 80)))
    assert main(["import", str(file)]) == 0
    said = capsys.readouterr().out
    assert "sglang, 3 results" in said
    assert "#2 ttft.p50" in said
    assert "#1 " not in said
    assert "1 of 3 results have no figures: no request succeeded" in said
    file.write_text(f"{json.dumps(SGLANG)}\n{{broken\n")
    assert main(["import", str(file)]) == 4
    assert "line 2" in capsys.readouterr().err


def test_nan_ends_in_a_sentence_and_not_in_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    file = tmp_path / "nan.json"
    file.write_text('{"completed": 5, "mean_ttft_ms": 50.0, "p99_ttft_ms": NaN}')
    assert main(["import", str(file), "--json"]) == 4
    said = capsys.readouterr().err
    assert "p99_ttft_ms is nan, which is no figure" in " ".join(said.split())
    assert "bug" not in said


def test_the_list_of_plugins_says_what_each_format_does(capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    assert main(["plugins", "--json"]) == 0
    found = {one["name"]: one["directions"] for one in json.loads(capsys.readouterr().out)["formats"]}
    assert found["vllm"] == ["reads", "writes"]
    assert found["guidellm"] == ["reads"]
    assert found["github-action"] == ["writes"]
    assert main(["plugins"]) == 0
    assert "reads and writes" in capsys.readouterr().out
