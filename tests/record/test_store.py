"""A run's folder: whole launches or none, one writer, clear words for everything that can be wrong with it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench.errors import Exit, InternalError, RecordError
from bench.record import tables
from bench.record.documents import read_launch
from bench.record.engine_log import LogLine
from bench.record.launches import (
    Check,
    ClockAccount,
    FieldInfo,
    LaunchRecord,
    MemoryReturned,
    MemoryServed,
    MemoryState,
    OracleAnswer,
    PageCacheState,
    ParentAccount,
    Phase,
    ProbeAccount,
    StartAccount,
    Stop,
    WarmupStage,
)
from bench.record.manifest import Manifest
from bench.record.store import LaunchTables, RunFolder
from tests.runs import Behaviour, synthetic_run


def manifest(**changes: Any) -> Manifest:
    fixed: dict[str, Any] = {"run_id": "r1", "scenario": "s", "scenario_digest": "d", "scenario_text": "", "seed": 1}
    return Manifest(**(fixed | {"variants": [], "plan": []} | changes))


def record(launch_id: str = "000-00-a") -> LaunchRecord:
    return LaunchRecord(launch_id=launch_id, variant="a", factors={"engine": "a"}, block=0, position=0)


REQUEST = {
    "request_id": 0,
    "stream": 0,
    "stage": "measured",
    "measured": True,
    "prompt_id": "p",
    "turn": 0,
    "intended_ns": 10**17 + 1,
    "chunks": 0,
    "coalesced": 0,
}


# launch.json as versions before this one wrote it: accounts in part, empty, or with keys of their own.
EARLIER = """{
 "schema_version": 1, "launch_id": "000-00-a", "variant": "a", "factors": {}, "block": 0, "position": 0,
 "clock": {}, "stops": [{"process": "engine", "pid": 5}], "exit": {"code": 0, "leftover": [], "of a later version": 1},
 "state_before": {
  "page_cache": {"mode": "drop", "resident": 0.01, "achieved": true},
  "warmup": {"compile-cache": {"asked": "warm", "before": {"bytes": 4096}}, "page-cache": {"seconds": 0.5}}},
 "warmup": [{"label": "requests", "requests": 3, "ok": 2, "start_ns": 1, "end_ns": 2, "reason": null}],
 "memory": {
  "before": {"kind": "unified", "available_mib": 5000.0}, "served": {"t_ns": 7, "pss_mib": 300.0}, "after": {}},
 "client": {
  "cpu_s": 0.25, "sampler": {"complete": true, "probes": {"host": {"samples": 9, "missed": 1, "error": null}}}},
 "checks": [{"name": "swap", "status": "ok", "evidence": "no page"}], "facts": {"device_used": "cpu", "graphs": [1, 2]}
}"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, manifest())


def test_what_is_finished_is_read_back_whole(folder: RunFolder) -> None:
    launch = record()
    launch.checks = [Check("steal", "ok", "none", "1 %", None)]
    launch.fields = [FieldInfo("host", "pss", "MiB")]
    launch.stamps = {"spawn": 10**17 + 3, "ready": None}
    with folder:
        (folder.begin("000-00-a") / "engine.log").write_text("12 out hello  world\n13 err bye\n14 o")
        folder.finish(
            "000-00-a",
            launch,
            LaunchTables(
                requests=[REQUEST],
                chunks={
                    "request_id": [0, 0],
                    "seq": [0, 1],
                    "user_ns": [1, 2],
                    "read": [0, 0],
                    "kind": ["content"] * 2,
                },
                events=[{"t_ns": 1, "source": "x", "name": "y", "detail": None}],
                phases=[Phase("graphs", None, None, "log", reason="not_found")],
                logprobs=[{"request_id": 0, "tokens": [1, 2]}],
            ),
        )
    again = RunFolder.open(folder.path)
    assert again.finished() == {"000-00-a": launch}
    assert again.read("000-00-a", "requests")["intended_ns"].to_pylist() == [10**17 + 1]
    assert again.read("000-00-a", "requests")["first_token_ns"].to_pylist() == [None]
    assert again.read("000-00-a", "chunks", ["seq", "kernel_ns"]).to_pydict() == {
        "seq": [0, 1],
        "kernel_ns": [None] * 2,
    }
    assert again.read("000-00-a", "phases")["reason"].to_pylist() == ["not_found"]
    assert again.read("000-00-a", "samples").num_rows == 0
    assert again.logprobs("000-00-a") == [{"request_id": 0, "tokens": [1, 2]}]
    assert list(again.log("000-00-a")) == [LogLine(12, "out", "hello  world"), LogLine(13, "err", "bye")]


def test_a_launch_in_flight_is_not_finished_and_its_leftovers_are_swept(folder: RunFolder) -> None:
    with folder:
        leftover = folder.begin("000-00-a")
        (leftover / "engine.log").write_text("1 out half\n")
    assert folder.finished() == {}
    assert leftover.exists()
    with RunFolder.open(folder.path):
        assert not leftover.exists()


