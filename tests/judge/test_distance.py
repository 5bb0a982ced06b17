"""The rules about clients on other hosts, on a launch that is sound but for one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from bench.analyse import way
from bench.analyse.durations import with_durations
from bench.judge import likeness
from bench.judge.validity import checks
from bench.record.launches import Check, ClientAccount, LaunchRecord, RemoteClient, RoundTrips
from bench.record.tables import from_rows

S, MS = 1_000_000_000, 1_000_000
START = 100 * S
# 30 requests 100 ms apart, TTFT 20 ms, 2 of it on the way; a question about the clock every 250 ms.
SOUND = RemoteClient(
    "desk",
    before=RoundTrips([2000] * 99 + [2300]),
    after=RoundTrips([2000] * 100),
    offset_ns=5 * S,
    doubt_ns=400_000,
    moved_ns=1_000,
    doubt_after_ns=500_000,
    apart_s=20.0,
    ways_at_ns=[START + n * S // 4 for n in range(-40, 12)],
    ways_us=[2500] * 52,
    resent=0,
    stopped=False,
    cpu_s=0.2,
    wall_s=3.0,
)


def requests(hosts: int, **changes: Any) -> pa.Table:
    rows = []
    for n in range(30):
        sent = START + n * S // 10
        row: dict[str, Any] = {
            "request_id": n,
            "client": n % hosts,
            "intended_ns": sent,
            "sent_ns": sent,
            "end_ns": sent + 50 * MS,
        }
        row |= {"stream": 0, "stage": "measured", "measured": True, "prompt_id": f"p{n}", "turn": 0, "chunks": 4}
        row |= {"first_token_ns": sent + 20 * MS, "last_token_ns": sent + 50 * MS, "coalesced": 0}
        rows.append(row | (changes if n == 9 else {}))
    return from_rows("requests", rows)


def judged(
    *remotes: RemoteClient, measure: list[str] | None = None, cold_ms: int = 5000, **late: Any
) -> dict[str, Check]:
    record = LaunchRecord("000-00-a", "a", {}, 0, 0, client=ClientAccount(remotes=list(remotes)))
    record.stamps = {"spawn": START - cold_ms * MS, "first_token": START}
    scenario = {"workload": {"arrivals": {"rate": 10.0}}, "measure": measure or ["ttft", "startup"]}
    found = checks(record, requests(max(1, len(remotes)), **late), from_rows("samples", []), scenario=scenario)
    return {check.name: check for check in found if check.name in ("link", "client_clock", "client_hosts")}


def test_of_a_client_on_this_machine_nothing_is_asked() -> None:
    assert judged() == {}


def test_a_sound_client_passes_and_says_what_it_took() -> None:
    found = judged(SOUND)
    assert {check.status for check in found.values()} == {"ok"}
    assert found["link"].evidence == "desk: round trip 2.00 ms, +0.00 ms under load"
    assert found["client_clock"].evidence == "desk's clock is known to ± 0.50 ms"
    assert found["client_hosts"].evidence.startswith("desk: 30 requests, dispatched 0.00 ms late")


@pytest.mark.parametrize(
    ("name", "status", "words", "wrong"),
    [
        ("link", "violated", "at p99 7.00 ms more, limit 2.00", {"before": RoundTrips([2000] * 90 + [9000] * 10)}),
        ("link", "violated", "the link was the bottleneck", {"ways_us": [2500] * 40 + [6000] * 12}),
        ("link", "violated", "5 of 205 handshakes lost a packet", {"after": RoundTrips([2000] * 100, lost=5)}),
        ("link", "violated", "7 packets sent again over 30 requests", {"resent": 7}),
        ("link", "warning", "not timed again afterwards", {"after": None}),
        ("link", "unknown", "was not timed", {"before": None, "after": None}),
        ("client_clock", "violated", "of a cold TTFT of 5000 ms; limit 250.00", {"doubt_after_ns": 300 * MS}),
        ("client_clock", "violated", "± 400.50 ms", {"moved_ns": -400 * MS}),
        ("client_clock", "unknown", "no clock was compared", {"doubt_ns": None}),
        ("client_hosts", "violated", "its load generator was stopped", {"stopped": True}),
        ("client_hosts", "violated", "0.90 of a core", {"cpu_s": 2.7}),
        ("client_hosts", "violated", "silent for 1.5 s", {"ways_us": [2500] * 45 + [1_500_000] + [2500] * 6}),
        ("client_hosts", "unknown", "gave no account", {"stopped": None}),
    ],
)
def test_one_thing_wrong_breaks_its_own_rule_and_no_other(
    name: str, status: str, words: str, wrong: dict[str, Any]
) -> None:
    found = judged(replace(SOUND, **wrong))
    assert found[name].status == status, found[name]
    assert words in found[name].evidence
    assert found[name].limit
    assert found[name].remedy
    assert {check.status for check in found.values() if check.name != name} == {"ok"}


def test_who_asks_for_no_start_needs_no_common_clock() -> None:
    unsure = replace(SOUND, doubt_ns=300 * MS)
    assert judged(unsure, measure=["ttft"])["client_clock"].status == "warning"
    assert judged(unsure, measure=["ttft"], cold_ms=20_000)["client_clock"].status == "ok"


def test_the_arrivals_of_several_hosts_need_one() -> None:
    unsure = replace(SOUND, host="shelf", doubt_ns=11 * MS)
    assert judged(SOUND, unsure)["client_clock"].evidence == (
        "shelf's clock is known to ± 11.00 ms: arrivals of 2 hosts are 100.0 ms apart, limit 10.00"
    )
    assert judged(SOUND, replace(unsure, doubt_ns=9 * MS))["client_clock"].status == "ok"


def test_of_several_hosts_the_one_that_fell_behind_is_named() -> None:
    late = START + 9 * S // 10 + 30 * MS
    found = judged(SOUND, replace(SOUND, host="shelf"), sent_ns=late, first_token_ns=late + 20 * MS)["client_hosts"]
    assert found.status == "violated"
    # The tenth request is the second host's.
    assert found.evidence.startswith("shelf: dispatched ")
    assert "desk" not in found.evidence


def test_the_round_trip_of_the_host_that_asked_is_taken_off() -> None:
    slow = replace(SOUND, host="shelf", before=RoundTrips([5000] * 100), after=RoundTrips([5000] * 100))
    table = with_durations(requests(2), [SOUND, slow])
    assert table["ttft_ms"].to_pylist() == [20.0] * 30
    assert table["round_trip_ms"].to_pylist() == [2.0, 5.0] * 15
    assert table["ttft_near_ms"].to_pylist() == [18.0, 15.0] * 15
    alone = with_durations(from_rows("requests", [{**requests(1).to_pylist()[0], "client": None}]))
    assert alone["ttft_near_ms"].to_pylist() == [None]


def test_a_drift_is_told_where_it_is_more_than_what_is_not_known() -> None:
    assert way.drift_ppm(SOUND) is None
    assert way.drift_ppm(replace(SOUND, moved_ns=2_000_000)) == pytest.approx(100.0)


def test_a_session_with_its_client_elsewhere_is_not_alike_one_with_it_here() -> None:
    here = {"host_class": "cpu", "clients": None}
    there = {"host_class": "cpu", "clients": ["desk", "shelf"]}
    assert likeness.differences(here, there) == ["clients: unknown and 2 on other hosts"]
    assert likeness.digest(here) == likeness.digest({"host_class": "cpu"}), "older sessions keep their digest"
