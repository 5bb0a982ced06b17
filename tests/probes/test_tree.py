"""A tree of processes followed through /proc, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.probes.context import Context, Watched
from bench.probes.processes import Processes, TreeMemory
from bench.probes.roots import Roots, peek
from bench.probes.tree import Task, Tree
from tests.waiting import until

# The parent starts a child that starts a grandchild and dies: the grandchild re-parents, its session stays.
ORPHAN = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c",
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])"])
print("up", flush=True)
time.sleep(30)
"""
BURN = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass\n"


@pytest.fixture
def spawn() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()
        process.wait()


Spawn = Callable[[str], "subprocess.Popen[bytes]"]


def test_an_orphan_stays_in_the_tree(spawn: Spawn) -> None:
    root = spawn(ORPHAN)
    assert root.stdout is not None
    root.stdout.readline()
    tree = Tree(roots=(root.pid,))
    assert len(tree.scan()) == 2


def test_time_of_children_that_came_and_went_between_two_scans_is_counted(spawn: Spawn) -> None:
    root = spawn(
        f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {BURN!r}]); print(); time.sleep(30)"
    )
    assert root.stdout is not None
    root.stdout.readline()
    tree = Tree(roots=(root.pid,))
    tree.scan()
    assert tree.cpu_s >= 0.3


def test_time_of_the_dead_is_kept_and_never_falls(spawn: Spawn) -> None:
    root = spawn(BURN + "time.sleep(30)")
    tree = Tree(roots=(root.pid,))
    until(lambda: bool(tree.scan()) and tree.cpu_s >= 0.3)
    before = tree.cpu_s
    root.kill()
    root.wait()
    assert tree.scan() == {}
    assert tree.cpu_s >= before


def test_the_harness_is_not_charged_for_an_engine_in_its_own_tree(spawn: Spawn) -> None:
    engine = spawn("import time; time.sleep(30)")
    mine = Tree(roots=(os.getpid(),), apart=(engine.pid,), reaped=False)
    until(lambda: Task.read("/proc", engine.pid) is not None)
    assert os.getpid() in mine.scan()
    assert engine.pid not in mine.members


def test_a_name_with_blanks_and_parentheses_does_not_shift_the_columns(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    folder.mkdir()
    columns = ["S", "5", "6", "7", *"0" * 5, "3", "0", "200", "100", "0", "0", "20", "0", "4", "0", "999", "0", "256"]
    (folder / "stat").write_text(f"77 (a) b (c)) {' '.join(columns)} 0 0\n")
    task = Task.read(str(tmp_path), 77)
    assert task is not None
    assert (task.parent, task.group, task.session, task.threads, task.start) == (5, 6, 7, 4, 999)
    assert task.cpu_s == pytest.approx(300 / os.sysconf("SC_CLK_TCK"))


def test_no_engine_gives_nulls_and_not_zeros() -> None:
    readings = Processes(Context()).read()
    assert readings["rss_mib"].value is None
    assert readings["rss_mib"].reason == "not_found"


def test_an_engine_is_measured_in_proportional_pages(spawn: Spawn) -> None:
    engine = spawn(
        "x = bytearray(64 << 20); x[::4096] = b'x' * len(x[::4096]); print(flush=True)\nimport time; time.sleep(30)"
    )
    assert engine.stdout is not None
    engine.stdout.readline()
    readings = TreeMemory(Context(watched=Watched(engine=engine.pid))).read()
    pss, private = readings["pss_mib"].value, readings["uss_mib"].value
    assert pss is not None
    assert private is not None
    assert 64 < private < pss < 110
    assert readings["cgroup_mib"].value is None, "it shares the tests' control group"


def test_memory_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, size: int = 4096) -> bytes:
        if path.endswith("smaps_rollup"):
            raise PermissionError(13, "no", path)
        return real(path, size)

    real = peek
    monkeypatch.setattr("bench.probes.processes.peek", refuse)
    readings = TreeMemory(Context(watched=Watched(engine=os.getpid()))).read()
    assert readings["pss_mib"].reason == "no_permission"


def test_reading_a_large_tree_takes_at_most_its_share_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = TreeMemory(Context(watched=Watched(engine=os.getpid())))
    ticks = iter([0.0, 0.05])
    monkeypatch.setattr("bench.probes.processes.time.thread_time", lambda: next(ticks))
    probe.read()
    assert probe.period_s == pytest.approx(0.05 * 1000)


def test_its_own_control_group_is_read_without_the_page_cache(tmp_path: Path) -> None:
    tasks, group = tmp_path / "proc", tmp_path / "sys/fs/cgroup/bench.scope"
    group.mkdir(parents=True)
    columns = ["S", "1", "9", "9", *"0" * 15, "5", "0", "1"]
    (tasks / "9").mkdir(parents=True)
    (tasks / "9/stat").write_text(f"9 (e) {' '.join(columns)} 0\n")
    (tasks / "9/cgroup").write_text("0::/bench.scope\n")
    (tasks / str(os.getpid())).mkdir()
    (tasks / f"{os.getpid()}/cgroup").write_text("0::/\n")
    (group / "memory.current").write_text(f"{300 << 20}\n")
    (group / "memory.peak").write_text(f"{400 << 20}\n")
    (group / "memory.stat").write_text(f"anon 1\nfile {120 << 20}\nshmem {20 << 20}\n")
    roots = Roots(tasks=str(tasks), sys=str(tmp_path / "sys"))
    readings = TreeMemory(Context(roots, Watched(engine=9))).read()
    assert readings["cgroup_mib"].value == pytest.approx(200)
    assert readings["cgroup_peak_mib"].value == pytest.approx(400)
