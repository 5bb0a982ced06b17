"""bench doctor and bench sensors, and the archive that an owner of a board sends."""

from __future__ import annotations

import getpass
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app, main
from bench.plugins import load
from bench.probes.collect import collect, scrub
from bench.probes.context import Context
from bench.probes.doctor import REASONS, examine
from bench.probes.machine import Machine, machine
from bench.probes.roots import Roots
from bench.record.schema import NULLS

runner = CliRunner()


@pytest.fixture(scope="module")
def board() -> Iterator[Machine]:
    """A diagnosis is taken several times; one living board serves them all."""
    with machine("agx-orin") as host:
        yield host


def test_every_null_is_explained(board: Machine) -> None:
    assert set(REASONS) == set(NULLS)
    diagnosis = examine(board)
    assert {finding.status for finding in diagnosis.findings} <= {"ok", *NULLS}
    assert all((finding.value is None) == (finding.status != "ok") for finding in diagnosis.findings)


def test_a_boards_diagnosis_has_power_with_its_scope_and_advice(board: Machine) -> None:
    diagnosis = examine(board)
    (power,) = [f for f in diagnosis.findings if (f.probe, f.field) == ("jetson", "power_w")]
    assert power.value
    assert power.scope == "module: VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert {advice.what for advice in diagnosis.advice} >= {"clocks", "zram"}
    assert all(advice.fix for advice in diagnosis.advice)


def test_nvml_on_orin_is_explained_and_not_read(board: Machine) -> None:
    (row,) = [finding for finding in examine(board).findings if finding.probe == "nvml"]
    assert "supports nothing" in row.doc


def test_an_archive_reads_as_the_machine_it_was_packed_on(board: Machine, tmp_path: Path) -> None:
    archive = tmp_path / "board.tar.gz"
    names = collect(board.roots, examine(board), archive)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    unpacked = tmp_path / "unpacked"
    trees = {name: str(unpacked / name) for name in ("sys", "proc", "root")}
    roots = Roots(**trees, path="", nvml="none")
    probe = load("probes", "jetson")(Context(roots))
    power = [line for line in (unpacked / "tools/tegrastats.txt").read_text().splitlines() if "VIN_SYS_5V0" in line]
    assert probe.read()["power_w"].value
    assert {info.field for info in probe.fields} == {
        info.field for info in load("probes", "jetson")(Context(board.roots)).fields
    }
    assert len(power) >= 2
    assert "NV Power Mode" in (unpacked / "tools/nvpmodel_-q.txt").read_text()
    assert json.loads((unpacked / "doctor.json").read_text())["host_class"] == "jetson-agx-orin-64gb-emulated"
    assert not [name for name in names if "serial" in name]


@pytest.mark.parametrize(
    ("dirty", "gone"),
    [
        ("Serial\t\t: 0000000012345678", "12345678"),
        ("    Serial Number                         : 1322420011223", "1322420011223"),
        ("    GPU UUID : GPU-7a1b2c3d-0000-1111-2222-333344445555", "7a1b2c3d"),
        ("eth0 link 48:b0:2d:aa:bb:cc up", "48:b0:2d"),
        ("from 192.168.17.4 port 22", "192.168.17.4"),
        ("/home/anneliese/model: no such file", "anneliese"),
    ],
)
def test_what_identifies_is_scrubbed(dirty: str, gone: str) -> None:
    assert gone not in scrub(f"before\n{dirty}\nafter")
    assert scrub("before\nVDD_IN 5299mW/5299mW\nafter") == "before\nVDD_IN 5299mW/5299mW\nafter"


def test_the_users_own_name_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anneliese")
    assert scrub("owner anneliese, group x") == "owner -, group x"


class TestCommands:
    def test_doctor_speaks_json_about_this_machine(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["host_class"]
        assert {row["probe"] for row in found["findings"]} >= {"host", "jetson", "nvml", "tegrastats"}

    def test_doctor_stamps_an_emulated_board(self) -> None:
        result = runner.invoke(app, ["doctor", "--emulate", "orin-nx"])
        assert result.exit_code == 0
        assert result.output.startswith("EMULATED")
        assert "power.VDD_IN_w" in result.output
        assert "W" in result.output

    def test_doctor_builds_a_board_in_a_folder(self, tmp_path: Path) -> None:
        assert main(["doctor", "--emulate", "thor", "--into", str(tmp_path / "thor"), "--json"]) == 0
        assert (tmp_path / "thor/sys/class/hwmon/hwmon4/label").read_text() == "VIN\n"
        assert (tmp_path / "thor/bin/tegrastats").stat().st_mode & 0o100

    def test_an_unknown_board_is_a_usage_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--emulate", "orin-nz"]) == 4
        assert "did you mean orin-nx" in capsys.readouterr().err

    def test_options_of_emulation_need_a_board(self) -> None:
        assert main(["doctor", "--fault", "rail@1"]) == 4

    def test_an_archive_that_cannot_be_written_is_a_usage_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--collect", "/nonexistent/x.tar.gz"]) == 4
        assert "cannot be written" in capsys.readouterr().err

    def test_sensors_prints_lines_and_turns_counters_into_rates(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["sensors", "--period", "0.1", "--seconds", "1.5", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) >= 2
        assert "host.cpu_busy_s" not in lines[0], "a rate needs two readings"
        assert 0 <= lines[-1]["host.cpu_busy_s"]["value"] <= 1000

    def test_a_suite_on_the_wrong_machine_says_what_it_found_and_how_to_go_on(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["suite", "orin"]) == 4
        said = capsys.readouterr().err
        assert "host class jetson" in said
        assert "--emulate orin-nx" in said

    def test_a_suites_plan_names_its_scenarios_and_minutes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["suite", "orin", "--emulate", "orin-nx", "--plan"]) == 0
        said = capsys.readouterr().out
        assert said.index("emulated-first-token") < said.index("emulated-cold-start") < said.index("together")

    def test_a_suite_without_an_emulated_form_says_so(self) -> None:
        assert main(["suite", "desktop", "--emulate", "orin-nx"]) == 4
