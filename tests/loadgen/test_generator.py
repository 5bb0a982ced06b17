import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap
import time
from array import array
from itertools import pairwise
from pathlib import Path

import pytest

from bench.errors import InternalError
from bench.loadgen.generator import LoadGenerator, next_bytes
from bench.loadgen.job import Driven, Job
from bench.record.launches import ClockAccount
from bench.record.schema import CHUNKS, REQUESTS
from bench.scenario.model import Arrivals
from tests.children import ended
from tests.loadgen.jobs import job


def test_rows_and_chunks_have_the_recorded_columns_and_no_others(generator: LoadGenerator, port: int) -> None:
    driven = generator.drive(job(port, 3))
    # Which host sent it is known to whoever drives several.
    own = [column for column in REQUESTS if column.name != "client"]
    assert [list(row) for row in driven.requests] == [[column.name for column in own]] * 3
    assert list(driven.chunks) == [column.name for column in CHUNKS]
    types = {"int64": int, "float64": float, "string": str, "bool": bool}
    for row in driven.requests:
        for column in own:
            value = row[column.name]
            assert isinstance(value, types[column.type]) or (value is None and column.null), column.name
    for column in CHUNKS:
        assert all(value is not None or column.null for value in driven.chunks[column.name])


def test_a_good_answer_fills_its_row(generator: LoadGenerator, port: int) -> None:
    driven = generator.drive(job(port))
    (row,) = driven.requests
    assert (row["status"], row["error"], row["stamp_source"], row["connect_ns"]) == (200, None, "kernel", None)
    assert (row["prompt_tokens"], row["completion_tokens"], row["chunks"]) == (3, 4, 4)
    assert (row["text"], row["finish_reason"], row["output_tokens_asked"]) == ("the pump was stopped", "length", 4)
    assert 4_900_000 < row["first_token_ns"] - row["sent_ns"] < 50_000_000
    assert row["first_token_ns"] <= row["last_token_ns"] <= row["end_ns"]
    assert driven.chunks["kind"] == ["content"] * 4 + ["usage", "done"]
    assert driven.chunks["request_id"] == [0] * 6
    assert driven.chunks["seq"] == list(range(6))
    assert driven.chunks["user_ns"][0] >= driven.chunks["kernel_ns"][0] == row["first_token_ns"]


def test_the_client_accounts_for_itself(generator: LoadGenerator, port: int) -> None:
    client = generator.drive(job(port, 20)).client
    assert client["events"] == 120
    assert 0 < client["cpu_s"] < client["wall_s"]
    assert 10 < client["rss_mib"] < 150
    assert client["cpu_us_per_event"] == pytest.approx(client["cpu_s"] * 1e6 / 120)
    assert client["clock"]["steps"] == 0
    assert client["missed"] == 0


def test_jobs_add_up(port: int) -> None:
    with LoadGenerator() as generator:
        assert generator.clock() == ClockAccount()
        clients = [generator.drive(job(port, count)).client for count in (2, 5)]
        account = generator.account()
    assert account.events == 42
    assert account.cpu_s == sum(client["cpu_s"] for client in clients)
    assert account.rss_mib == max(client["rss_mib"] for client in clients)
    assert generator.clock().offset_before_ns == clients[0]["clock"]["offset_before_ns"]


def test_progress_is_told_while_driving(generator: LoadGenerator, port: int) -> None:
    told: list[tuple[int, int]] = []
    slow = {"ttft_ms": 120}
    generator.drive(job(port, 8, simulate=slow), progress=lambda done, of: told.append((done, of)))
    assert told
    assert told == sorted(told)
    assert all(0 < done <= of == 8 for done, of in told)


