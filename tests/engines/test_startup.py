"""One table of phases from several sources: the most trusted wins, what nests is nested, the rest is shown."""

from __future__ import annotations

import dataclasses

from bench.engines.engine import LaunchTrace
from bench.engines.startup import gaps, resolve
from bench.record.launches import Phase
from bench.record.schema import FORKED, RESTORED

S = 1_000_000_000


def trace(**stamps: int | None) -> LaunchTrace:
    given = {name: None if at is None else at * S for name, at in stamps.items()}
    return LaunchTrace(given, [])


def rows(phases: list[Phase]) -> dict[str, tuple[float, float]]:
    return {p.name: (p.start_ns / S, p.end_ns / S) for p in phases if p.start_ns is not None and p.end_ns is not None}


WHOLE = {"spawn": 0, "first_output": 2, "port_open": 8, "health": 9, "ready": 10, "warmup_end": 12, "first_token": 13}


def test_our_own_stamps_alone_make_a_table_for_any_engine() -> None:
    found = rows(resolve(trace(**WHOLE), []))
    assert found["process_start"] == (0, 2)
    assert found["first_completion"] == (9, 10)
    assert found["warm_up"] == (10, 12)
    assert found["first_request"] == (12, 13)
    assert found["unattributed"] == (2, 8)


def test_a_missing_stamp_is_a_null_phase_with_a_reason() -> None:
    phases = resolve(trace(**{**WHOLE, "first_output": None}), [])
    phase = next(p for p in phases if p.name == "process_start")
    assert phase.end_ns is None
    assert phase.reason == "partial"


def test_a_launch_that_was_never_spawned_has_no_times() -> None:
    assert rows(resolve(LaunchTrace({}, []), [])) == {}


def test_of_two_sources_the_more_trusted_is_kept() -> None:
    told = [Phase("weights", 3 * S, 5 * S, "log"), Phase("weights", 3 * S, 4 * S, "span")]
    assert rows(resolve(trace(**WHOLE), told))["weights"] == (3, 4)


def test_a_null_of_the_trusted_source_does_not_hide_the_other() -> None:
    told = [Phase("weights", 3 * S, 5 * S, "log"), Phase("weights", None, None, "span", reason="not_found")]
    assert rows(resolve(trace(**WHOLE), told))["weights"] == (3, 5)


def test_nested_phases_name_the_smallest_one_around_them() -> None:
    told = [
        Phase("engine", 2 * S, 8 * S, "span"),
        Phase("load", 3 * S, 6 * S, "span"),
        Phase("read", 4 * S, 5 * S, "span"),
    ]
    parents = {p.name: p.parent for p in resolve(trace(**WHOLE), told)}
    assert parents["read"] == "load"
    assert parents["load"] == "engine"
    assert parents["engine"] is None


def test_a_phase_that_sticks_out_of_the_launch_is_clipped() -> None:
    told = [Phase("early", -5 * S, 3 * S, "log"), Phase("late", 12 * S, 50 * S, "span")]
    found = rows(resolve(trace(**WHOLE), told))
    assert found["early"] == (0, 3)
    assert found["late"] == (12, 13)


def test_a_phase_wholly_outside_the_launch_is_left_out() -> None:
    told = [Phase("shutdown", 20 * S, 21 * S, "span")]
    assert "shutdown" not in rows(resolve(trace(**WHOLE), told))


def test_a_backward_phase_of_a_clock_that_was_set_is_not_a_negative_duration() -> None:
    told = [Phase("weights", 6 * S, 4 * S, "span")]
    phases = resolve(trace(**WHOLE), told)
    phase = next(p for p in phases if p.name == "weights")
    assert (phase.start_ns, phase.end_ns, phase.reason) == (None, None, "parse_failed")


def test_gaps_are_what_no_phase_covers() -> None:
    told = [Phase("a", 1 * S, 3 * S, "log"), Phase("b", 2 * S, 4 * S, "log"), Phase("c", 6 * S, 7 * S, "log")]
    assert list(gaps(told, 0, 10 * S)) == [(0, 1 * S), (4 * S, 6 * S), (7 * S, 10 * S)]


def test_the_imports_of_a_forked_launch_happened_elsewhere_and_nothing_else_did() -> None:
    told = [
        Phase("imports", 2 * S, 5 * S, "log"),
        Phase("import_torch", 2 * S, 3 * S, "worker"),
        Phase("weights", 5 * S, 6 * S, "log"),
    ]
    forked = resolve(dataclasses.replace(trace(**WHOLE), forked=True), told)
    assert [(p.name, p.reason) for p in forked if p.start_ns is None] == [("imports", FORKED), ("import_torch", FORKED)]
    assert rows(forked)["weights"] == (5, 6)
    assert {"imports", "import_torch"} <= rows(resolve(trace(**WHOLE), told)).keys()


def test_what_a_restored_engine_did_before_its_image_has_no_time_and_restoring_has() -> None:
    stamps = {name: moment + 20 for name, moment in WHOLE.items()} | {"restored": 21}
    told = [
        Phase("weights", None, None, "log", reason="not_found"),
        # Of the time before the image, as its worker's events tell it: stamped with nothing.
        Phase("import_torch", 0, 0, "worker"),
        Phase("interpreter", 20 * S, 0, "worker"),
    ]
    phases = resolve(dataclasses.replace(trace(**stamps), restored=True), told)
    absent = {p.name: p.reason for p in phases if p.start_ns is None}
    assert {absent[name] for name in ("weights", "import_torch", "interpreter")} == {RESTORED}
    assert [(p.start_ns, p.end_ns) for p in phases if p.name == "restore"] == [(20 * S, 21 * S)]
    assert "restore" not in {p.name for p in resolve(trace(**WHOLE), [])}