def test_two_writers_cannot_share_a_folder_and_the_second_is_told_who_has_it(folder: RunFolder) -> None:
    with folder, pytest.raises(RecordError, match=f"in use by another run .process {os.getpid()}"):
        RunFolder.open(folder.path).__enter__()
    with RunFolder.open(folder.path):
        pass


def test_writing_without_the_lock_is_a_fault_of_ours(folder: RunFolder) -> None:
    with pytest.raises(InternalError, match="without holding its lock"):
        folder.begin("000-00-a")


def test_the_manifest_is_replaced_whole(folder: RunFolder) -> None:
    with folder:
        folder.save(manifest(state="complete", fingerprint={"temperature": float("nan"), "path": Path("x")}))
    again = RunFolder.open(folder.path).manifest
    assert again.state == "complete"
    assert again.fingerprint == {"temperature": None, "path": "x"}
    assert not list(folder.path.glob(".*.partial"))


def test_the_same_run_is_not_created_twice(folder: RunFolder) -> None:
    with pytest.raises(RecordError, match="--resume"):
        RunFolder.create(folder.path.parent.parent, manifest())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "manifest.json").unlink(), "does not exist"),
        (lambda path: (path / "manifest.json").write_text("{"), "damaged"),
        (lambda path: (path / "manifest.json").write_text("[]"), "not an object"),
        (lambda path: (path / "manifest.json").write_text('{"schema_version": 1}'), "damaged: .*run_id"),
        (
            lambda path: (path / "manifest.json").write_text('{"schema_version": 99}'),
            "schema version 99, this .* reads 1",
        ),
        (lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"), "damaged"),
    ],
)
def test_a_damaged_manifest_is_said_in_words(folder: RunFolder, spoil: Any, message: str) -> None:
    spoil(folder.path)
    with pytest.raises(RecordError, match=message) as caught:
        RunFolder.open(folder.path)
    assert caught.value.exit_code == Exit.USAGE
    assert str(folder.path) in str(caught.value)


def test_a_flipped_byte_in_a_table_is_found(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, {"a": Behaviour()}, blocks=1, requests=40)
    path = run / "launches" / "000-00-a" / "chunks.parquet"
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RecordError, match="damaged"):
        RunFolder.open(run).read("000-00-a", "chunks")
    path.write_bytes(content[:100])
    with pytest.raises(RecordError, match="damaged"):
        RunFolder.open(run).read("000-00-a", "chunks", ["seq"])
    path.unlink()
    with pytest.raises(RecordError, match="does not exist"):
        RunFolder.open(run).read("000-00-a", "chunks")


def test_a_record_of_an_earlier_version_opens_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "launch.json").write_text(EARLIER)
    read = read_launch(tmp_path)
    assert read.memory.before == MemoryState("unified", available_mib=5000.0)
    assert read.memory.served == MemoryServed(7, 300.0)
    assert read.memory.after == MemoryReturned(returned=None)
    assert read.client.cpu_s == 0.25
    assert read.client.rss_mib is None
    assert read.client.sampler is not None
    assert read.client.sampler.probes == {"host": ProbeAccount(samples=9, missed=1)}
    assert read.warmup == [WarmupStage("requests", 3, 2, 1, 2)]
    assert read.state_before.page_cache == PageCacheState(mode="drop", resident=0.01, achieved=True)
    assert (read.state_before.prepare_s, read.state_before.cache_bytes) == (0.5, 4096)
    assert (read.exit.code, read.exit.killed) == (0, None)
    assert read.clock == ClockAccount()
    assert read.stops == [Stop("engine", 5)]
    assert read.facts == {"device_used": "cpu", "graphs": [1, 2]}


