"""A launch during which somebody stopped one of its processes, however shortly, is invalid and names it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil

from bench.judge.validity import judge_folder
from bench.probes.sampler import Sampler
from bench.record.documents import read_launch
from bench.run.progress import Silent
from tests.children import ended
from tests.run.test_conductor import run, write

ONE = {"matrix": "{warmup: [none]}"}
PAUSE_S = 0.03


# What is on each one's command line.
PROCESSES = {
    "load generator": "bench.loadgen.generator_process",
    "sampler": "bench.probes.sampler_process",
    "supervisor": "server_process.py",
    "engine": "bench.emulate.server.program",
}


@dataclasses.dataclass(frozen=True)
class Stopping(Silent):
    """Stops and continues each process of the launch when measuring begins."""

    pids: dict[str, int] = dataclasses.field(default_factory=dict)

    def phase(self, name: str) -> None:
        if name != "measuring" or self.pids:
            return
        children = psutil.Process().children(recursive=True)
        for process, word in PROCESSES.items():
            named = [child for child in children if any(one.endswith(word) for one in child.cmdline())]
            # A process that was forked and has not begun its own program yet has its parent's words.
            pid = min(named, key=psutil.Process.create_time).pid
            self.pids[process] = pid
            os.kill(pid, signal.SIGSTOP)
            time.sleep(PAUSE_S)
            os.kill(pid, signal.SIGCONT)


def test_each_process_that_was_stopped_for_a_moment_is_named(tmp_path: Path) -> None:
    stopping = Stopping()
    folder = run(write(tmp_path, **ONE), progress=stopping) / "launches"
    (launch,) = [one for one in folder.iterdir() if one.is_dir()]
    stops = read_launch(launch).stops
    assert stops is not None
    assert {stop.process: stop.pid for stop in stops} == stopping.pids
    (engine,) = [stop for stop in stops if stop.process == "engine"]
    assert engine.start_ns is not None
    assert engine.end_ns is not None
    assert PAUSE_S / 2 < (engine.end_ns - engine.start_ns) / 1e9 < PAUSE_S + 2
    check = {check.name: check for check in judge_folder(launch)}["stopped"]
    assert check.status == "violated"
    for process, pid in stopping.pids.items():
        assert f"the {process} (process {pid}) was stopped" in check.evidence


def test_a_launch_in_peace_was_watched_and_nothing_was_stopped(tmp_path: Path) -> None:
    folder = run(write(tmp_path, **ONE)) / "launches"
    (launch,) = [one for one in folder.iterdir() if one.is_dir()]
    assert read_launch(launch).stops == []
    assert {check.name: check.status for check in judge_folder(launch)}["stopped"] == "ok"


def test_the_harness_notices_that_it_was_stopped_itself() -> None:
    script = """
        import time
        from bench.run.stops import own_stops
        with own_stops() as found:
            print("ready", flush=True)
            while not found:
                time.sleep(0.01)
            print(*(stop.process for stop in found), flush=True)
    """
    with ended(
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    ) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == "ready\n"
        harness.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        harness.send_signal(signal.SIGCONT)
        assert harness.stdout.read() == "harness\n"


def frozen_ms(folder: Path) -> float:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return max(float(row["v"]["frozen_ms"]) for row in rows if row["p"] == "sampler")


def test_a_standstill_is_noticed_with_its_length(tmp_path: Path) -> None:
    sampler = Sampler.start(tmp_path, probes={"host": {}})
    time.sleep(0.2)
    os.kill(sampler.process_id, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(sampler.process_id, signal.SIGCONT)
    time.sleep(0.2)
    sampler.stop()
    assert 500 < frozen_ms(tmp_path) < 2500, "of 1.5 s, less what was meant to be waited for"


def test_a_busy_machine_is_no_standstill(tmp_path: Path) -> None:
    hogs = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(4)]
    try:
        sampler = Sampler.start(tmp_path, probes={"host": {}})
        time.sleep(1.5)
        sampler.stop()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert frozen_ms(tmp_path) == 0
