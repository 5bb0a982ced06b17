"""Neighbours with known shares beside an engine: the share that is told against the truth, and what the rules say.

The engine is a stand-in that computes as a server does, in bursts with pauses, in as many processes as the case says. A
hog's truth is its own processor time as the scheduler keeps it, in nanoseconds; what other processes took is added, of
all that live from the window's start to its end. On a machine that others load the truth is so a lower bound, and the
idle series, which can say nothing of false warnings there, skips.

    NEIGHBOUR_LAUNCHES=100 pytest tests/benchmarks/test_neighbours.py -m slow -s
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.analyse.durations import with_durations
from bench.analyse.neighbours import Neighbours, neighbours
from bench.analyse.series import Samples
from bench.judge.crowding import contention, foreign_cpu
from bench.judge.evidence import Evidence
from bench.probes.context import Watched
from bench.probes.sampler import Sampler
from bench.probes.tree import Task, processes
from bench.record import tables
from bench.record.launches import LaunchRecord

LAUNCHES = int(os.environ.get("NEIGHBOUR_LAUNCHES", "12"))
SECONDS, SHORT_S = 10.0, 2.0
POINTS, IDLE = 0.03, 0.02
# 35 ms of computing, 15 ms of rest, in as many processes as are asked for.
ENGINE = """
import os, sys, time
for _ in range(int(sys.argv[1]) - 1):
    if not os.fork(): break
while True:
    end = time.perf_counter() + 0.035
    while time.perf_counter() < end: pass
    time.sleep(0.015)
"""
HOG = """
import os, sys, time
os.nice(int(sys.argv[1]))
time.sleep(float(sys.argv[2]))
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end: pass
time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Hogs:
    """What runs beside the engine."""

    count: int = 0
    nice: int = 0
    begin_s: float = 0.0
    seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A window as told and as it was."""

    told: Neighbours
    hogs: float
    others: float
    statuses: tuple[str, str]

    @property
    def truth(self) -> float:
        return self.hogs + self.others


@contextmanager
def running(code: str, *args: object, count: int = 1) -> Iterator[list[int]]:
    started = [
        subprocess.Popen([sys.executable, "-S", "-c", code, *map(str, args)], start_new_session=True)
        for _ in range(count)
    ]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            os.killpg(process.pid, 9)
            process.wait()


@contextmanager
def strange(code: str, *args: object, count: int = 1) -> Iterator[list[int]]:
    """Programs that are nobody's children: what a harness starts is its own work, and never a neighbour."""
    words = ["sh", "-c", 'setsid "$@" >/dev/null 2>&1 & echo $!', "sh", sys.executable, "-S", "-c", code]
    words += map(str, args)
    pids = [int(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout) for _ in range(count)]
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, 9)


