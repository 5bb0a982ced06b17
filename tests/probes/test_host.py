"""Host readings from files written here, and from this very machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.probes.context import Context
from bench.probes.host import HostUsage, Pressure
from bench.probes.roots import Roots, SensorFile
from bench.probes.tree import TICK_S

STAT = "cpu  100 20 30 400 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
MEMINFO = "MemTotal: 16000000 kB\nMemFree: 1024 kB\nMemAvailable: 2048 kB\nCached: 4096 kB\nSwapFree: 512 kB\n"


def roots(tmp_path: Path, **files: str) -> Roots:
    for name, content in files.items():
        path = tmp_path / "proc" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Roots(proc=str(tmp_path / "proc"), tasks=str(tmp_path / "proc"), sys=str(tmp_path / "sys"))


def test_processor_time_is_told_apart(tmp_path: Path) -> None:
    readings = HostUsage(Context(roots(tmp_path, stat=STAT, meminfo=MEMINFO))).read()
    ticks = {name: round((readings[name].value or 0) / TICK_S) for name in readings if name.startswith("cpu")}
    assert ticks == {"cpu_busy_s": 163, "cpu_idle_s": 400, "cpu_iowait_s": 50, "cpu_steal_s": 8}


def test_memory_is_in_mib_and_nvmap_only_where_the_kernel_has_it(tmp_path: Path) -> None:
    plain = HostUsage(Context(roots(tmp_path, stat=STAT, meminfo=MEMINFO))).read()
    assert plain["mem_available_mib"].value == 2.0
    assert plain["swap_free_mib"].value == 0.5
    assert "nvmap_mib" not in plain
    tegra = HostUsage(Context(roots(tmp_path, stat=STAT, meminfo=MEMINFO + "NvMapMemUsed: 3072 kB\n"))).read()
    assert tegra["nvmap_mib"].value == 3.0


def test_files_that_vanish_or_hold_rubbish_give_nulls_with_a_reason(tmp_path: Path) -> None:
    where = roots(tmp_path, stat=STAT, meminfo=MEMINFO)
    probe = HostUsage(Context(where))
    for _ in range(HostUsage.stat_every):
        probe.read()
    (tmp_path / "proc/stat").unlink()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: much\n" + " " * 200)
    readings = probe.read()
    assert readings["cpu_busy_s"].reason == "stale", "it was there before"
    assert readings["mem_available_mib"].reason == "parse_failed"
    assert {reading.value for reading in readings.values()} == {None}


def test_processor_time_is_read_every_fifth_time_and_memory_always(tmp_path: Path) -> None:
    probe = HostUsage(Context(roots(tmp_path, stat=STAT, meminfo=MEMINFO)))
    seen = [probe.read() for _ in range(11)]
    assert [index for index, readings in enumerate(seen) if "cpu_busy_s" in readings] == [0, 5, 10]
    assert all(readings["mem_available_mib"].value == 2.0 for readings in seen)


def test_a_short_stat_line_of_an_old_kernel_is_not_read_as_zeros(tmp_path: Path) -> None:
    readings = HostUsage(Context(roots(tmp_path, stat="cpu 1 2 3\n", meminfo=MEMINFO))).read()
    assert readings["cpu_steal_s"].reason == "parse_failed"


def test_pressure_swap_and_zram(tmp_path: Path) -> None:
    stall = (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n"
    )
    vmstat = "nr_free_pages 9\npswpin 3\npswpout 4\npgmajfault 5\noom_kill 1\n"
    where = roots(tmp_path, pressure__memory=stall, vmstat=vmstat)
    for index, used in enumerate((1 << 20, 3 << 20)):
        stat = tmp_path / f"sys/block/zram{index}/mm_stat"
        stat.parent.mkdir(parents=True)
        stat.write_text(f"9 9 {used} 0 0 0 0 0\n")
    readings = Pressure(Context(where)).read()
    assert readings["memory_some_s"].value == 1.5
    assert readings["memory_full_s"].value == 0.25
    assert readings["cpu_some_s"].reason == "unsupported", "a kernel without that file"
    assert readings["swap_out_pages"].value == 4
    assert readings["zram_used_mib"].value == 4.0


def test_no_zram_is_null_not_zero(tmp_path: Path) -> None:
    assert Pressure(Context(roots(tmp_path, vmstat="pswpin 0\n"))).read()["zram_used_mib"].reason == "unsupported"


def test_this_machines_processors_tick() -> None:
    probe = HostUsage(Context())
    probe.stat_every = 1

    def total() -> float:
        readings = probe.read()
        return sum(reading.value or 0.0 for name, reading in readings.items() if name.startswith("cpu_"))

    # However long anything takes on a busy machine, the time that was spent lies between these two.
    begun = time.monotonic()
    before, inside = total(), time.monotonic()
    time.sleep(0.5)
    over = time.monotonic()
    spent, ended = total() - before, time.monotonic()
    processors = os.cpu_count() or 1
    # The kernel counts in ticks, and what a hypervisor took away may be missing.
    assert 0.75 * (over - inside) * processors <= spent <= 1.1 * (ended - begun) * processors + 0.1 * processors


class TestSource:
    def test_it_opens_the_file_again_when_that_comes_back(self, tmp_path: Path) -> None:
        file = tmp_path / "in1_input"
        source = SensorFile(file)
        assert source.read().reason == "not_found"
        file.write_text("5000\n")
        assert source.read(0.001).value == 5.0
        file.unlink()
        assert source.read().reason == "stale"
        file.write_text("4000\n")
        assert source.read(0.001).value == 4.0

    def test_one_read_often_looks_at_its_path_now_and_then(self, tmp_path: Path) -> None:
        file = tmp_path / "in1_input"
        source = SensorFile(file, every=5)
        assert source.read().reason == "not_found"
        file.write_text("5000\n")
        assert [source.read().value for _ in range(5)] == [None] * 4 + [5000.0]
        file.unlink()
        assert [source.read().reason for _ in range(5)] == [None] * 4 + ["stale"]
        file.write_text("4000\n")
        assert [source.read().value for _ in range(5)] == [None] * 4 + [4000.0]

    def test_a_file_rewritten_in_place_is_read_anew(self, tmp_path: Path) -> None:
        file = tmp_path / "temp"
        file.write_text("41000\n")
        source = SensorFile(file)
        first = source.read().value
        file.write_text("42000\n")
        assert (first, source.read().value) == (41000.0, 42000.0)

    def test_permission_lost_in_mid_run_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "temp"
        file.write_text("41000\n")
        source = SensorFile(file)
        assert source.read().value == 41000.0

        def refuse(fd: int, size: int, offset: int) -> bytes:
            raise PermissionError(13, "lost")

        monkeypatch.setattr("bench.probes.roots.os.pread", refuse)
        assert source.read().reason == "no_permission"
        monkeypatch.undo()
        assert source.read().value == 41000.0, "and read again once it may be"

    def test_a_zone_that_is_powered_off_is_unsupported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def off(fd: int, size: int, offset: int) -> bytes:
            raise BlockingIOError(11, "try again")

        (tmp_path / "temp").write_text("1")
        monkeypatch.setattr("bench.probes.roots.os.pread", off)
        assert SensorFile(tmp_path / "temp").read().reason == "unsupported"

    @pytest.mark.parametrize("rubbish", ["", "nan%", "12 34 x", "\x00\x00"])
    def test_rubbish_is_not_a_number(self, tmp_path: Path, rubbish: str) -> None:
        (tmp_path / "temp").write_text(rubbish)
        assert SensorFile(tmp_path / "temp").read().reason == "parse_failed"