@pytest.mark.parametrize("damage", ['"memory": 3', '"checks": [7]', '"client": {"sampler": []}', '"warmup": {"a": 1}'])
def test_a_record_of_another_shape_is_damaged_and_says_where(tmp_path: Path, damage: str) -> None:
    (tmp_path / "launch.json").write_text(EARLIER.rstrip("}\n") + f"}}, {damage}}}")
    with pytest.raises(RecordError, match=r"launch\.json is damaged"):
        read_launch(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"request_id": "one"}], "requests.request_id must be int64"),
        ([REQUEST | {"ttft": 3}], "no column ttft"),
        ([{key: value for key, value in REQUEST.items() if key != "measured"}], "requests.measured may not be null"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(
    folder: RunFolder, rows: list[dict[str, Any]], message: str
) -> None:
    with folder:
        folder.begin("000-00-a")
        with pytest.raises(InternalError, match=message):
            folder.finish("000-00-a", record(), LaunchTables(requests=rows))
    assert folder.finished() == {}


def test_a_full_disk_is_named_and_costs_only_the_launch_in_flight(folder: RunFolder) -> None:
    with folder:
        folder.begin("000-00-a")
        folder.finish("000-00-a", record())
        # /dev/full answers every write as a full disk does.
        (folder.begin("000-01-a") / "requests.parquet").symlink_to("/dev/full")
        with pytest.raises(RecordError, match="no space left") as caught:
            folder.finish("000-01-a", record("000-01-a"), LaunchTables(requests=[REQUEST]))
    assert "--resume" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert list(RunFolder.open(folder.path).finished()) == ["000-00-a"]


def test_the_samplers_lines_become_the_table_up_to_where_they_were_cut(folder: RunFolder) -> None:
    ticks = [
        {"t": 5, "p": "host", "v": {"pss": 1.5, "gpu": [None, "unsupported"]}},
        {"t": 6, "p": "host", "v": {"pss": 2}},
    ]
    text = "\n".join(json.dumps(tick) for tick in ticks) + "\nnot json\n" + '{"t": 7, "p": "host", "v": {"ps'
    with folder:
        (folder.begin("000-00-a") / "samples.jsonl").write_text(text)
        final = folder.finish("000-00-a", record())
    assert not (final / "samples.jsonl").exists()
    assert folder.read("000-00-a", "samples").to_pylist() == [
        {"t_ns": 5, "probe": "host", "field": "pss", "value": 1.5, "reason": None},
        {"t_ns": 5, "probe": "host", "field": "gpu", "value": None, "reason": "unsupported"},
        {"t_ns": 6, "probe": "host", "field": "pss", "value": 2.0, "reason": None},
    ]


def test_an_arrow_stream_is_taken_up_to_its_last_whole_batch(tmp_path: Path) -> None:
    schema = tables.arrow_schema("samples")
    row = {"t_ns": 1, "probe": "p", "field": "f", "value": 1.0, "reason": None}
    with pa.OSFile(str(tmp_path / "samples.arrows"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for _ in range(3):
            writer.write_batch(pa.RecordBatch.from_pylist([row], schema))
    whole = (tmp_path / "samples.arrows").read_bytes()
    (tmp_path / "samples.arrows").write_bytes(whole[: len(whole) - 40])
    assert 1 <= tables.streamed_samples(tmp_path).num_rows < 4


WRITER = """
import sys
from pathlib import Path
from bench.record.store import LaunchTables, RunFolder
from tests.record.test_store import record, REQUEST
folder = RunFolder.open(Path(sys.argv[1]))
with folder:
    for number in range(10_000):
        name = f"{number:05d}"
        if not folder.launch_path(name).exists():
            folder.begin(name)
            folder.finish(name, record(name), LaunchTables(requests=[REQUEST] * 50))
            print(name, flush=True)
"""


def test_kill_9_at_any_moment_leaves_whole_launches_and_a_folder_that_goes_on(folder: RunFolder) -> None:
    """Every finished launch survives, none is half there, and the next writer is not kept out."""
    told: list[str] = []
    for delay in (0.0, 0.003, 0.007, 0.013, 0.021):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder.path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        told.append(writer.stdout.readline().strip())
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        again = RunFolder.open(folder.path)
        finished = again.finished()
        assert set(told) <= set(finished)
        for name in finished:
            assert again.read(name, "requests").num_rows == 50
    assert len(told) >= 5
    with RunFolder.open(folder.path):
        assert not list((folder.path / "launches").glob(".*"))


def test_a_column_that_an_earlier_version_did_not_write_is_null(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    earlier = tables.from_rows("requests", [REQUEST]).drop_columns(["first_argument_ns", "count_reason"])
    tables.write(path, earlier)
    whole = tables.read(path, "requests")
    assert whole.schema.names == tables.arrow_schema("requests").names
    assert (whole["first_argument_ns"].to_pylist(), whole["count_reason"].to_pylist()) == ([None], [None])
    assert tables.read(path, "requests", ["count_reason", "stage"]).to_pylist() == [
        {"count_reason": None, "stage": REQUEST["stage"]}
    ]
    tables.write(path, earlier.drop_columns(["stage"]))
    with pytest.raises(RecordError, match="lacks the columns stage"):
        tables.read(path, "requests")


def test_where_a_launch_came_from_is_read_back_typed_and_an_older_record_says_nothing_of_it(folder: RunFolder) -> None:
    start = StartAccount("forked", "forked", parent=ParentAccount("torch-2", 7, 99, 12.5, skipped={"a": "not there"}))
    launch = record()
    launch.start = replace(start, ancestry=[8, 7, 1], oracle=OracleAnswer("token_id:1", -0.5))
    with folder:
        folder.begin("000-00-a")
        path = folder.finish("000-00-a", launch, LaunchTables()) / "launch.json"
    assert read_launch(path.parent).start == launch.start
    older = json.loads(path.read_text())
    del older["start"]
    path.write_text(json.dumps(older))
    assert read_launch(path.parent).start == StartAccount()
