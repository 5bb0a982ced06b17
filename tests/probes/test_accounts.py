"""The machine's processors and an engine's threads, as the kernel accounts for them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.probes.accounts import Processors, Threads
from bench.probes.context import Context, Watched
from bench.probes.processes import Processes

SPIN = "while True: pass"


@pytest.fixture
def pair() -> Iterator[list[int]]:
    """Two processes that never rest, held to one processor: half of their time is waiting, or more if others come."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", SPIN]) for _ in range(2)]
    for process in started:
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    yield [process.pid for process in started]
    for process in started:
        process.kill()
        process.wait()


def schedstat(folder: Path, thread: int, ran_ns: int, waited_ns: int) -> None:
    file = folder / f"7/task/{thread}/schedstat"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{ran_ns} {waited_ns} 12\n")


def test_times_of_all_threads_are_added_and_those_of_ended_ones_kept(tmp_path: Path) -> None:
    schedstat(tmp_path, 7, 4_000_000_000, 500_000_000)
    schedstat(tmp_path, 8, 1_000_000_000, 250_000_000)
    threads = Threads(str(tmp_path))
    assert threads.read([7]) == (5.0, 0.75)
    (tmp_path / "7/task/8/schedstat").unlink()
    assert threads.read([7]) == (5.0, 0.75), "what ended has run and waited"
    schedstat(tmp_path, 8, 100_000_000, 50_000_000)
    assert threads.read([7]) == pytest.approx((5.1, 0.8)), "another thread under an ended one's number"


def test_a_kernel_without_the_accounting_has_no_times_and_not_zeros(tmp_path: Path) -> None:
    schedstat(tmp_path, 7, 0, 0)
    assert Threads(str(tmp_path)).read([7]) is None
    assert Threads(str(tmp_path)).read([9]) is None


def test_what_is_neither_idle_nor_stolen_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 103.0, 103.0])
    monkeypatch.setattr("bench.probes.accounts.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("bench.probes.accounts.TICK_S", 0.01)
    (tmp_path / "stat").write_text("cpu  0 0 0 100 10 0 0 20 0 0\n")
    processors = Processors(str(tmp_path))
    processors.count = 4
    before = processors.busy_s()
    (tmp_path / "stat").write_text("cpu  0 0 0 400 60 0 0 120 0 0\n")
    assert processors.busy_s() - before == pytest.approx(4 * 3 - (3.0 + 0.5 + 1.0))


def test_what_two_that_share_a_processor_do_not_run_they_wait(pair: list[int]) -> None:
    threads = Threads()
    while (first := threads.read(pair)) is None or first[1] < 0.05:
        time.sleep(0.01)
    begun = time.monotonic()
    while (last := threads.read(pair)) is None or last[0] < first[0] + 0.3:
        time.sleep(0.01)
    elapsed = time.monotonic() - begun
    ran, waited = last[0] - first[0], last[1] - first[1]
    # A wait is counted once it has ended, so the last one may be missing.
    assert ran + waited == pytest.approx(2 * elapsed, rel=0.15)
    assert waited >= 0.8 * ran


def test_a_reading_has_all_accounts_of_one_moment(pair: list[int]) -> None:
    values = Processes(Context(watched=Watched(engine=pair[0], harness=(os.getppid(),)))).read()
    for name in ("cpu_s", "run_s", "wait_s", "harness_cpu_s", "sampler_cpu_s", "machine_busy_s"):
        assert values[name].value is not None, name
    assert values["machine_processors"].value == os.sysconf("SC_NPROCESSORS_ONLN")
    assert values["account_skew_s"].value is not None