def test_the_first_token_is_told_while_the_answer_goes_on(generator: LoadGenerator, port: int) -> None:
    told: list[int] = []
    slow = {"ttft_ms": 50, "itl_ms": 300}
    driven = generator.drive(job(port, 2, simulate=slow), first_token=lambda: told.append(time.monotonic_ns()))
    (at,) = told
    first, second = driven.requests
    assert first["first_token_ns"] <= at < first["end_ns"] < second["first_token_ns"]


def test_an_answer_without_a_token_tells_of_none(generator: LoadGenerator, port: int) -> None:
    told: list[str] = []
    driven = generator.drive(job(port, simulate={"fault": "http_500"}), first_token=lambda: told.append("first"))
    assert (driven.requests[0]["status"], told) == (500, [])


def test_the_text_is_kept_only_where_it_is_wanted(generator: LoadGenerator, port: int) -> None:
    assert generator.drive(job(port, keep_text=False)).requests[0]["text"] is None


def test_no_requests_are_no_work() -> None:
    assert LoadGenerator().drive(Job("127.0.0.1", 1, (), Arrivals(closed=1))) == Driven()


def test_the_driving_process_stays_lean(generator: LoadGenerator, port: int) -> None:
    generator.drive(job(port))
    (pid,) = generator.harness_pids
    mapped = Path(f"/proc/{pid}/maps").read_text()
    for heavy in ("pandas", "pyarrow", "pydantic", "numpy", "matplotlib"):
        assert heavy not in mapped


def test_a_load_generator_that_was_killed_says_so_and_the_next_job_gets_a_new_one(port: int) -> None:
    with LoadGenerator() as generator:
        (pid,) = generator.harness_pids
        with pytest.raises(InternalError, match="ended with status -9"):
            generator.drive(job(port, 50, simulate={"ttft_ms": 50}), lambda *_: os.kill(pid, signal.SIGKILL))
        assert generator.drive(job(port)).requests[0]["error"] is None
        assert generator.harness_pids != (pid,)


def test_a_load_generator_that_falls_silent_in_mid_message_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.loadgen.generator._PATIENCE_S", 0.2)

    def stop_while_it_writes(*_: int) -> None:
        process = generator._process
        assert process is not None
        assert process.stdout is not None
        held = array("i", [0])
        while held[0] < 50_000:
            fcntl.ioctl(process.stdout.fileno(), termios.FIONREAD, held)
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)

    with LoadGenerator() as generator:
        with pytest.raises(InternalError, match=r"was stopped \(SIGSTOP\) and not continued in mid-message"):
            generator.drive(job(port, 300, simulate={"ttft_ms": 2}), stop_while_it_writes)
        assert generator.drive(job(port)).requests[0]["error"] is None


def test_time_in_which_the_harness_was_stopped_as_well_is_not_held_against_the_load_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock of its own: the first wait lasts an hour, because everything was stopped; then the bytes come."""
    monkeypatch.setattr("bench.loadgen.generator._PATIENCE_S", 3.0)
    now, waits = [0.0], iter([3600.0, 1.0, None])

    def waited(reading: list[int], *_: object) -> tuple[list[int], list[int], list[int]]:
        took = next(waits)
        now[0] += took or 0.0
        return ([] if took else reading, [], [])

    monkeypatch.setattr("bench.loadgen.generator.select.select", waited)
    monkeypatch.setattr("bench.loadgen.generator.time.monotonic", lambda: now[0])
    reading, writing = os.pipe()
    os.write(writing, b"whole")
    assert next_bytes(reading, 10) == b"whole"
    waits = iter([1.0, 3600.0, 1.0])
    with pytest.raises(TimeoutError):
        next_bytes(reading, 10)
    os.close(reading)
    os.close(writing)


def test_the_whole_group_may_be_stopped_for_longer_than_a_silence_may_last(port: int, tmp_path: Path) -> None:
    script = f"""
        from bench.loadgen import generator
        from tests.loadgen.jobs import job
        generator._PATIENCE_S, generator._SLICE_S = 1.0, 0.1
        told = []
        with generator.LoadGenerator() as generator:
            print(*generator.harness_pids, flush=True)
            def once(*_):
                told or (told.append(1), print("writing", flush=True))
            driven = generator.drive(job({port}, 12, tokens=10, simulate={{"text": "x" * 50_000, "ttft_ms": 30}}), once)
        print(sum(len(row["text"]) for row in driven.requests))
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)) as harness:
        assert harness.stdout is not None
        worker = int(harness.stdout.readline())
        assert harness.stdout.readline() == "writing\n"
        for pause in (0.2, 1.3):
            for pid in (harness.pid, worker):
                os.kill(pid, signal.SIGSTOP)
            time.sleep(pause)
            for pid in (worker, harness.pid):
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.1)
        assert harness.stdout.read() == f"{12 * 10 * 50_000}\n"


