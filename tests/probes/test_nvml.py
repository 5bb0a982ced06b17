"""NVML with scripted libraries, one per habit of a device; and the real one where a GPU is at hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from bench.emulate.scripted_nvml import PROFILES, NVMLError, ScriptedNvml
from bench.probes.context import Context, Watched
from bench.probes.machine import Machine
from bench.probes.nvml import Nvml, describe, handles
from bench.probes.probe import Reading
from bench.probes.roots import Roots

CONSTANT = {"energy_j", "power_w", "power_average_w", "clock_mhz", "memory_clock_mhz", "clock_reasons"}


def read(profile: str, watched: Watched | None = None, proc: str = "/proc") -> dict[str, Reading]:
    roots = Roots(nvml=profile, tasks=proc)
    readings = Nvml(Context(roots, watched or Watched())).read()
    return {field.removeprefix("gpu0."): reading for field, reading in readings.items()}


def known(readings: dict[str, Reading]) -> set[str]:
    return {field for field, reading in readings.items() if reading.value is not None}


def test_orin_starts_and_supports_nothing_and_nothing_is_zero() -> None:
    readings = read("orin")
    assert known(readings) == set()
    assert {reading.reason for reading in readings.values()} == {"unsupported"}


@pytest.mark.parametrize(
    ("profile", "given"),
    [
        ("thor", {"clock_mhz", "utilization"}),
        ("spark", {"power_w", "power_average_w", "clock_mhz", "clock_reasons", "utilization", "temp_c"}),
        ("mig", CONSTANT | {"temp_c", "memory_used_mib"}),
        ("desktop", CONSTANT | {"temp_c", "memory_used_mib", "utilization"}),
    ],
)
def test_each_device_gives_what_it_can(profile: str, given: set[str]) -> None:
    processes = {"engine_memory_mib", "foreign_processes", "foreign_memory_mib"}
    assert known(read(profile)) - processes == given


def test_values_come_in_our_units() -> None:
    readings = read("desktop")
    assert readings["power_w"].value == 287.5
    assert readings["memory_used_mib"].value == 9830
    assert readings["temp_c"].value == 66
    assert readings["clock_reasons"].value == 4


def test_an_old_driver_has_no_instantaneous_power_and_an_older_name_for_its_reasons() -> None:
    readings = read("old-driver")
    assert readings["power_w"].reason == "unsupported"
    assert readings["power_average_w"].value == 180.0
    assert readings["clock_reasons"].reason == "unsupported", "the driver lacks the function"


def test_a_mig_slice_has_the_whole_cards_power_and_says_so() -> None:
    fields = {info.field: info for info in Nvml(Context(Roots(nvml="mig"))).fields}
    assert fields["gpu0.power_w"].scope == "parent_gpu"
    assert {info.field: info for info in Nvml(Context(Roots(nvml="desktop"))).fields}[
        "gpu0.power_w"
    ].scope == "gpu board"


def process(folder: Path, pid: int, parent: int) -> None:
    (folder / str(pid)).mkdir(parents=True)
    columns = ["S", str(parent), str(pid), str(pid), *"0" * 15, str(pid), "0", "1"]
    (folder / f"{pid}/stat").write_text(f"{pid} (x) {' '.join(columns)} 0\n")


def test_the_engines_memory_is_told_from_a_strangers(tmp_path: Path) -> None:
    process(tmp_path, 4200, 1)
    process(tmp_path, 4242, 4200)  # the engine's worker
    process(tmp_path, 4343, 1)
    readings = read("desktop", Watched(engine=4200), str(tmp_path))
    assert readings["engine_memory_mib"].value == 9216
    assert readings["foreign_processes"].value == 1
    assert readings["foreign_memory_mib"].value == 310


def test_process_ids_of_another_namespace_are_charged_to_nobody(tmp_path: Path) -> None:
    process(tmp_path, 7, 1)
    readings = read("desktop", Watched(engine=7), str(tmp_path))
    assert readings["foreign_processes"].value == 0
    assert readings["engine_memory_mib"].reason == "partial"


def test_memory_that_the_driver_hides_is_null(tmp_path: Path) -> None:
    process(tmp_path, 4242, 1)
    assert read("old-driver", Watched(engine=4242), str(tmp_path))["engine_memory_mib"].reason == "unsupported"


def test_a_gpu_that_falls_off_the_bus_is_stale_from_then_on() -> None:
    probe = Nvml(Context(Roots(nvml="lost")))
    assert probe.read()["gpu0.power_w"].value == 250.0
    for _ in range(30):
        last = probe.read()
    assert {reading.reason for reading in last.values()} == {"stale"}


@pytest.mark.parametrize(
    ("profile", "words"),
    [("mismatch", "version mismatch"), ("no-library", "Library Not Found"), ("no-driver", "Driver Not Loaded")],
)
def test_a_library_that_does_not_start_raises_for_the_probe_and_is_no_gpu_for_the_rest(
    profile: str, words: str
) -> None:
    with pytest.raises(NVMLError, match=words):
        Nvml(Context(Roots(nvml=profile)))
    assert describe(Roots(nvml=profile)) == []
    assert handles(Roots(nvml=profile)) == (None, [])


def test_a_fingerprint_has_the_card_and_no_id() -> None:
    (gpu,) = describe(Roots(nvml="desktop"))
    assert gpu["name"] == "NVIDIA GeForce RTX 4090"
    assert (gpu["memory_mib"], gpu["cuda"], gpu["compute_capability"]) == (24564, "13.0", "8.9")
    assert not {"uuid", "serial"} & set(gpu)


def test_the_energy_counter_rises_with_power_and_time() -> None:
    now = [100.0]
    nvml = ScriptedNvml(PROFILES["desktop"], clock=lambda: now[0])
    before = nvml.nvmlDeviceGetTotalEnergyConsumption("gpu0")
    now[0] += 10
    assert nvml.nvmlDeviceGetTotalEnergyConsumption("gpu0") - before == pytest.approx(287.5 * 10 * 1000)


def test_the_doctor_explains_each_failure() -> None:
    from bench.probes.doctor import examine
    from bench.probes.fingerprint import fingerprint

    fixes = {}
    for profile in ("mismatch", "no-library"):
        roots = Roots(nvml=profile)
        diagnosis = examine(Machine(roots, fingerprint(roots)))
        (row,) = [finding for finding in diagnosis.findings if finding.probe == "nvml"]
        fixes[profile] = row.fix
        assert row.value is None
    assert "reboot" in str(fixes["mismatch"])
    assert "libnvidia-ml" in str(fixes["no-library"])


@pytest.mark.skipif(not os.path.exists("/proc/driver/nvidia/version"), reason="no NVIDIA driver here")  # noqa: PTH110
def test_the_real_library_reads_a_real_gpu() -> None:
    readings = Nvml(Context()).read()
    assert math.isfinite(readings["gpu0.temp_c"].value or math.nan)
    assert describe(Roots())[0]["name"]
