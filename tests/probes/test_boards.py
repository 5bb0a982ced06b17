"""Emulated boards through the code that reads real ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bench.emulate.board import CATALOGUE, find
from bench.emulate.board.animate import Animation, Fault
from bench.emulate.board.files import rail_files
from bench.errors import UnknownName, UsageError
from bench.plugins import load
from bench.probes.boards import identify, jetpack, l4t
from bench.probes.context import Context
from bench.probes.fingerprint import fingerprint
from bench.probes.jetson import Jetson, rails, total_power
from bench.probes.machine import emulated
from bench.probes.probe import Reading
from bench.probes.roots import Roots
from bench.probes.sampler import suitable
from bench.probes.tegrastats import parse
from bench.probes.thermal import Thermal


def alive(
    tmp_path: Path, name: str, load_share: float = 0.5, *faults: str, seconds: float = 2.0
) -> tuple[Roots, Animation]:
    """A board that has run for a while at a constant load."""
    model = find(name)
    roots = emulated(tmp_path, model)
    board = Animation(tmp_path, model, load=lambda at: load_share, faults=[Fault.parse(words) for words in faults])
    for _ in range(round(seconds / 0.1)):
        board.step(0.1)
    return roots, board


def read(probe: str, roots: Roots) -> dict[str, Reading]:
    return dict(load("probes", probe)(Context(roots)).read())


@pytest.mark.parametrize("name", CATALOGUE)
def test_power_of_every_board_is_what_its_rails_were_given(tmp_path: Path, name: str) -> None:
    roots, board = alive(tmp_path, name)
    readings = read("jetson", roots)
    # One step of the sensor per rail: 8 mA at the rail's voltage.
    assert readings["power_w"].value == pytest.approx(board.watts, abs=0.5)
    assert readings["gpu_load"].value == pytest.approx(50.0, abs=1.0)
    assert readings["gpu_clock_mhz"].value == pytest.approx(board.gpu_hz / 1e6, rel=1e-3)


@pytest.mark.parametrize("name", CATALOGUE)
def test_sysfs_and_tegrastats_tell_the_same_story(tmp_path: Path, name: str) -> None:
    roots, board = alive(tmp_path, name)
    sysfs, line = read("jetson", roots), parse(board.line())
    for field in (field for field in line if field.startswith("power.") and field in sysfs):
        assert sysfs[field].value == pytest.approx(line[field], abs=0.2), field
    assert line["gpu_clock_mhz"] == pytest.approx(sysfs["gpu_clock_mhz"].value, abs=1.0)


def test_agx_orin_is_not_counted_twice(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "agx-orin", 1.0)
    readings = read("jetson", roots)
    every = sum(reading.value or 0.0 for field, reading in readings.items() if field.startswith("power."))
    inside = readings["power.VDDQ_VDD2_1V8AO_w"].value
    assert inside is not None
    assert inside > 1.0
    assert readings["power_w"].value == pytest.approx(every - inside)
    assert identify(roots).board.scope == "module: VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"  # type: ignore[union-attr]  # it is one


def test_an_unconnected_channel_and_the_shunt_voltages_are_no_rails(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "agx-orin")
    labels = [rail.label for rail in rails(roots)]
    assert labels == ["VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"]


def test_scopes_differ_between_boards_so_that_nobody_compares_them() -> None:
    scopes = {model.key: set() for model in CATALOGUE.values()}  # type: dict[str, set[str]]
    from bench.probes.boards import BOARDS

    for board in BOARDS:
        scopes[board.key].add(board.scope)
    assert scopes["orin-nx"] == scopes["orin-nano"] == {"module: VDD_IN"}
    assert scopes["thor"] == {"module: VIN"}


def test_on_an_unknown_board_nothing_is_added_up(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "agx-orin")
    (tmp_path / "proc/device-tree/compatible").write_text("acme,board\0nvidia,tegra234\0")
    assert read("jetson", roots)["power_w"].reason == "unsupported"


def test_on_an_unknown_board_with_an_input_rail_that_one_counts(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "xavier-nx@4")
    probe = Jetson(Context(roots))
    assert probe.read()["power_w"].value == pytest.approx(board.watts, abs=0.1)
    assert probe.fields[0].scope == "input of an unknown board: VDD_IN"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orin-nx", ("jetson-orin-nx-16gb-emulated", "6.2", "MAXN_SUPER")),
        ("orin-nx@5", ("jetson-orin-nx-16gb-emulated", "5.1.2", "MAXN")),
        ("orin-nx@7", ("jetson-orin-nx-16gb-emulated", "7.2", "MAXN_SUPER")),
        ("orin-nano", ("jetson-orin-nano-8gb-emulated", "6.2", "15W")),
        ("agx-orin", ("jetson-agx-orin-64gb-emulated", "6.2", "MAXN")),
        ("thor", ("jetson-agx-thor-128gb-emulated", "7.0", "MAXN")),
    ],
)
def test_a_board_says_who_it_is(tmp_path: Path, name: str, expected: tuple[str, str, str]) -> None:
    roots, _ = alive(tmp_path, name, seconds=0.1)
    found = fingerprint(roots)
    assert (found["host_class"], found["jetson"]["jetpack"], found["jetson"]["power_mode"]) == expected
    assert found["memory"]["unified"] is True
    assert found["jetson"]["clocks_locked"] is False
    assert found["cpu"]["threads"] == find(name).cores


@pytest.mark.parametrize(
    ("release", "version"),
    [("36.4.3", "6.2"), ("36.4.9", "6.1"), ("36.9", "6"), ("35.4.1", "5.1.2"), ("32.7.1", "4.6.1"), ("99.1", None)],
)
def test_jetpack_by_release(release: str, version: str | None) -> None:
    assert jetpack(release) == version


def test_the_release_file_as_it_stands_on_boards(tmp_path: Path) -> None:
    file = tmp_path / "etc/nv_tegra_release"
    file.parent.mkdir()
    file.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n")
    assert l4t(Roots(root=str(tmp_path))) == "36.4.3"


def test_zones_that_are_off_are_null_and_the_others_are_not(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "orin-nx")
    readings = read("thermal", roots)
    assert readings["temp.tj_c"].value == pytest.approx(board.temp_c, abs=0.5)
    assert {zone: readings[f"temp.{zone}_c"].reason for zone in ("cv0", "cv1", "cv2")} == dict.fromkeys(
        ("cv0", "cv1", "cv2"), "unsupported"
    )


def test_a_fan_is_no_throttle(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "orin-nx")
    names = [info.field for info in Thermal(Context(roots)).fields if info.field.startswith("throttle")]
    assert names
    assert not any("fan" in name for name in names)


def test_heat_makes_the_board_throttle_and_the_probes_see_it(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "orin-nx", 1.0, "hot@0+60", seconds=30.0)
    readings = read("thermal", roots)
    assert board.throttle > 0
    assert max(reading.value or 0 for field, reading in readings.items() if field.startswith("throttle.")) > 0
    assert (read("jetson", roots)["gpu_clock_mhz"].value or 0) < find("orin-nx").gpu_hz[1] / 1e6


def test_over_current_events_are_counted_by_kind(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "orin-nx", 1.0, "over-current@0+2")
    readings = read("thermal", roots)
    assert readings["oc1_events"].value
    assert readings["oc2_events"].value
    assert readings["oc3_events"].value, "these come with full load alone"


def test_a_rail_that_vanishes_is_stale_and_comes_back(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "orin-nx", 0.5, "rail@3+2")
    probe = Jetson(Context(roots))
    assert probe.read()["power_w"].value is not None
    seen = []
    for _ in range(60):
        board.step(0.1)
        seen.append(probe.read())
    power = [readings["power_w"] for readings in seen]
    gone = [number for number, reading in enumerate(power) if reading.reason == "stale"]
    assert gone == list(range(gone[0], gone[-1] + 1))
    assert 8 <= len(gone) <= 32, "two seconds, noticed within one"
    assert power[0].value is not None
    assert power[-1].value is not None
    assert all(readings["gpu_load"].value is not None for readings in seen), "the rest goes on"


def test_one_missing_rail_of_three_is_partial_and_not_a_smaller_total(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "agx-orin")
    probe = Jetson(Context(roots))
    assert probe.read()["power_w"].value is not None
    next(volts for rail, volts, _ in rail_files(board.model, board.sys) if rail.label == "VDD_CPU_CV").unlink()
    assert "partial" in [probe.read()["power_w"].reason for _ in range(10)], "noticed within a second"
    assert total_power({"A": Reading(1.0)}, ("A", "B")).reason == "partial"


def test_rubbish_in_a_sensor_file_is_no_number(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "orin-nx", 0.5, "rubbish@0+9")
    assert read("thermal", roots)["temp.cpu_c"].reason == "parse_failed"


def test_memory_clock_needs_root_and_is_there_for_it(tmp_path: Path) -> None:
    roots = emulated(tmp_path / "user", find("orin-nx"))
    assert read("jetson", roots)["emc_clock_mhz"].value is None
    roots = emulated(tmp_path / "root", find("orin-nx"), privileged=True)
    assert read("jetson", roots)["emc_clock_mhz"].value == 3199.0


def test_an_emulated_board_never_touches_this_machines_sensors(tmp_path: Path) -> None:
    roots, _ = alive(tmp_path, "orin-nx", seconds=0.1)
    assert all(str(path).startswith(str(tmp_path)) for path in (roots.sys, roots.proc, roots.root))
    assert roots.which("ls") is None, "only the board's own tools are found"


def test_which_probes_fit(tmp_path: Path) -> None:
    assert "nvml" not in suitable(alive(tmp_path / "a", "orin-nx", seconds=0.1)[0]), (
        "it starts there and supports nothing"
    )
    assert "nvml" in suitable(alive(tmp_path / "b", "thor", seconds=0.1)[0])
    assert "jetson" not in suitable(Roots(sys=str(tmp_path / "none")))


def test_an_unknown_board_or_fault_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean orin-nx"):
        find("orin-nz")
    with pytest.raises(UsageError, match="no such fault"):
        Fault.parse("flood@3")


def test_a_number_is_never_read_while_it_is_half_written(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "orin-nx")
    probe = Jetson(Context(roots))
    for index in range(300):
        board.step(0.1 if index % 2 else 3.0)
        assert not [field for field, reading in probe.read().items() if reading.reason == "parse_failed"]


def test_stand_in_tools_speak_as_the_real_ones(tmp_path: Path) -> None:
    roots, board = alive(tmp_path, "agx-orin", seconds=1.0)
    assert roots.output("nvpmodel", "-q") == "NV Power Mode: MAXN\n0\n"
    assert re.findall(r"ID=(\d) NAME=(\S+)", roots.output("nvpmodel", "-p", "--verbose") or "")[2] == ("2", "MODE_30W")
    assert board.line().count("mW/") == len(board.model.rails)
    assert os.access(Path(str(roots.path)) / "tegrastats", os.X_OK)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_case_hot_to_the_touch_a_dimmed_screen_and_a_fan_slow_nothing_on_any_board(tmp_path: Path, name: str) -> None:
    roots, board = alive(tmp_path, name)
    # Past the surface's warning, and below the temperature at which clocks are cut.
    board.temp_c = board.model.surface_c + 10
    for _ in range(5):
        board.step(0.1)
    devices = [folder.parent for folder in roots.in_sys("class/thermal").glob("cooling_device*/type")]
    at_work = {(d / "type").read_text().strip() for d in devices if int((d / "cur_state").read_text()) > 0}
    assert {"hot-surface-alert", "LCD", "TCC Offset", "Fan"} <= at_work
    assert board.throttle == 0
    states = {field: reading.value for field, reading in read("thermal", roots).items() if "throttle." in field}
    assert set(states.values()) == {0.0}
    assert {"throttle.gpu-throttle-alert", f"throttle.devfreq-{board.model.gpu_node.lower()}"} <= states.keys()
