"""The sampler's process: it records, survives its probes, and accounts for what it missed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UnknownName
from bench.probes.context import Watched
from bench.probes.probe import Reading
from bench.probes.sampler import Sampler
from bench.probes.sink import Sink
from tests.waiting import until


def lines(folder: Path, probe: str | None = None) -> list[dict[str, Any]]:
    file = folder / "samples.jsonl"
    # While the sampler writes, the last line may be half there.
    whole = (
        [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")] if file.exists() else []
    )
    rows = [json.loads(line) for line in whole]
    return [row for row in rows if probe in (None, row["p"])]


def seen(folder: Path, probe: str) -> bool:
    """Whether a reading of the probe is on the disk yet."""
    file = folder / "samples.jsonl"
    return file.exists() and f'"{probe}"' in file.read_text()


def values(folder: Path, probe: str, field: str) -> list[Any]:
    return [row["v"][field] for row in lines(folder, probe)]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three probes of somebody else's, each bad in its way, found through the entry points like any other."""
    module = tmp_path / "bad_probes.py"
    module.write_text(
        """
import time
from bench.probes.probe import Reading
from bench.record.launches import FieldInfo

class Hangs:
    name, period_s, fields = "hangs", 0.1, (FieldInfo("hangs", "x", "1"),)
    def __init__(self, context): self.n = 0
    def read(self):
        self.n += 1
        if self.n == 3: time.sleep(60)
        return {"x": Reading(1.0)}

class Throws(Hangs):
    name, fields = "throws", (FieldInfo("throws", "x", "1"),)
    def read(self): raise ZeroDivisionError("rubbish in, rubbish out")

class Unbuildable:
    def __init__(self, context): raise OSError("no such bus")
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from bench import plugins

    known = dict(plugins.available("probes"))

    class Point:
        def __init__(self, value: str) -> None:
            self.value = value

    bad = {"hangs": "Hangs", "throws": "Throws", "unbuildable": "Unbuildable"}
    monkeypatch.setattr(
        "bench.probes.sampler.available",
        lambda group: known | {name: Point(f"bad_probes:{cls}") for name, cls in bad.items()},
    )


def test_it_records_the_machine_and_the_tree_it_is_told_to_watch(tmp_path: Path) -> None:
    sampler = Sampler.start(tmp_path, Watched(harness=(os.getpid(),)), probes={"host": {}, "tree": {"period_s": 0.2}})
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
    try:
        until(lambda: seen(tmp_path, "tree"))
        sampler.set_pid(engine.pid)
        until(lambda: 1 in values(tmp_path, "tree", "processes"))
    finally:
        engine.kill()
        engine.wait()
    info = sampler.stop()

    assert info.complete
    assert info.log == ""
    assert values(tmp_path, "tree", "processes")[0] == [None, "not_found"], "no engine before it was named"
    assert 1 in values(tmp_path, "tree", "processes")
    assert values(tmp_path, "tree", "harness_cpu_s")[0] > 0
    stamps = [row["t"] for row in lines(tmp_path, "host")]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - time.monotonic_ns()) < 60e9, "stamps are of this machine's monotonic clock"
    assert {(f.probe, f.field) for f in info.fields} >= {("host", "mem_available_mib"), ("sampler", "cpu_s")}
    assert {key for row in lines(tmp_path) for key in row["v"]} <= {f.field for f in info.fields}


def test_a_probe_that_hangs_throws_or_cannot_start_harms_nobody_else(tmp_path: Path, broken: None) -> None:
    probes: dict[str, dict[str, Any]] = {"host": {}, "hangs": {}, "throws": {}, "unbuildable": {}}
    sampler = Sampler.start(tmp_path, probes=probes)
    until(lambda: [None, "stale"] in values(tmp_path, "hangs", "x") and len(lines(tmp_path, "host")) >= 25)
    info = sampler.stop()

    # The probe hangs for a minute, and the end is waited for by far less: it was not delayed.
    assert info.complete
    assert info.probes["host"]["samples"] >= 25
    assert info.probes["host"]["failed"] == 0
    assert values(tmp_path, "hangs", "x")[:2] == [1.0, 1.0]
    assert [None, "stale"] in values(tmp_path, "hangs", "x")
    assert info.probes["hangs"]["stale"] >= 1
    assert set(map(tuple, values(tmp_path, "throws", "x"))) == {(None, "parse_failed")}
    assert "rubbish in" in info.probes["throws"]["error"]
    assert "no such bus" in info.probes["unbuildable"]["error"]


def test_it_ends_when_the_one_who_started_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from bench.probes.sampler import Sampler;"
        f"s = Sampler.start(Path({str(tmp_path)!r}), probes={{'host': {{}}}}); print(s.process_id, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_what_was_written_stays_when_the_sampler_is_killed(tmp_path: Path) -> None:
    sampler = Sampler.start(tmp_path, probes={"host": {}})
    until(lambda: len(lines(tmp_path, "host")) >= 3)
    os.kill(sampler.process_id, signal.SIGKILL)
    info = sampler.stop()

    assert not info.complete
    assert info.cpu_s is None, "null is not zero"
    assert len(lines(tmp_path, "host")) >= 3
    assert any(field.field == "mem_available_mib" for field in info.fields), (
        "what the fields mean was told at the start"
    )


def test_a_full_disk_costs_lines_and_says_how_many(tmp_path: Path) -> None:
    # A file-size limit stands in for the full disk: the kernel refuses the write in the same place.
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
from bench.probes.sink import Sink
from bench.probes.probe import Reading
sink = Sink({str(tmp_path / "samples.jsonl")!r})
for t in range(5):
    sink.write(t, "p", {{"x": Reading(1.0)}})
    sink.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.write(9, "p", {{"x": Reading(2.0)}})
sink.flush()
print(sink.lost)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    written = (tmp_path / "samples.jsonl").read_text().splitlines()
    whole = [json.loads(line) for line in written if line.endswith("}}")]
    assert [row["t"] for row in whole] == [0, 1, 2, 9]
    assert int(done.stdout) == 2


def test_an_unknown_probe_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean host"):
        Sampler.start(tmp_path, probes={"hots": {}})
    assert not (tmp_path / "samples.jsonl").exists()


def test_a_null_is_written_with_its_reason(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path / "samples.jsonl"))
    sink.write(7, "p", {"a": Reading(0.5), "b": Reading.null("no_permission")})
    sink.flush()
    assert lines(tmp_path) == [{"t": 7, "p": "p", "v": {"a": 0.5, "b": [None, "no_permission"]}}]


def test_the_sampler_yields_to_the_engine(tmp_path: Path) -> None:
    sampler = Sampler.start(tmp_path, probes={"host": {}})
    niceness = os.getpriority(os.PRIO_PROCESS, sampler.process_id)
    sampler.stop()
    assert niceness > os.getpriority(os.PRIO_PROCESS, 0)


def test_a_mark_is_a_reading_at_once_beside_those_that_are_due(tmp_path: Path) -> None:
    sampler = Sampler.start(
        tmp_path, Watched(os.getpid(), (os.getppid(),)), probes={"tree": {"period_s": 30}}, period_s=0.1
    )
    until(lambda: seen(tmp_path, "tree"))
    begun = time.monotonic_ns()
    assert sampler.mark()
    middle = time.monotonic_ns()
    assert sampler.mark()
    ended = time.monotonic_ns()
    info = sampler.stop()
    stamps = [row["t"] for row in lines(tmp_path, "tree")]
    assert [begun < stamp < middle for stamp in stamps[-2:]] == [True, False]
    assert middle < stamps[-1] < ended
    assert info.complete
    assert info.probes["tree"]["missed"] == 0
    assert {"machine_busy_s", "run_s", "wait_s", "sampler_cpu_s", "account_skew_s"} <= lines(tmp_path, "tree")[-1][
        "v"
    ].keys()


def test_marks_that_came_too_late_are_not_taken_for_the_account(tmp_path: Path) -> None:
    sampler = Sampler.start(tmp_path, Watched(os.getpid()), probes={"tree": {}})
    os.kill(sampler.process_id, signal.SIGSTOP)
    assert not sampler.mark()
    os.kill(sampler.process_id, signal.SIGCONT)
    assert sampler.mark()
    assert sampler.stop().complete
