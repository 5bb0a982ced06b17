"""What a way adds is told in milliseconds, with the interval that blocks give it; what cannot be told has a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.judge.added import STRAIGHT, added, chunks_per_read, ways
from bench.report import markdown
from bench.report.sections.layers import sentences
from tests.runs import Behaviour, synthetic_run

FAILED = ("failed", "not_ready", "the proxy did not start")


def run_of(folder: Path, *, blocks: int = 4, **others: Behaviour) -> Run:
    behaviours = {STRAIGHT: Behaviour(ttft=50, tpot=5, jitter=0.02, launch_sd=0.01), **others}
    return Run.open(synthetic_run(folder, behaviours, blocks=blocks))


def test_a_known_delay_lies_in_its_interval_and_is_told_within_a_millisecond(tmp_path: Path) -> None:
    run = run_of(tmp_path, gateway=Behaviour(ttft=55, tpot=7, jitter=0.02, launch_sd=0.01))
    first, between, whole = added(run)
    assert ways(run) == ("gateway",)
    # 16 tokens: 15 gaps of 2 ms more, and 5 ms at the beginning.
    for one, truth in ((first, 5.0), (between, 2.0), (whole, 35.0)):
        assert one.interval is not None
        assert one.interval.low <= truth <= one.interval.high
        assert one.interval.estimate == pytest.approx(truth, abs=1.0)
    assert first.straight == pytest.approx(50, abs=1)
    assert first.blocks == 4


def test_a_way_that_failed_has_its_reason_and_no_figure(tmp_path: Path) -> None:
    run = run_of(tmp_path, gateway=Behaviour(status=dict.fromkeys(range(4), FAILED)))
    assert {(one.interval, one.through, one.reason) for one in added(run)} == {(None, None, "the proxy did not start")}
    assert json.dumps([one.to_json() for one in added(run)]).count('"added_ms": null') == 3


def test_one_block_has_no_interval(tmp_path: Path) -> None:
    run = run_of(tmp_path, blocks=1, gateway=Behaviour(ttft=55))
    assert [one.interval for one in added(run)] == [None] * 3
    assert "no noise to judge by" in added(run)[0].reason


def test_a_run_without_a_straight_way_has_no_layers(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour(), "b": Behaviour()}))
    assert added(run) == ()
    assert "in front of the engine" not in markdown.render([run])


def test_a_stream_that_nobody_collects_has_one_chunk_per_read(tmp_path: Path) -> None:
    assert chunks_per_read(run_of(tmp_path, gateway=Behaviour())) == {STRAIGHT: 1.0, "gateway": 1.0}


def test_the_report_says_what_each_way_adds(tmp_path: Path) -> None:
    run = run_of(tmp_path, gateway=Behaviour(ttft=55, tpot=7, jitter=0.02, launch_sd=0.01))
    page = markdown.render([run])
    assert "What stands in front of the engine" in page
    (line,) = sentences(added(run))
    assert line.startswith("gateway: to the first token +")
    assert "between tokens +2" in line
