"""A real llama-server here, asked from another host over real ssh: figures with and without what the way took."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
from bench.cli import main
from bench.environments.environment import environment
from tests.hosts import Net, lan, missing

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(600),
    pytest.mark.skipif((why := missing()) is not None, reason=str(why)),
    pytest.mark.skipif(not environment("llama-cpp").ready, reason="needs `bench engines install llama-cpp`"),
]

# Each way; a first token from there takes twice as much longer.
DELAY_MS = 15.0
SCENARIO = f"""
scenario: from-the-desk
client: {{hosts: [host1], python: "{sys.executable}"}}
model: {{source: smollm2-135m}}
engines: {{llama-cpp: {{engine: llama-cpp, args: {{ctx_size: 512, parallel: 1, threads: 1}}}}}}
matrix: {{quantization: [gguf-q4], warmup: [requests]}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 8, timeout_s: 300}}
# What the neighbours on this machine take is not what is tested here.
design: {{blocks: 1, retries: 0, max_steal: 1.0, max_contention: 1.0}}
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    # The client's clock is a quarter of an hour ahead, as on a board that has no network time.
    with lan(1, delay_ms=DELAY_MS, clocks_s=(900,)) as one:
        yield one


@pytest.fixture
def folder(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a run whose client was on the other host."""
    monkeypatch.setenv("PATH", net.environment["PATH"])
    scenario = tmp_path / "from-the-desk.yaml"
    scenario.write_text(SCENARIO)
    code = main(["run", str(scenario), "--results", str(tmp_path / "results"), "--no-report", "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return Path(json.loads(out)["run"])


def test_the_round_trip_stands_beside_ttft_in_table_report_and_export(
    folder: Path, tmp_path: Path, net: Net, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.Run.open(folder)
    (launch,) = run.all
    assert launch.record.status == "ok", launch.record.reason
    assert launch.record.facts["device_used"] == "cpu"
    p50 = run.summary().set_index("metric")["value"]

    # The measured way is the cable's, and it is what stands between the two figures of a first token.
    assert 2 * DELAY_MS <= p50["round_trip.p50"] < 2 * DELAY_MS + 5
    assert p50["ttft_near.p50"] == pytest.approx(p50["ttft.p50"] - p50["round_trip.p50"], abs=0.01)

    # Without the way it is the engine's own time, by its own clock: less than that it cannot be, and not much more.
    rows = [row for row in launch.requests().to_pylist() if row["stage"] in ("first", "measured")]
    assert [row["error"] for row in rows] == [None] * 8
    assert {row["stamp_source"] for row in rows} == {"kernel"}
    trip = p50["round_trip.p50"]
    for row in rows:
        near = (row["first_token_ns"] - row["sent_ns"]) / 1e6 - trip
        assert row["server_ttft_ms"] - 2 <= near < row["server_ttft_ms"] + 2 * DELAY_MS

    # Its clock is 900 s ahead, and the start of the engine and the token there are put on one clock.
    assert 0 < p50["cold_ttft"] < 120

    assert main(["report", str(folder), "--summary"]) == 0
    table = capsys.readouterr().out
    assert main(["report", str(folder), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(["report", str(folder), "--format", "csv", "-o", str(tmp_path / "figures.csv")]) == 0
    exported = (tmp_path / "figures.csv").read_text()
    print(table, exported, sep="\n")
    for name, metric in (("round trip", "round_trip.p50"), ("TTFT less round trip", "ttft_near.p50")):
        assert name in table
        assert name in page
        assert metric in exported
    assert "The load came from host1" in page
    for text in (table, page, exported):
        assert net.prefix not in text