def test_an_interrupt_in_the_middle_of_a_job_leaves_nothing_of_it_to_the_next_one(port: int) -> None:
    def interrupt(_: int, __: int) -> None:
        raise KeyboardInterrupt

    with LoadGenerator() as generator:
        with pytest.raises(KeyboardInterrupt):
            generator.drive(job(port, 50, simulate={"ttft_ms": 50}), progress=interrupt)
        assert generator.harness_pids == ()
        assert len(generator.drive(job(port, 2)).requests) == 2


HARNESS = """
    import sys
    from bench.loadgen.job import Job, Request
    from bench.loadgen.generator import LoadGenerator
    from bench.scenario.model import Arrivals

    body = {"prompt": [1], "max_tokens": 1000, "stream": True, "simulate": {"itl_ms": 20}}
    with LoadGenerator() as generator:
        print(*generator.harness_pids, flush=True)
        request = Request(0, "p", "measured", "/v1/completions", body)
        generator.drive(Job("127.0.0.1", int(sys.argv[1]), (request,), Arrivals(closed=1)))
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_killing_the_harness_takes_the_load_generator_with_it(port: int, after_s: float) -> None:
    argv = [sys.executable, "-c", textwrap.dedent(HARNESS), str(port)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        assert alive(pid)
        time.sleep(after_s)
        harness.kill()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def test_ctrl_c_reaches_the_harness_and_not_the_load_generator(port: int) -> None:
    argv = [sys.executable, "-c", textwrap.dedent(HARNESS), str(port)]
    with ended(
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    ) as harness:
        assert harness.stdout is not None
        assert harness.stderr is not None
        pid = int(harness.stdout.readline())
        time.sleep(0.3)
        os.killpg(harness.pid, signal.SIGINT)
        said = harness.stderr.read()
    assert said.strip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1
    assert not alive(pid)


def test_a_capped_overload_is_let_go_by_the_ends_of_the_answers_before_and_the_client_missed_nothing(
    generator: LoadGenerator, port: int
) -> None:
    # 20 requests due at 200/s, one at a time, each taking 30 ms: the last waits for 19 answers, not for us.
    arrivals = Arrivals(rate=200.0, max_in_flight=1)
    rows = generator.drive(job(port, 20, tokens=1, simulate={"ttft_ms": 30}, arrivals=arrivals)).requests
    assert rows[0]["released_ns"] == rows[0]["intended_ns"]
    for before, row in pairwise(rows):
        assert row["released_ns"] == max(row["intended_ns"], before["end_ns"])
    waited = rows[-1]["released_ns"] - rows[-1]["intended_ns"]
    assert waited >= (19 * 30 - 19 * 5) * 1_000_000
    assert rows[-1]["sent_ns"] - rows[-1]["released_ns"] < waited / 5


def test_where_nothing_caps_the_load_nothing_was_let_go(generator: LoadGenerator, port: int) -> None:
    for arrivals in (Arrivals(closed=2), Arrivals(rate=500.0)):
        rows = generator.drive(job(port, 4, arrivals=arrivals)).requests
        assert {row["released_ns"] for row in rows} == {None}