def used_s(pid: int) -> float:
    """Processor time of a process of one thread, s."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def strangers(ours: set[int]) -> dict[tuple[int, int], float]:
    """Processor time of every process that is neither ours nor a child of ours, by pid and start."""
    found = {pid: task for pid in processes("/proc") if (task := Task.read("/proc", pid))}
    return {
        (pid, task.start): task.cpu_s
        for pid, task in found.items()
        if not ours & {pid, task.parent, task.group, task.session}
    }


def beside(folder: Path, hogs: Hogs, *, threads: int = 1, seconds: float = SECONDS) -> Seen:
    """A window of an engine beside hogs."""
    with running(ENGINE, threads) as (engine,):
        sampler = Sampler.start(folder, Watched(engine, (os.getpid(),)), probes={"tree": {}, "host": {}})
        with strange(HOG, hogs.nice, hogs.begin_s, hogs.seconds, count=hogs.count) as pids:
            time.sleep(0.3)
            ours = {engine, os.getpid(), sampler.process_id, *pids}
            assert sampler.mark()
            before, hogs_before, start = strangers(ours), sum(map(used_s, pids)), time.monotonic_ns()
            time.sleep(seconds)
            end, hogs_after, after = time.monotonic_ns(), sum(map(used_s, pids)), strangers(ours)
            assert sampler.mark()
        assert sampler.stop().complete
    processors = os.sysconf("SC_NPROCESSORS_ONLN") * (end - start) / 1e9
    others = sum(value - before.get(key, 0.0) for key, value in after.items())
    samples = tables.streamed_samples(folder)
    told = neighbours(Samples(samples), start, end)
    assert isinstance(told, Neighbours), told
    record = LaunchRecord("000-00-a", "a", {}, 0, 0, facts={"device_used": "cpu"})
    row = {"request_id": 0, "stream": 0, "stage": "measured", "measured": True, "prompt_id": "0", "turn": 0}
    row |= {"intended_ns": start, "sent_ns": start, "end_ns": end, "chunks": 1, "coalesced": 0}
    requests = with_durations(tables.from_rows("requests", [row]))
    evidence = Evidence(record, requests, Samples(samples), {}, {})
    judged = (foreign_cpu.look(evidence), contention.look(evidence))
    statuses = tuple(verdict[0] for verdict in judged if verdict)
    return Seen(told, (hogs_after - hogs_before) / processors, others / processors, statuses)  # type: ignore[arg-type]


def line(name: str, seen: Seen) -> str:
    wait = str(seen.told.contention) if seen.told.contention else "–"
    shares = f"{seen.hogs:7.1%} {seen.others:7.1%}   {seen.told.share!s:>14}   {wait:>14}"
    return f"{name:<34} {shares}   {seen.statuses[0]:<9} {seen.statuses[1]}"


HEAD = f"{'':<34} {'hogs':>7} {'others':>7}   {'told':>14}   {'waited':>14}   {'foreign':<9} contention"
CASES = {
    "one hog, engine on one thread": (Hogs(1), 1),
    "one hog, engine on every processor": (Hogs(1), 0),
    "two hogs, engine on every processor": (Hogs(2), 0),
    "a burst of 2 s": (Hogs(2, begin_s=3.0, seconds=2.0), 0),
    "a hog of nice 19": (Hogs(1, nice=19), 0),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_hog_is_caught_with_its_share(tmp_path: Path) -> None:
    print(f"\n{os.sysconf('SC_NPROCESSORS_ONLN')} processors, load {os.getloadavg()[0]:.1f}\n{HEAD}")
    for number, (name, (hogs, threads)) in enumerate(CASES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        seen = beside(folder, hogs, threads=threads or os.sysconf("SC_NPROCESSORS_ONLN"))
        print(line(name, seen), flush=True)
        assert seen.told.share.value > seen.truth - POINTS, name
        if seen.others < IDLE:
            assert seen.told.share.value < seen.truth + POINTS, name
        assert seen.statuses[0] != "ok" or seen.statuses[1] != "ok", f"{name} was not caught"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_engine_alone_has_no_neighbour_however_short_the_look(tmp_path: Path) -> None:
    """Every other launch crowds itself with twice as many threads as there are processors."""
    print(f"\n{os.sysconf('SC_NPROCESSORS_ONLN')} processors, load {os.getloadavg()[0]:.1f}\n{HEAD}")
    off, warned, others = [], [], []
    for number in range(LAUNCHES):
        folder = tmp_path / str(number)
        folder.mkdir()
        threads = 1 if number % 2 else 2 * os.sysconf("SC_NPROCESSORS_ONLN")
        seen = beside(folder, Hogs(), threads=threads, seconds=SHORT_S)
        print(line(f"launch {number}, {threads} threads", seen), flush=True)
        off.append(seen.told.share.value - seen.others)
        others.append(seen.others)
        warned.append({"warning", "violated"} & set(seen.statuses))
    print(f"largest error {max(map(abs, off)):.1%}, {sum(map(bool, warned))} of {LAUNCHES} warned")
    if max(others) > IDLE or max(off) > 2 * POINTS:
        pytest.skip(f"others took up to {max(others):.0%} of the processors: this machine is not idle")
    assert max(map(abs, off)) <= IDLE
    assert not any(warned)
