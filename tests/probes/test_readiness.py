"""Before and after a launch: heat, memory, power mode and clocks, on emulated boards and with clocks of our own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.emulate.board import find
from bench.emulate.board.files import meminfo, put
from bench.errors import UsageError
from bench.probes.cooldown import Cooled, Timekeeper, cool_down, idle_reference, temperatures
from bench.probes.fingerprint import fingerprint
from bench.probes.machine import emulated
from bench.probes.memory import Watchdog, guarded_memory, idle, memory, returned, will_it_fit
from bench.probes.power_mode import applied, clocks, locked, modes, power_mode, verify
from bench.probes.roots import Roots
from bench.record.launches import MemoryState
from bench.scenario.model import Host
from tests.waiting import until

GIB = 2**30


class Oven:
    """A zone that cools exponentially on a clock that only sleep() moves."""

    def __init__(self, start: float, ambient: float = 40.0, settle_s: float = 30.0) -> None:
        self.now, self.start, self.ambient, self.settle_s = 0.0, start, ambient, settle_s

    def read(self, roots: Roots) -> Mapping[str, float]:
        above = (self.start - self.ambient) * math.exp(-self.now / self.settle_s)
        return {"tj": self.ambient + above, "not in the reference": 99.0}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, **options: Any) -> Cooled:
        keeper = Timekeeper(lambda: self.now, self.sleep)
        return cool_down(Roots(), {"tj": 40.0}, read=self.read, keeper=keeper, **options)


class TestStartGate:
    def test_a_cool_machine_starts_at_once(self) -> None:
        ended = Oven(41.0).wait()
        assert (ended.waited_s, ended.timed_out, ended.worst) == (0.0, False, "tj")
        assert ended.check().status == "ok"

    def test_a_hot_one_waits_until_it_is_near_and_has_stopped_cooling(self) -> None:
        ended = Oven(75.0).wait(above_idle_c=5.0)
        assert not ended.timed_out
        assert ended.worst_above_c is not None
        assert ended.worst_above_c <= 5.0
        assert 55 < ended.waited_s < 90, "35·exp(−t/30) is 5 at 58 s, and cools by less than 0.1 °C/s from 74 s"
        slope = ended.slope_c_per_s
        assert ended.worst_above_c <= 2.5 or (slope is not None and abs(slope) < 0.1)

    def test_one_that_never_cools_starts_late_and_is_marked(self) -> None:
        ended = Oven(75.0, settle_s=1e9).wait(timeout_s=60)
        assert ended.timed_out
        assert ended.waited_s == 60
        check = ended.check()
        assert (check.status, "timed out" in check.evidence) == ("warning", True)
        assert check.remedy

    def test_a_machine_without_sensors_does_not_wait_and_says_why(self) -> None:
        impatient = Timekeeper(sleep=lambda s: pytest.fail("it waited"))
        ended = cool_down(Roots(), {}, read=lambda roots: {}, keeper=impatient)
        assert ended.check().status == "unknown"

    def test_the_idle_reference_is_a_median(self) -> None:
        readings = iter([40.0, 41.0, 99.0, 40.5, 40.0])
        keeper = Timekeeper(sleep=lambda s: None)
        found = idle_reference(Roots(), seconds=5, read=lambda roots: {"tj": next(readings)}, keeper=keeper)
        assert found == {"tj": 40.5}

    def test_dead_zones_are_not_waited_for(self, tmp_path: Path) -> None:
        found = temperatures(emulated(tmp_path, find("orin-nx")))
        assert set(found) == {"cpu", "gpu", "soc0", "soc1", "soc2", "tj"}

    def test_a_gpus_temperature_counts(self, tmp_path: Path) -> None:
        assert temperatures(Roots(sys=str(tmp_path), nvml="desktop")) == {"gpu0": 66.0}


def board(tmp_path: Path, available_mib: float = 6000.0, name: str = "orin-nano") -> Roots:
    roots = emulated(tmp_path, find(name))
    leave(roots, available_mib)
    return roots


def leave(roots: Roots, available_mib: float) -> None:
    text = meminfo(find("orin-nano"), available_mib, 0.0, 0.0)
    with Path(roots.proc, "meminfo").open("r+") as file:
        file.write(text)


class TestMemory:
    def test_a_jetson_is_unified_and_a_card_is_not(self, tmp_path: Path) -> None:
        state = memory(board(tmp_path))
        assert (state.kind, state.available_mib, state.device_total_mib) == ("unified", 6000.0, None)
        card = memory(Roots(nvml="desktop"))
        assert (card.kind, card.device_total_mib, card.device_used_mib) == ("discrete", 24564.0, 9830.0)

    @pytest.mark.parametrize(
        ("profile", "kind"),
        [("spark", "unified"), ("thor", "unified"), ("orin", "unified"), ("mig", "discrete"), ("desktop", "discrete")],
    )
    def test_a_gpu_without_memory_of_its_own_shares_the_processors(
        self, tmp_path: Path, profile: str, kind: str
    ) -> None:
        (tmp_path / "meminfo").write_text("MemTotal: 125000000 kB\nMemAvailable: 100000000 kB\n")
        roots = Roots(proc=str(tmp_path), nvml=profile)
        state = memory(roots)
        assert state.kind == kind
        assert fingerprint(roots)["memory"]["unified"] == (kind == "unified")
        assert (state.device_total_mib is None) == (kind == "unified")
        with guarded_memory(roots, lambda reason: None) as watchdog:
            assert (watchdog is not None) == (kind == "unified")

    @pytest.mark.parametrize(
        ("size", "status"), [(GIB, "ok"), (5 * GIB, "warning"), (7 * GIB, "violated"), (None, "unknown")]
    )
    def test_will_it_fit(self, tmp_path: Path, size: int | None, status: str) -> None:
        check = will_it_fit(size, memory(board(tmp_path)))
        assert check.status == status
        assert "unified" in check.evidence
        assert (check.remedy is not None) == (status in ("warning", "violated"))

    def test_on_a_card_it_is_the_cards_memory_that_must_do(self) -> None:
        assert will_it_fit(12 * GIB, memory(Roots(nvml="desktop"))).status == "warning"
        assert will_it_fit(40 * GIB, memory(Roots(nvml="desktop"))).status == "violated"

    def test_memory_that_cannot_be_read_is_unknown(self, tmp_path: Path) -> None:
        state = memory(Roots(proc=str(tmp_path), nvml="none"))
        assert state.available_mib is None
        assert will_it_fit(GIB, state).status == "unknown"

    def test_the_watchdog_stops_the_engine_once_before_the_board_freezes(self, tmp_path: Path) -> None:
        roots, told = board(tmp_path), list[str]()
        with Watchdog(roots, told.append, period_s=0.002) as watchdog:
            leave(roots, 200.0)
            until(lambda: watchdog.tripped)
            watchdog._thread.join()
        assert len(told) == 1
        assert watchdog.tripped == told[0]
        assert "200 MiB" in told[0]

    def test_a_single_low_reading_is_no_alarm(self, tmp_path: Path) -> None:
        roots, told = board(tmp_path), list[str]()
        watchdog = Watchdog(roots, told.append)
        looks = []
        for available in (5000.0, 200.0, 5000.0, 200.0, 5000.0):
            leave(roots, available)
            looks.append(watchdog.look())
        assert (looks, told, watchdog.tripped) == ([False] * 5, [], None)
        leave(roots, 200.0)
        assert [watchdog.look(), watchdog.look()] == [False, True]
        assert told == [watchdog.tripped]

    def test_only_a_unified_board_is_guarded(self, tmp_path: Path) -> None:
        with guarded_memory(Roots(proc=str(tmp_path)), lambda reason: None) as none:
            assert none is None
        with guarded_memory(board(tmp_path / "b"), lambda reason: None) as some:
            assert some is not None

    def test_memory_that_comes_back_is_waited_for(self, tmp_path: Path) -> None:
        roots = board(tmp_path)
        before = idle(roots, seconds=0.0)
        leave(roots, 3000.0)
        late = returned(before, roots, timeout_s=0.3)
        assert late.returned is False
        assert late.missing_mib == pytest.approx(3000.0)
        leave(roots, 5950.0)
        assert returned(before, roots, timeout_s=0.3).returned is True

    def test_memory_that_cannot_be_compared_is_null(self, tmp_path: Path) -> None:
        assert returned(MemoryState("discrete", None, None, None), Roots(nvml="none")).returned is None


def host(**wanted: str) -> Host:
    return Host.model_validate({"class": wanted.pop("host_class", "any"), **wanted})


class TestPowerMode:
    def test_it_is_read_with_its_number(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        mode = power_mode(roots)
        assert mode is not None
        assert (mode.name, mode.number) == ("MAXN", 0)
        assert modes(roots) == {"MAXN": 0, "MODE_15W": 1, "MODE_30W": 2, "MODE_50W": 3}
        assert power_mode(Roots(path=str(tmp_path))) is None

    def test_clocks_are_pinned_when_lowest_is_highest(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("orin-nx"))
        assert (clocks(roots), locked(roots)) == ({"cpu": False, "gpu": False}, False)
        assert roots.output("jetson_clocks") == ""
        assert locked(roots) is True
        assert locked(Roots(sys=str(tmp_path / "none"))) is None

    def test_what_is_declared_is_verified(self, tmp_path: Path) -> None:
        found = fingerprint(emulated(tmp_path, find("orin-nx")))
        wanted = host(host_class="jetson-orin-nx", power_mode="25W", clocks="locked")
        status = {check.name: check.status for check in verify(wanted, found)}
        assert status == {"host_class": "ok", "power_mode": "violated", "clocks": "violated"}
        assert all(check.remedy for check in verify(wanted, found) if check.status == "violated")
        assert verify(host(), found) == []

    def test_on_a_desktop_a_declared_mode_is_unknown(self) -> None:
        checks = verify(host(host_class="jetson", power_mode="MAXN"), fingerprint())
        assert [check.status for check in checks] == ["violated", "unknown"]

    def test_it_is_set_and_put_back(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        before = clocks(roots)
        with applied(host(power_mode="MODE_30W", clocks="locked"), roots) as changed:
            assert len(changed) == 2
            assert power_mode(roots).name == "MODE_30W"  # type: ignore[union-attr]  # it has one
            assert locked(roots) is True
        assert power_mode(roots).name == "MAXN"  # type: ignore[union-attr]  # it has one
        assert clocks(roots) == before

    def test_nothing_is_touched_that_is_right_already(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        with applied(host(power_mode="MAXN"), roots) as changed:
            assert changed == []

    def test_it_is_put_back_when_the_run_fails(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        with pytest.raises(ZeroDivisionError), applied(host(power_mode="MODE_15W"), roots):
            _ = 1 / 0
        assert power_mode(roots).name == "MAXN"  # type: ignore[union-attr]  # it has one

    def test_it_is_put_back_when_the_harness_is_killed(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        code = (
            "import sys, time; from bench.probes.roots import Roots; from bench.probes.power_mode import applied;"
            "from bench.scenario.model import Host;"
            f"roots = Roots.from_json({roots.to_json()!r});"
            "context = applied(Host.model_validate({'class': 'any', 'power_mode': 'MODE_15W'}), roots);"
            "context.__enter__(); print('set', flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"set\n"
        assert power_mode(roots).name == "MODE_15W"  # type: ignore[union-attr]  # it has one
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for _ in range(50):
            if power_mode(roots).name == "MAXN":  # type: ignore[union-attr]  # it has one
                return
            time.sleep(0.1)
        pytest.fail("the power mode was left as it was set")

    def test_a_mode_that_does_not_exist_is_refused_with_those_that_do(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        with pytest.raises(UsageError, match="MODE_50W"), applied(host(power_mode="99W"), roots):
            pass

    def test_a_tool_that_refuses_is_quoted_and_all_is_put_back(self, tmp_path: Path) -> None:
        roots = emulated(tmp_path, find("agx-orin"))
        refusing = "#!/bin/sh\necho 'Error: Run this script as a root user' >&2\nexit 1\n"
        (tmp_path / "bin/jetson_clocks").write_text(refusing)
        wanted = host(power_mode="MODE_30W", clocks="locked")
        with pytest.raises(UsageError, match="as a root user"), applied(wanted, roots):
            pass
        assert power_mode(roots).name == "MAXN"  # type: ignore[union-attr]  # it has one


def test_fixed_width_writes_never_leave_an_old_digit(tmp_path: Path) -> None:
    file = tmp_path / "value"
    put(file, 123456)
    put(file, 7)
    assert int(file.read_text()) == 7
