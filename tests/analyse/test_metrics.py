"""Metrics: recorded stamps in, the documented figures out; null where they cannot be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analyse.durations import gaps_ms, with_durations
from bench.analyse.metrics import FAMILIES, METRICS, metric, rates_of, samples_of, stamps_of, statistics_of
from bench.errors import UnknownName
from bench.record import tables
from bench.record.launches import LaunchRecord
from bench.scenario.measures import NEEDS

MS = 1_000_000
# Beyond the 104 days of uptime after which a stamp no longer fits a float64.
T0 = 10**17 + 1


def request(number: int = 0, sent_ms: float = 0.0, **changes: Any) -> dict[str, Any]:
    sent = T0 + int(sent_ms * MS)
    return {
        "request_id": number,
        "stream": 0,
        "stage": "measured",
        "measured": True,
        "prompt_id": "p",
        "turn": 0,
        "intended_ns": sent - 2 * MS,
        "sent_ns": sent,
        "connect_ns": None,
        "headers_ns": sent + 40 * MS,
        "first_chunk_ns": sent + 45 * MS,
        "first_token_ns": sent + 50 * MS,
        "first_answer_ns": sent + 70 * MS,
        "last_token_ns": sent + 100 * MS,
        "end_ns": sent + 101 * MS,
        "stamp_source": "kernel",
        "chunks": 6,
        "coalesced": 0,
        "prompt_tokens": 20,
        "completion_tokens": 11,
        "cached_tokens": 5,
    } | changes


def table(*rows: dict[str, Any]) -> Any:
    return with_durations(tables.from_rows("requests", list(rows)))


def test_durations_are_what_the_definitions_say_to_the_nanosecond() -> None:
    row = table(request(connect_ns=300_000, first_token_ns=T0 + 50 * MS + 1)).to_pylist()[0]
    expected = {
        "ttfb_ms": 40.0,
        "ttfr_ms": 45.0,
        "ttft_ms": 50.000001,
        "ttfot_ms": 70.0,
        "ttft_scheduled_ms": 52.000001,
        "dispatch_delay_ms": 2.0,
        "e2el_ms": 100.0,
        "connect_ms": 0.3,
        "tpot_ms": 4.9999999,
        "ntpot_ms": 100 / 11,
        "tokens_per_chunk": 11 / 6,
        "ok": True,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_one_token_has_no_pace_and_an_unknown_count_gives_none_either() -> None:
    one, none, unknown = table(
        request(completion_tokens=1), request(completion_tokens=0, chunks=0), request(completion_tokens=None)
    ).to_pylist()
    assert (one["tpot_ms"], one["ntpot_ms"]) == (None, 100.0)
    assert (none["tpot_ms"], none["ntpot_ms"], none["tokens_per_chunk"]) == (None, None, None)
    assert (unknown["tpot_ms"], unknown["tokens_per_chunk"], unknown["e2el_ms"]) == (None, None, 100.0)


def test_a_request_that_was_never_sent_has_null_durations_not_zero() -> None:
    row = table(
        request(sent_ns=None, headers_ns=None, first_chunk_ns=None, first_token_ns=None, error_kind="connect")
    ).to_pylist()[0]
    assert row["ttft_ms"] is None
    assert row["dispatch_delay_ms"] is None
    assert row["ok"] is False


def chunks(
    owner: list[int], user_ms: list[float], kernel_ms: list[float | None], kinds: list[str] | None = None
) -> Any:
    size = len(owner)
    return tables.from_columns(
        "chunks",
        {
            "request_id": owner,
            "seq": list(range(size)),
            "user_ns": [T0 + int(t * MS) for t in user_ms],
            "kernel_ns": [None if t is None else T0 + int(t * MS) for t in kernel_ms],
            "read": list(range(size)),
            "kind": kinds or ["content"] * size,
        },
    )


def test_gaps_stay_within_a_stream_and_count_tokens_only() -> None:
    found = gaps_ms(
        chunks(
            [0, 1, 0, 0, 1, 0, 0],
            [9.0] * 7,
            [0.0, 100.0, 1.0, 3.0, 150.0, 7.0, 8.0],
            ["reasoning", "content", "role", "content", "content", "content", "usage"],
        ),
        table(request(0), request(1)),
    )
    assert found.tolist() == [3.0, 4.0, 50.0]


def test_gaps_use_the_clock_that_the_request_was_stamped_with() -> None:
    both = chunks([0, 0, 1, 1], [0.0, 10.0, 0.0, 10.0], [0.0, 9.0, 0.0, 9.0])
    found = gaps_ms(both, table(request(0), request(1, stamp_source="user")))
    assert found.tolist() == [9.0, 10.0]


def test_gaps_leave_out_warm_up_and_failures() -> None:
    rows = table(request(0, stage="warmup", measured=False), request(1, error_kind="closed"), request(2))
    assert gaps_ms(chunks([0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 0, 3], [None] * 6), rows).tolist() == [3.0]
    assert gaps_ms(chunks([], [], []), rows).tolist() == []


def test_rates_run_from_the_first_steady_send_to_the_last_completion() -> None:
    rows = table(
        request(0, 0, stage="first", measured=False),
        request(1, 1000),
        request(2, 1899),
        request(3, 1500, error_kind="http"),
    )
    found = rates_of(rows, {"ttft": 60, "tpot": 5.5})
    assert found == pytest.approx(
        {
            "first_ttft": 50.0,
            "output_throughput": 22.0,
            "total_throughput": 62.0,
            "request_throughput": 2.0,
            "goodput": 2.0,
            "slo_attainment": 2 / 3,
            "error_rate": 1 / 3,
            "cached_tokens": 0.25,
        }
    )


def test_an_unknown_token_count_makes_throughput_unknown_rather_than_low() -> None:
    found = rates_of(table(request(0), request(1, 200, completion_tokens=None)), {"tpot": 100})
    assert found["output_throughput"] is None
    assert found["goodput"] is None
    assert found["request_throughput"] is not None


def test_without_limits_there_is_no_goodput_and_without_requests_there_is_nothing() -> None:
    assert rates_of(table(request()), {})["goodput"] is None
    assert set(rates_of(table(), {"ttft": 1}).values()) == {None}


def test_a_single_token_meets_any_pace_and_a_late_one_none() -> None:
    rows = table(request(0, completion_tokens=1), request(1, 200, first_token_ns=T0 + 299 * MS))
    assert rates_of(rows, {"ttft": 60, "tpot": 1})["slo_attainment"] == 0.5


def test_a_launch_gives_no_tail_that_its_requests_do_not_carry() -> None:
    found = statistics_of({"ttft": np.arange(71.0)})
    assert found["ttft.p50"] == 35.0
    assert found["ttft.p90"] == 63.0
    assert found["ttft.p95"] is None
    assert statistics_of({"ttft": np.arange(72.0)})["ttft.p95"] is not None
    assert found["tpot.p50"] is None
    assert set(found) == set(METRICS)


def test_mixed_prompt_lengths_are_told_apart() -> None:
    rows = table(request(0, bucket=15), request(1, bucket=512, first_token_ns=T0 + 90 * MS))
    samples = samples_of(rows, np.empty(0))
    assert samples["ttft[15]"].tolist() == [50.0]
    assert samples["ttft[512]"].tolist() == [90.0]
    assert "ttft[15]" not in samples_of(table(request(0, bucket=15)), np.empty(0))


def test_launch_stamps_give_seconds_and_a_missing_stamp_gives_null() -> None:
    record = LaunchRecord("id", "v", {}, 0, 0, stamps={"spawn": T0, "ready": T0 + 2_500_000_000, "first_token": None})
    assert stamps_of(record) == {"cold_ttft": None, "startup": 2.5, "warmup": None}


def test_a_strategy_that_asks_for_nothing_takes_no_time() -> None:
    # The workload's first request makes the launch ready, which is after the strategy had its say.
    record = LaunchRecord("id", "v", {}, 0, 0, stamps={"spawn": T0, "warmup_end": T0 + MS, "ready": T0 + 9 * MS})
    assert stamps_of(record)["warmup"] == 0.0


def test_metrics_are_found_by_name_by_family_and_by_prompt_length() -> None:
    assert metric("ttft") == METRICS["ttft.p50"]
    assert metric("output_throughput").direction == "higher"
    assert metric("ttft.p95").needs == 72
    assert metric("ttft[128].p90").title == "TTFT (128 tokens) p90"
    for wrong in ("tfft.p50", "ttft.p97", "tpot[3].p50", "ttft[0x].p50"):
        with pytest.raises(UnknownName, match="no metric is called"):
            metric(wrong)


def test_every_metric_says_what_it_is() -> None:
    assert all(item.doc and item.title for item in METRICS.values())
    assert {item.family for item in METRICS.values() if item.kind == "quantile"} == set(FAMILIES)


def test_the_names_that_a_scenario_may_gate_are_metrics() -> None:
    assert {metric(name).id for name in NEEDS} == set(METRICS)


def test_every_metric_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    launch = {item.id for item in METRICS.values() if item.kind == "launch"}
    assert not {name for name in {*FAMILIES, *launch} if f"`{name}`" not in manual}


def test_the_wait_for_the_cap_and_the_clients_own_delay_are_two_quantities() -> None:
    (row,) = table(
        request(intended_ns=T0, released_ns=T0 + 70 * MS, sent_ns=T0 + 73 * MS, connect_ns=2 * MS)
    ).to_pylist()
    assert (row["dispatch_delay_ms"], row["cap_delay_ms"], row["client_delay_ms"]) == (73.0, 70.0, 1.0)
