"""tegrastats: every recorded line field by field, lines that are broken, and a program that dies."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.emulate.board import CATALOGUE
from bench.probes.context import Context
from bench.probes.listener import Listener
from bench.probes.machine import emulated
from bench.probes.roots import Roots
from bench.probes.tegrastats import Tegrastats, parse
from tests.waiting import PATIENCE_S, until

CORPUS: list[dict[str, Any]] = json.loads(Path("tests/fixtures/tegrastats/lines.json").read_text())


def label(entry: dict[str, Any]) -> str:
    return f"{entry['board']} JetPack {entry['jetpack']} {'root' if entry['root'] else 'user'}"


@pytest.mark.parametrize("entry", CORPUS, ids=label)
def test_a_line_is_read_field_by_field(entry: dict[str, Any]) -> None:
    assert parse(entry["line"]) == pytest.approx(entry["fields"])


def test_the_corpus_covers_every_jetpack_and_both_kinds_of_user() -> None:
    assert {entry["jetpack"] for entry in CORPUS} == {"4", "5", "6", "7"}
    boards = {entry["board"] for entry in CORPUS}
    assert boards >= {"orin-nx", "orin-nano", "agx-orin", "thor"}
    assert {entry["root"] for entry in CORPUS if entry["board"] in ("agx-orin", "thor")} == {True, False}


@pytest.mark.parametrize("entry", CORPUS, ids=label)
def test_a_line_cut_off_anywhere_says_nothing_that_the_whole_line_does_not_say(entry: dict[str, Any]) -> None:
    line, whole = entry["line"], parse(entry["line"])
    for end in range(len(line)):
        # A number may be cut in its middle: only the last token can be wrong, and it lacks its unit then.
        for field, value in parse(line[:end]).items():
            if field.endswith(("_w", "_c")):
                assert value == whole[field], f"{field} after {line[max(0, end - 20) : end]!r}"


def test_order_spacing_and_unknown_tokens_do_not_matter() -> None:
    line = "NEW_THING 7 VDD_IN 5000mW/4000mW\tGR3D_FREQ  30%@[900,800]   tj@50C   RAM 1/2MB FUTURE 8%@9 x@y"
    assert parse(line) == {
        "power.VDD_IN_w": 5.0,
        "gpu_load": 30.0,
        "gpu_clock_mhz": 900.0,
        "temp.tj_c": 50.0,
        "ram_used_mib": 1.0,
        "ram_total_mib": 2.0,
    }


def test_units_of_memory() -> None:
    assert parse("RAM 2/4GB SWAP 512/1024kB")["ram_total_mib"] == 4096
    assert parse("RAM 2/4GB SWAP 512/1024kB")["swap_used_mib"] == 0.5


@given(st.text(max_size=300))
def test_rubbish_never_raises(line: str) -> None:
    parse(line)


@given(st.sampled_from(CORPUS), st.integers(0, 400), st.text(max_size=8))
def test_rubbish_in_the_middle_never_raises(entry: dict[str, Any], at: int, noise: str) -> None:
    parse(entry["line"][:at] + noise + entry["line"][at:])


def board(tmp_path: Path, script: str, model: str = "agx-orin") -> Roots:
    roots = emulated(tmp_path / "board", CATALOGUE[model])
    program = tmp_path / "board/bin/tegrastats"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(stat.S_IRWXU)
    return roots


def settled(probe: Tegrastats, field: str = "power_w") -> Any:
    """The next reading that has something to say."""
    for _ in range(60):
        if readings := probe.read():
            return readings.get(field)
        time.sleep(0.05)
    pytest.fail("tegrastats said nothing")


def test_module_power_of_agx_orin_leaves_out_the_rail_inside_another(tmp_path: Path) -> None:
    line = next(entry["line"] for entry in CORPUS if "VDDQ_VDD2_1V8AO" in entry["line"])
    probe = Tegrastats(Context(board(tmp_path, f"while :; do echo '{line}'; sleep 0.1; done")))
    try:
        assert settled(probe).value == pytest.approx(3.150 + 14.312 + 4.968)
    finally:
        probe.close()


def test_a_program_that_dies_turns_stale_and_half_a_line_is_not_read(tmp_path: Path) -> None:
    script, now = "echo 'RAM 1/2MB tj@50C'; printf 'RAM 9/2MB tj@9'", [0.0]
    probe = Tegrastats(Context(board(tmp_path, script), options={"period_s": 0.1}, clock=lambda: now[0]))
    try:
        assert settled(probe, "temp.tj_c").value == 50.0
        now[0] += 0.5
        assert probe.read() == {}, "it may only be late"
        now[0] += 1.0
        reading = probe.read()["temp.tj_c"]
        assert (reading.value, reading.reason) == (None, "stale")
    finally:
        probe.close()


def test_it_is_started_again_after_it_died(tmp_path: Path) -> None:
    counter = tmp_path / "starts"
    lines = Listener(["/bin/sh", "-c", f"echo x >> {counter}; echo line"], retry_s=0.05)
    until(lambda: (latest := lines.latest()) is not None and latest.number >= 2)
    lines.close()
    assert counter.read_text().count("x") >= 2


def test_the_end_of_a_line_that_is_too_long_is_not_taken_for_a_line(tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f"echo one; echo much-too-long; read x < {go}; echo two; printf half; exec sleep 30"
    lines = Listener(["/bin/sh", "-c", script], longest=8)
    assert lines.first(PATIENCE_S) == "one"
    go.write_text("on\n")
    until(lambda: (latest := lines.latest()) is not None and latest.text != "one")
    second = lines.latest()
    lines.close()
    assert second is not None
    assert (second.number, second.text) == (2, "two")


def test_a_field_that_was_there_and_is_missing_is_partial(tmp_path: Path) -> None:
    script = "echo 'gpu@40C tj@50C'; sleep 0.3; echo 'tj@51C'; sleep 30"
    probe = Tegrastats(Context(board(tmp_path, script)))
    try:
        assert settled(probe, "temp.gpu_c").value == 40.0
        assert settled(probe, "temp.gpu_c").reason == "partial"
    finally:
        probe.close()


def test_without_the_program_it_says_not_found_and_how_to_get_it(tmp_path: Path) -> None:
    probe = Tegrastats(Context(Roots(path=str(tmp_path))))
    assert {reading.reason for reading in probe.read().values()} == {"not_found"}
    assert "tegrastats" in str(probe.hint("power_w", "not_found"))
