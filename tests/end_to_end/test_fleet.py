"""A fleet over real ssh: hosts made of namespaces, each with sshd, an emulated board and a simulated engine.

`bench fleet` runs as people run it; what goes wrong is done to cables, keys, clocks and disks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.environments.environment import environment
from bench.fleet import ledger
from bench.fleet.ledger import Ledger
from bench.record.store import RunFolder
from tests import hosts, systemd_run, waiting
from tests.hosts import Host, Net

BLOCKS = 3
SCENARIO = f"""scenario: tiny
host: {{class: jetson}}
model: {{source: "dummy:tiny-llama"}}
engines: {{sim: {{engine: simulated}}}}
matrix: {{quantization: [fp32]}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 10}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: {BLOCKS}, retries: 0}}
measure: [ttft, memory]
"""
BENCH = Path(sys.executable).with_name("bench")
MINUTES = 60.0

pytestmark = [
    pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing())),
    pytest.mark.skipif(not environment("ansible").ready, reason="needs Ansible: bench engines install ansible"),
]


@dataclass
class Fleet:
    """A fleet's folder, its hosts, and the commands."""

    net: Net
    folder: Path

    def command(self, *words: str) -> list[str]:
        return [str(BENCH), "fleet", words[0], "fleet.yaml", *words[1:]]

    def start(self, *words: str) -> subprocess.Popen[str]:
        how: dict[str, Any] = {"cwd": self.folder, "env": self.net.environment, "text": True}
        return subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)

    def run(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        said, _ = process.communicate(timeout=10 * MINUTES)
        return process.returncode, said

    @property
    def record(self) -> Path:
        return ledger.newest(self.folder / "results", "shelf")

    @property
    def ledger(self) -> Ledger:
        return ledger.load(self.record)

    def states(self) -> dict[str, str]:
        return {member.alias: member.state for member in self.ledger.members}

    def board(self, host: Host) -> Path:
        return self.folder / host.alias

    def begun(self, host: Host) -> bool:
        """Whether its first launch is whole: it is in the middle of its run then."""
        return any(self.board(host).glob("jobs/*/results/tiny/*/launches/[!.]*"))

    def launches(self, host: Host) -> int:
        """Launches in all run folders that a board ever made."""
        return len(list(self.board(host).glob("jobs/*/results/tiny/*/launches/[!.]*")))


@contextmanager
def _fleet(tmp_path: Path, count: int, **more: object) -> Iterator[Fleet]:
    with hosts.lan(count, delay_ms=2) as net:
        lines = ["[boards]"]
        for host in net.hosts:
            (tmp_path / host.alias).mkdir()
            lines.append(f"{host.alias} firsttoken_folder={tmp_path / host.alias} firsttoken_alias=orin-{host.number}")
        (tmp_path / "hosts.ini").write_text("\n".join(lines) + "\n")
        (tmp_path / "tiny.yaml").write_text(SCENARIO)
        settings: dict[str, object] = {
            "fleet": "shelf",
            "inventory": "hosts.ini",
            "group": "boards",
            "scenarios": ["tiny.yaml"],
            "program": str(BENCH),
            "emulate": "orin-nx",
            "poll_s": 4,
            "patience_minutes": 1,
            # All hosts share this machine's disk and processors.
            "environment": {"FIRSTTOKEN_BESIDE_OTHERS": "1"},
            **more,
        }
        (tmp_path / "fleet.yaml").write_text(
            "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
        )
        yield Fleet(net, tmp_path)


@pytest.mark.end_to_end
def test_a_run_outlives_its_link_and_a_changed_host_key_is_refused(tmp_path: Path) -> None:
    with _fleet(tmp_path, 3, quorum=2) as fleet:
        first, second, third = fleet.net.hosts
        third.change_key()
        process = fleet.start("run")
        waiting.until(lambda: fleet.begun(first) and fleet.begun(second), 5 * MINUTES)
        second.link(cut=True)
        residents = _residents(first)
        waiting.until(lambda: fleet.states()["orin-2"] == "lost", 5 * MINUTES)
        second.link(cut=False)
        said, _ = process.communicate(timeout=10 * MINUTES)

        assert process.returncode == 0, said
        assert fleet.states() == {"orin-1": "finished", "orin-2": "finished", "orin-3": "refused"}
        assert fleet.ledger.member("orin-3").reason == "its host key is not the one that is known"
        assert "lost" in [entry["state"] for entry in fleet.ledger.member("orin-2").history]
        assert residents == []
        _each_launch_once(fleet, [first, second])
        _names_nobody(fleet)


@pytest.mark.end_to_end
def test_where_systemd_runs_a_run_is_a_transient_unit_of_its_own(tmp_path: Path) -> None:
    """By a stand-in for systemd-run: in a network namespace there is no systemd to ask."""
    with _fleet(tmp_path, 1) as fleet:
        (board,) = fleet.net.hosts
        _configured(board, f"SetEnv PATH={_systemd_run(tmp_path)}:/usr/local/bin:/usr/bin:/bin SOME_SESSIONS=own")
        board.run("mkdir", "-p", "/run/systemd/system")
        process = fleet.start("run")
        waiting.until(lambda: fleet.begun(board), 5 * MINUTES)
        (unit, known), *others = _units(board).items()
        listed = board.run("ps", "-wweo", "pid=,ppid=,sid=,args=").stdout.splitlines()
        (row,) = [line.split(None, 3) for line in listed if int(line.split()[0]) == known["pid"]]
        environment = board.run("cat", f"/proc/{known['pid']}/environ").stdout
        said, _ = process.communicate(timeout=10 * MINUTES)

        assert process.returncode == 0, said
        assert fleet.states() == {"orin-1": "finished"}
        assert others == []
        (job,) = fleet.board(board).glob("jobs/*/")
        assert unit == f"firsttoken-{job.name}"
        assert known["argv"] == [str(BENCH.resolve()), "fleet", "work", str(job)]
        assert " fleet work " in row[3]
        assert "SOME_SESSIONS" not in environment
        (last,) = _units(board).values()
        assert (last["status"], last["left"]) == (0, 0)
        assert "tiny" in (job / "work.log").read_text()
        _each_launch_once(fleet, [board])


@pytest.mark.slow
def test_of_eight_boards_with_two_killed_links_no_launch_is_lost_and_none_is_run_twice(tmp_path: Path) -> None:
    with _fleet(tmp_path, 8, patience_minutes=0.4) as fleet:
        process = fleet.start("run")
        cut = fleet.net.hosts[2], fleet.net.hosts[5]
        for host in cut:
            waiting.until(lambda host=host: fleet.begun(host), 10 * MINUTES)  # type: ignore[misc]
            host.link(cut=True)
        said, _ = process.communicate(timeout=20 * MINUTES)
        assert process.returncode == 3, said
        assert [alias for alias, state in fleet.states().items() if state == "lost"] == ["orin-3", "orin-6"]

        for host in cut:
            host.link(cut=False)
        code, said = fleet.run("run", "--resume")

        assert code == 0, said
        assert set(fleet.states().values()) == {"finished"}
        _each_launch_once(fleet, fleet.net.hosts)
        totals = [outcome for member in fleet.ledger.members for outcome in member.outcomes]
        lost = sum((one.planned or 0) - (one.recorded or 0) for one in totals)
        twice = sum(one.repeated or 0 for one in totals)
        print(f"8 boards, 2 links killed: {lost} launches lost, {twice} run twice, of {8 * BLOCKS}")
        assert (lost, twice) == (0, 0)


@pytest.mark.slow
def test_what_goes_wrong_with_a_board_is_told_and_mended_by_resume(tmp_path: Path) -> None:
    with _fleet(tmp_path, 5, quorum=3) as fleet:
        good, killed, full, locked, late = fleet.net.hosts
        _configured(locked, "AuthorizedKeysFile none")
        _configured(late, f"SetEnv PATH={_slow_clock(tmp_path, minutes=-7)}:/usr/local/bin:/usr/bin:/bin")
        full.mount(fleet.board(full), "300m")
        process = fleet.start("run")
        waiting.until(lambda: fleet.begun(killed), 10 * MINUTES)
        killed.kill()
        waiting.until(lambda: _within(full, fleet.board(full)), 10 * MINUTES)
        full.run("sh", "-c", f"dd if=/dev/zero of={fleet.board(full)}/filler bs=1M 2>/dev/null; true")
        waiting.until(lambda: fleet.states()["orin-2"] == "lost", 10 * MINUTES)
        killed.start()
        said, _ = process.communicate(timeout=20 * MINUTES)

        states, found = fleet.states(), fleet.ledger
        assert process.returncode == 3, said
        assert states == {
            "orin-1": "finished",
            "orin-2": "broken",
            "orin-3": "broken",
            "orin-4": "refused",
            "orin-5": "finished",
        }
        assert found.member("orin-4").reason == "it lets this user's key not in"
        assert "disk is full" in str(found.member("orin-3").reason)
        assert found.member("orin-5").clock_offset_s == pytest.approx(-420, abs=30)

        full.run("rm", f"{fleet.board(full)}/filler")
        _configured(locked, f"AuthorizedKeysFile {fleet.net.folder / 'user.pub'}")
        code, said = fleet.run("run", "--resume")
        assert code == 0, said
        assert set(fleet.states().values()) == {"finished"}
        _each_launch_once(fleet, [good, killed, locked, late])


@pytest.mark.slow
def test_a_second_fleet_is_refused_by_controller_and_by_board(tmp_path: Path) -> None:
    with _fleet(tmp_path, 1) as fleet:
        (host,) = fleet.net.hosts
        process = fleet.start("run")
        waiting.until(lambda: fleet.begun(host), 5 * MINUTES)

        code, said = fleet.run("run")
        assert code == 4
        assert "worked with by another command" in said

        other = (tmp_path / "fleet.yaml").read_text().replace('"shelf"', '"other"')
        (tmp_path / "other.yaml").write_text(other)
        ran = subprocess.run(
            [BENCH, "fleet", "check", "other.yaml"],
            cwd=tmp_path,
            env=fleet.net.environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 3
        assert "it measures for another fleet run" in ran.stdout

        said, _ = process.communicate(timeout=10 * MINUTES)
        assert process.returncode == 0, said
        _each_launch_once(fleet, [host])


def _residents(host: Host) -> list[str]:
    """What is on a board that measures beside the run itself: the fleet's processes, seen between two looks.

    The host's first process, its sshd, and what the run has started are meant to be there. A look that falls into one
    of ours sees its ssh session, so that the least of several is what is resident.
    """
    seen: list[list[str]] = []
    for _ in range(3):
        listed = host.run("ps", "-wweo", "pid=,ppid=,args=").stdout.splitlines()
        rows = [(int(pid), int(parent), said) for pid, parent, said in (line.split(None, 2) for line in listed)]
        run = {pid for pid, _, said in rows if " fleet work " in said}
        assert run, listed
        for _ in rows:
            run |= {pid for pid, parent, _ in rows if parent in run}
        seen.append([said for pid, _, said in rows if pid not in run and pid != 1 and not said.startswith("ps -")])
        time.sleep(1)
    return min(seen, key=len)


def _each_launch_once(fleet: Fleet, boards: Sequence[Host]) -> None:
    """Every planned launch once: in what came back, and among all that the board ever wrote."""
    for host in boards:
        member = fleet.ledger.member(f"orin-{host.number}")
        (outcome,) = member.outcomes
        assert (outcome.planned, outcome.recorded, outcome.repeated) == (BLOCKS, BLOCKS, 0)
        assert outcome.run is not None
        folder = RunFolder.open(fleet.record / "boards" / member.alias / outcome.run)
        assert folder.manifest.state == "complete"
        assert len(folder.finished()) == BLOCKS == fleet.launches(host)


def _names_nobody(fleet: Fleet) -> None:
    """Neither hosts nor addresses are in what may be published: the ledger and the page."""
    (page,) = (fleet.folder / "reports").glob("*.html")
    for text in (page.read_text(), (fleet.record / "fleet.json").read_text()):
        for host in fleet.net.hosts:
            assert host.alias not in text
            assert host.address not in text


def _configured(host: Host, line: str) -> None:
    """The host's sshd with another line first, which wins."""
    file = host.key.parent / f"{host.alias}.conf"
    file.write_text(f"{line}\n{file.read_text()}")
    host.kill()
    host.start()


def _systemd_run(folder: Path) -> Path:
    """A folder with the stand-in for `systemd-run`."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "systemd-run"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(systemd_run.__file__)} "$@"\n')
    program.chmod(0o755)
    return program.parent


def _units(host: Host) -> dict[str, Any]:
    """The units that a host's stand-in for systemd has started, by name: its account of each."""
    names = host.run("sh", "-c", "ls /run/units").stdout.split()
    return {Path(name).stem: json.loads(host.run("cat", f"/run/units/{name}").stdout) for name in names}


def _slow_clock(folder: Path, minutes: int) -> Path:
    """A folder with a `date` that is off; the kernel's own clock is one for all hosts."""
    (folder / "bin").mkdir()
    date = folder / "bin" / "date"
    date.write_text(f'#!/bin/sh\nexec /bin/date --date "{minutes} minutes" "$@"\n')
    date.chmod(0o755)
    return date.parent


def _within(host: Host, folder: Path) -> bool:
    """Whether the run on a disk of its own, which only the host sees, has a whole launch."""
    found = host.run("sh", "-c", f"ls -d {folder}/jobs/*/results/tiny/*/launches/[0-9]* 2>/dev/null", check=False)
    return bool(found.stdout.strip())
