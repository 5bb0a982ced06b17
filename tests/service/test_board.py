"""What the monitor's own machine says of itself: hot, drawing power, slowing down; silent sensors leave no figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bench.emulate.board import find
from bench.emulate.board.animate import Animation, Fault
from bench.probes.machine import emulated
from bench.probes.probe import Reading
from bench.probes.roots import Roots
from bench.service.board import STALE_S, BoardSensors, samples

THROTTLED, POWER, HEAT = (
    "firsttoken_board_throttled",
    "firsttoken_board_power_watts",
    "firsttoken_board_temperature_celsius",
)


class Emulated:
    """An Orin NX that is busy, with a clock that the test turns."""

    def __init__(self, folder: Path, *faults: Fault) -> None:
        board = find("orin-nx")
        roots = emulated(folder, board)
        self.animation = Animation(folder, board, load=lambda _: 1.0, faults=faults)
        self.registry, self.now = CollectorRegistry(), 1000.0
        self.sensors = BoardSensors(self.registry, roots, lambda: self.now)

    def after(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.animation.step(1.0)
        self.sensors.read()
        self.sensors.show()

    def series(self, name: str) -> dict[str, float]:
        families = [family for family in self.registry.collect() if family.name == name]
        return {next(iter(one.labels.values())): one.value for family in families for one in family.samples}


def test_a_hot_board_is_seen_to_slow_itself_down_and_to_recover(tmp_path: Path) -> None:
    board = Emulated(tmp_path, Fault("hot", 20.0, 120.0))
    board.after(10)
    cool = board.series(HEAT)
    assert set(board.series(THROTTLED).values()) == {0.0}
    assert 5.0 < board.series(POWER)["module"] < 45.0
    board.after(100)
    assert max(board.series(THROTTLED).values()) == 1.0
    assert max(board.series(HEAT).values()) == pytest.approx(board.animation.temp_c, abs=2.0)
    assert max(board.series(HEAT).values()) > max(cool.values()) + 20
    board.after(600)
    assert set(board.series(THROTTLED).values()) == {0.0}


def test_a_sensor_that_falls_silent_leaves_no_figure(tmp_path: Path) -> None:
    board = Emulated(tmp_path, Fault("rail", 3.0, 100.0))
    board.after(2)
    assert "module" in board.series(POWER)
    # A file that is kept open is looked for again at every tenth reading.
    for _ in range(11):
        board.after(1)
    assert "module" not in board.series(POWER)
    assert board.series(HEAT)
    # A reading that hangs, and with it all that was read before it.
    board.now += STALE_S
    board.sensors.show()
    assert board.series(HEAT) == board.series(THROTTLED) == {}


def test_a_gpu_says_by_its_bits_what_slows_it_and_a_power_limit_is_a_setting() -> None:
    readings = {"gpu0.clock_reasons": Reading(0x4 + 0x40), "gpu0.power_w": Reading(71.5), "gpu0.temp_c": Reading(84.0)}
    found = {(name, label): value for name, label, value in samples(readings)}
    assert found == {
        (THROTTLED, "gpu0 hardware slowdown"): 0.0,
        (THROTTLED, "gpu0 software thermal"): 0.0,
        (THROTTLED, "gpu0 hardware thermal"): 1.0,
        (THROTTLED, "gpu0 power brake"): 0.0,
        (POWER, "gpu0"): 71.5,
        (HEAT, "gpu0"): 84.0,
    }


def test_a_fan_at_work_slows_nothing_and_a_machine_without_sensors_says_nothing(tmp_path: Path) -> None:
    readings = {"throttle.pwm-fan": Reading(3.0), "throttle.cpufreq-cpu0": Reading(2.0), "fan_pwm": Reading(50.0)}
    assert list(samples(readings)) == [(THROTTLED, "cpufreq-cpu0", 1.0)]
    registry = CollectorRegistry()
    bare = BoardSensors(registry, Roots(sys=str(tmp_path / "sys"), proc=str(tmp_path / "proc"), nvml="none"))
    bare.read()
    bare.show()
    assert [sample for family in registry.collect() for sample in family.samples] == []
