"""Limits from a run: its own figures, with the evidence in words, and what a run cannot say left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import Run
from bench.errors import UsageError
from bench.service import ready
from bench.service.limits import ALARM, from_run, of_run
from bench.service.watchlist import Bound, Limits, limited, parse
from tests.runs import Behaviour, synthetic_run


def test_the_latencys_limit_is_the_gates_and_the_throughputs_is_bounded_from_below(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour(), "b": Behaviour()}))
    limits, evidence = of_run(run, "a")
    within = ready.of_run(run, "a").within_ms
    assert limits.latency_ms == Bound(warning=within, alarm=ALARM * within)
    rows = run.requests[(run.requests["variant"] == "a") & run.requests["measured"]]
    slowest = rows["tpot_ms"].dropna().astype(float).max()
    assert limits.throughput_tokens_per_s is not None
    assert limits.throughput_tokens_per_s.warning == pytest.approx(1000 / slowest, rel=0.2)
    assert limits.first_after_idle_ms is None
    assert limits.processor_cores is None
    assert evidence[0].startswith("latency: ")


def test_it_is_worked_out_in_a_process_of_its_own_and_faults_come_through(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path, {"a": Behaviour(), "b": Behaviour()})
    assert from_run(folder, "a") == of_run(Run.open(folder), "a")
    with pytest.raises(UsageError, match="2 variants") as caught:
        from_run(folder, None)
    assert caught.value.hint == "name one: --variant"


def test_an_endpoints_own_limit_goes_before_the_runs() -> None:
    watched = parse("watch: w\nendpoints: {e: {url: 'http://h', limits: {latency_ms: {warning: 5, alarm: 6}}}}\n")
    other = Limits(latency_ms=Bound(warning=50, alarm=60), memory_mib=Bound(warning=1, alarm=2))
    found = limited(watched, other).endpoints["e"].limits
    assert found.latency_ms == Bound(warning=5, alarm=6)
    assert found.memory_mib == Bound(warning=1, alarm=2)
