"""Each validity rule, on a launch that is sound but for one thing; and on one where that thing cannot be known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench.judge.validity import RULES, judge_folder
from bench.judge.validity import checks as checks_of
from bench.record.documents import parsed
from bench.record.launches import Check, ClientAccount, FieldInfo, LaunchRecord, OracleAnswer, StartAccount, Stop
from bench.record.tables import from_rows
from tests.runs import Behaviour, synthetic_run

S = 1_000_000_000
START, END = 100 * S, 120 * S
Readings = dict[tuple[str, str], Callable[[float], float | str]]

# A machine in order, as functions of the seconds since the spawn at 90 s; a string is a null's reason.
SOUND: Readings = {
    ("host", "cpu_busy_s"): lambda t: 1.0 * t,
    ("host", "cpu_idle_s"): lambda t: 1.0 * t,
    ("host", "cpu_iowait_s"): lambda t: 0.0,
    ("host", "cpu_steal_s"): lambda t: 0.001 * t,
    ("tree", "cpu_s"): lambda t: 0.9 * t,
    ("tree", "run_s"): lambda t: 0.9 * t,
    ("tree", "wait_s"): lambda t: 0.01 * t,
    ("tree", "harness_cpu_s"): lambda t: 0.05 * t,
    ("tree", "stopped"): lambda t: 0.0,
    ("pressure", "swap_in_pages"): lambda t: 7.0,
    ("pressure", "swap_out_pages"): lambda t: 9.0,
    ("pressure", "oom_kills"): lambda t: 2.0,
    ("sampler", "suspended_ms"): lambda t: 0.0,
    ("sampler", "frozen_ms"): lambda t: 0.0,
    ("sampler", "clock_step_ms"): lambda t: 0.001,
    ("sampler", "cpu_s"): lambda t: 0.005 * t,
    ("thermal", "throttle.gpu-throttle-alert"): lambda t: 0.0,
    ("thermal", "oc1_events"): lambda t: 4.0,
    ("thermal", "oc2_events"): lambda t: 0.0,
    ("thermal", "oc3_events"): lambda t: 0.0,
    ("jetson", "power_w"): lambda t: 12.0,
    ("jetson", "gpu_clock_mhz"): lambda t: 918.0,
    ("jetson", "gpu_load"): lambda t: 90.0,
    ("nvml", "gpu0.clock_reasons"): lambda t: 0.0,
    ("nvml", "gpu0.foreign_processes"): lambda t: 0.0,
    ("engine", "ttft_sum_s"): lambda t: 0.098 * max(0.0, min(20.0, t - 10.0)),
    ("engine", "ttft_count"): lambda t: max(0.0, min(20.0, t - 10.0)),
}
ACCOUNT: dict[str, Any] = {
    "complete": True,
    "lost_lines": 0,
    "probes": {"host": {"samples": 300, "missed": 1, "error": None}},
}


def samples(readings: Readings) -> pa.Table:
    rows = []
    for (probe, field), value in readings.items():
        for tick in range(350):
            seconds = tick / 10
            found = value(seconds)
            rows.append(
                {
                    "t_ns": 90 * S + round(seconds * S),
                    "probe": probe,
                    "field": field,
                    "value": None if isinstance(found, str) else float(found),
                    "reason": found if isinstance(found, str) else None,
                }
            )
    return from_rows("samples", rows)


def requests(**changes: Any) -> pa.Table:
    """20 requests of a second each; the changes go into the tenth."""
    rows = []
    for index in range(20):
        sent = START + index * S
        row: dict[str, Any] = {
            "request_id": index,
            "stream": 0,
            "stage": "measured",
            "measured": True,
            "prompt_id": str(index),
            "turn": 0,
            "intended_ns": sent,
            "sent_ns": sent,
            "first_token_ns": sent + S // 10,
            "last_token_ns": sent + S // 2,
            "end_ns": sent + S,
            "chunks": 16,
            "coalesced": 0,
            "prompt_tokens": 15,
            "completion_tokens": 16,
            "cached_tokens": 0,
            "output_tokens_asked": 16,
        }
        rows.append(row | (changes if index == 10 else {}))
    return from_rows("requests", rows)


ANSWER = OracleAnswer("token_id:260", -3.25)


def checks(
    readings: Readings | None = None,
    table: pa.Table | None = None,
    *,
    account: dict[str, Any] | None = None,
    scenario: dict[str, Any] | None = None,
    locked: bool = True,
    stops: Sequence[Stop] = (),
    facts: dict[str, Any] | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> dict[str, Check]:
    record = LaunchRecord("000-00-a", "a", {}, 0, 0)
    record.stamps = {"spawn": 90 * S, "ready": 98 * S}
    record.stops = list(stops)
    record.start = StartAccount("forked", "forked", oracle=ANSWER, reference=ANSWER)
    record.client = parsed(ClientAccount, {"sampler": ACCOUNT if account is None else account or None})
    record.facts = {"device_used": "cuda"} if facts is None else facts
    record.fields = [FieldInfo("jetson", "power_w", "W", "", "module: VDD_IN")]
    found = checks_of(
        record,
        requests() if table is None else table,
        samples(SOUND | (readings or {})),
        scenario=scenario or {},
        fingerprint=fingerprint if fingerprint is not None else {"jetson": {"clocks": {"gpu": locked, "cpu": locked}}},
    )
    return {check.name: check for check in found}


def test_a_sound_launch_passes_every_rule() -> None:
    found = checks()
    elsewhere = {"link", "client_clock", "client_hosts"}
    assert set(found) | {"steadiness", "opening_wave"} | elsewhere == {one.name for one in RULES}, (
        "20 requests are too few to look steady, and the client is on this machine"
    )
    assert {check.status for check in found.values()} == {"ok"}, [c for c in found.values() if c.status != "ok"]


def in_window(value: float, otherwise: float = 0.0) -> Callable[[float], float]:
    return lambda t: value if 15 <= t < 25 else otherwise


AFTER_START = "grows in the window"
BROKEN: list[tuple[str, str, Readings]] = [
    ("gpu_throttle", "violated", {("nvml", "gpu0.clock_reasons"): in_window(0x40)}),
    ("gpu_throttle", "violated", {("nvml", "gpu0.clock_reasons"): in_window(0x8)}),
    ("gpu_throttle", "warning", {("nvml", "gpu0.clock_reasons"): in_window(0x4)}),
    ("gpu_throttle", "ok", {("nvml", "gpu0.clock_reasons"): in_window(0x1)}),
    ("thermal_throttle", "violated", {("thermal", "throttle.gpu-throttle-alert"): in_window(1)}),
    ("thermal_throttle", "ok", {("thermal", "throttle.gpu-throttle-alert"): lambda t: float(t < 5)}),
    ("thermal_throttle", "violated", {("thermal", "throttle.cpufreq-cpu0"): lambda t: 2.0}),
    ("thermal_throttle", "ok", {("thermal", "throttle.hot-surface-alert"): in_window(1)}),
    ("thermal_throttle", "ok", {("thermal", "throttle.lcd"): lambda t: 40.0}),
    ("thermal_throttle", "ok", {("thermal", "throttle.tcc offset"): lambda t: 7.0}),
    ("thermal_throttle", "ok", {("thermal", "throttle.fan"): in_window(1)}),
    ("thermal_throttle", "ok", {("thermal", "throttle.something"): lambda t: 3.0}),
    ("thermal_throttle", "warning", {("thermal", "throttle.something"): in_window(4, 3)}),
    ("clock_below_lock", "violated", {("jetson", "gpu_clock_mhz"): in_window(700, 918)}),
    ("clock_below_lock", "ok", {("jetson", "gpu_clock_mhz"): lambda t: 700.0 if 15 <= t < 15.15 else 918.0}),
    ("over_current", "violated", {("thermal", "oc1_events"): lambda t: 4 + float(t > 20)}),
    ("over_current", "violated", {("thermal", "oc2_events"): lambda t: float(t > 20)}),
    ("over_current", "ok", {("thermal", "oc1_events"): lambda t: 4 + float(t > 5)}),
    ("instant_over_current", "warning", {("thermal", "oc3_events"): lambda t: float(int(t))}),
    ("swap", "violated", {("pressure", "swap_out_pages"): lambda t: 9 + float(t > 20)}),
    ("swap", "ok", {("pressure", "swap_out_pages"): lambda t: 9 + float(t > 5)}),
    ("swap", "unknown", {("pressure", "swap_out_pages"): lambda t: "no_permission"}),
    ("out_of_memory", "violated", {("pressure", "oom_kills"): lambda t: 2 + float(t > 3)}),
    ("foreign_gpu", "violated", {("nvml", "gpu0.foreign_processes"): in_window(1)}),
    ("foreign_gpu", "unknown", {("nvml", "gpu0.foreign_processes"): lambda t: "unsupported"}),
    ("steal", "violated", {("host", "cpu_steal_s"): lambda t: 0.05 * t}),
    ("steal", "unknown", {("host", "cpu_steal_s"): lambda t: "parse_failed"}),
    ("foreign_cpu", "warning", {("tree", "cpu_s"): lambda t: 0.5 * t}),
    ("client_saturation", "violated", {("tree", "harness_cpu_s"): lambda t: 0.8 * t}),
    ("stopped", "violated", {("sampler", "suspended_ms"): lambda t: 5000.0 * (t > 20)}),
    ("stopped", "violated", {("sampler", "suspended_ms"): lambda t: 5000.0 * (t > 3)}),
    ("stopped", "violated", {("sampler", "frozen_ms"): lambda t: 400.0 * (t > 3)}),
    ("stopped", "violated", {("tree", "stopped"): in_window(1)}),
    ("stopped", "unknown", {("sampler", "frozen_ms"): lambda t: "stale"}),
    ("clocks", "warning", {("sampler", "clock_step_ms"): lambda t: 3_600_000.0 * (t > 20)}),
    ("power_coverage", "warning", {("jetson", "power_w"): lambda t: "stale" if 15 <= t < 20 else 12.0}),
    ("server_agrees", "warning", {("engine", "ttft_sum_s"): lambda t: 0.04 * max(0.0, min(20.0, t - 10.0))}),
]


@pytest.mark.parametrize(("late", "status", "kind"), [(0, "ok", "flat"), (20, "warning", "slowdown")])
def test_a_launch_that_throttles_late_is_not_called_steady(late: int, status: str, kind: str) -> None:
    rows = requests().to_pylist()
    table = [
        rows[0] | {"request_id": n, "sent_ns": START + n * S, "first_token_ns": START + n * S + S // 10 + n % 7 * 10**5}
        for n in range(60)
    ]
    for row in table[60 - late :]:
        row["first_token_ns"] += S // 60
    found = checks(table=from_rows("requests", table))["steadiness"]
    assert found.status == status
    assert found.evidence.startswith(kind)


def test_a_process_that_was_stopped_is_named_with_its_time() -> None:
    found = checks(stops=[Stop("engine", 71, 101 * S, 103 * S + S // 2), Stop("load generator", 72)])["stopped"]
    assert found.status == "violated"
    assert found.evidence == (
        "the engine (process 71) was stopped for 2.50 s; the load generator (process 72) was stopped"
    )


def test_a_scenario_may_allow_its_neighbours_more() -> None:
    taken: Readings = {("host", "cpu_steal_s"): lambda t: 0.05 * t}
    found = checks(taken, scenario={"design": {"max_steal": 0.1}})["steal"]
    assert (found.status, found.evidence.endswith("the scenario allows 10%")) == ("ok", True), found


@pytest.mark.parametrize(("name", "status", "change"), BROKEN)
def test_one_thing_wrong_breaks_its_own_rule_and_no_other(name: str, status: str, change: Readings) -> None:
    found = checks(change)
    assert found[name].status == status, found[name]
    others = {check.name for check in found.values() if check.status == "violated"} - {name}
    assert not others
    if status in ("violated", "warning", "unknown"):
        assert found[name].remedy
        assert found[name].evidence
        assert found[name].limit


@pytest.mark.parametrize(
    ("name", "status", "change"),
    [
        ("failed_requests", "violated", {"error_kind": "timeout"}),
        ("tokens", "violated", {"completion_tokens": 12}),
        ("tokens", "unknown", {"completion_tokens": None}),
        ("client_saturation", "violated", {"intended_ns": START + 10 * S - S // 5}),
        ("cache_contamination", "violated", {"cached_tokens": 300, "prompt_tokens": 300}),
        ("cache_contamination", "warning", {"cached_tokens": 10}),
        ("pace", "warning", {"chunks": 1, "last_token_ns": START + 10 * S + S // 10}),
        ("pace", "warning", {"coalesced": 14}),
        ("pace", "ok", {"coalesced": 3}),
        ("counts", "warning", {"completion_tokens": None, "count_reason": "the server counted 0 output tokens"}),
    ],
)
def test_a_request_that_went_wrong_breaks_its_rule(name: str, status: str, change: dict[str, Any]) -> None:
    found = checks(table=requests(**change))
    assert found[name].status == status, found[name]


def test_answers_in_one_piece_and_untrue_counts_are_numbered() -> None:
    whole = checks(table=requests(chunks=1, last_token_ns=START + 10 * S + S // 10))["pace"]
    assert whole.evidence == "1 of 20: the answer came in one piece"
    untrue = checks(table=requests(completion_tokens=None, count_reason="the server counted 0"))["counts"]
    assert untrue.evidence == "1 of 20: the server counted 0"


def test_locked_clocks_are_held_to_their_lock_only_where_they_are_locked() -> None:
    assert "clock_below_lock" not in checks({("jetson", "gpu_clock_mhz"): in_window(300, 918)}, locked=False)


def test_a_workload_that_wants_repeated_prompts_or_free_length_is_not_blamed_for_them() -> None:
    found = checks(
        table=requests(cached_tokens=15, completion_tokens=3),
        scenario={"workload": {"unique": False, "ignore_eos": False}},
    )
    assert not {"cache_contamination", "tokens"} & set(found)


@pytest.mark.parametrize(
    ("account", "status"),
    [
        ({}, "unknown"),
        ({"complete": False}, "warning"),
        (ACCOUNT | {"lost_lines": 3}, "warning"),
        (ACCOUNT | {"probes": {"jetson": {"samples": 100, "missed": 40, "error": None}}}, "warning"),
        (ACCOUNT | {"probes": {"nvml": {"samples": 0, "missed": 0, "error": "NVMLError: GPU is lost"}}}, "warning"),
    ],
)
def test_a_sampler_that_did_not_keep_up_is_named(account: dict[str, Any], status: str) -> None:
    assert checks(account=account)["sampling"].status == status


def test_a_machine_that_told_nothing_is_unknown_and_not_fine() -> None:
    record = LaunchRecord("000-00-a", "a", {}, 0, 0)
    found = {check.name: check.status for check in checks_of(record, requests(), from_rows("samples", []))}
    assert found["swap"] == found["steal"] == found["foreign_cpu"] == found["clocks"] == found["stopped"] == "unknown"
    assert "thermal_throttle" not in found, "a desktop has no such thing"
    assert found["failed_requests"] == "ok"


def test_a_launch_without_requests_is_judged_without_falling_over() -> None:
    record = LaunchRecord("000-00-a", "a", {}, 0, 0, status="failed")
    assert checks_of(record, from_rows("requests", []), from_rows("samples", [])) is not None


def test_the_rule_handed_down_judges_a_folder(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, {"a": Behaviour()}, blocks=1, requests=12)
    (folder,) = (run / "launches").iterdir()
    assert {check.name for check in judge_folder(folder)} >= {"failed_requests", "tokens"}


def test_every_rule_has_a_limit_and_a_remedy() -> None:
    assert len({one.name for one in RULES}) == len(RULES)
    assert all(one.limit and one.remedy for one in RULES)


def test_waiting_for_the_cap_is_not_the_clients_delay_and_opening_a_connection_is_not_either() -> None:
    due = START + 10 * S - S // 5
    held = checks(table=requests(intended_ns=due, released_ns=START + 10 * S))["client_saturation"]
    assert (held.status, "held requests back by up to 200 ms" in held.evidence) == ("ok", True), held
    late = checks(table=requests(intended_ns=due, released_ns=START + 10 * S - S // 10))["client_saturation"]
    assert (late.status, "dispatched 81.00 ms late at p99" in late.evidence) == ("violated", True), late
    opened = checks(table=requests(intended_ns=due, connect_ns=S // 5))["client_saturation"]
    assert opened.status == "ok", opened
