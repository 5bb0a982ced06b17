"""What our processes say to each other arrives whole, also when they are stopped and continued while they say it."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import pipes
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.selfcheck import server
from bench.probes.sampler import Sampler
from tests.children import ended
from tests.loadgen.jobs import job

LONG = 1_500_000
# Each program of ours that speaks through a pipe, made to say one long thing by its own means.
SPEAKERS = {
    "sampler": f"""
        from bench.probes import sampler_process
        sampler_process._say({{"x": "x" * {LONG}}})
    """,
    "supervisor": f"""
        from bench.engines.server_process import Supervisor
        Supervisor({{"log": "/dev/null"}}).report("spawned", x="x" * {LONG})
    """,
    "jtop sidecar": f"""
        from bench.programs import jtop_process
        jtop_process.say({{"x": "x" * {LONG}}})
    """,
    "quantize worker": f"""
        import sys
        from bench.programs import quantize_process
        quantize_process.quantize = lambda job, report: report("done", x="x" * {LONG})
        sys.argv[1:] = [sys.argv[1]]
        quantize_process.main()
    """,
    "transformers server": f"""
        from bench.programs.transformers_server.events import Events
        Events("/dev/stdout").emit("loaded", x="x" * {LONG})
    """,
    "command line": f"""
        from bench.cli import main
        from bench.scenario import reference
        reference.schema_text = lambda: '{{"x": "' + "x" * {LONG} + '"}}\\n'
        main(["schema"])
    """,
}


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def unbuffered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PYTHONUNBUFFERED", str(request.param))
    return str(request.param)


def held(descriptor: int) -> int:
    waiting = array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    return waiting[0]


def stopped_and_continued(process: subprocess.Popen[bytes], seed: int) -> bytes:
    """All that it says; it is stopped and continued each time it waits for room."""
    draw = random.Random(seed)
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    said = bytearray()
    for _ in range(6):
        while held(pipe) < 60_000 and process.poll() is None:
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
            time.sleep(draw.uniform(0, 0.01))
            process.send_signal(signal.SIGCONT)
        time.sleep(draw.uniform(0.001, 0.01))
        said += os.read(pipe, draw.randrange(1, 100_000))
    return bytes(said) + process.stdout.read()


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_long_message_survives_being_stopped_and_continued(speaker: str, unbuffered: str, tmp_path: Path) -> None:
    given = tmp_path / "job.json"
    given.write_text("{}")
    argv = [sys.executable, "-c", textwrap.dedent(SPEAKERS[speaker]), str(given)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE)) as process:
        said = stopped_and_continued(process, seed=LONG)
    assert process.returncode == 0
    assert said.count(b"x" * LONG) == 1
    assert said.endswith(b"}\n")


@contextlib.contextmanager
def storm(pid: int, seed: int) -> Iterator[None]:
    """Stops and continues a process at random moments; it runs again at the end."""
    draw, over = random.Random(seed), threading.Event()

    def blow() -> None:
        while not over.wait(draw.uniform(0.001, 0.02)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                over.wait(draw.uniform(0.0, 0.005))
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_the_load_generators_answers_arrive_whole_through_a_storm(unbuffered: str) -> None:
    word = "x" * 20_000
    with server({"ttft_ms": 1, "itl_ms": 0}) as port, LoadGenerator() as generator:
        (pid,) = generator.harness_pids
        with storm(pid, seed=2):
            driven = generator.drive(job(port, 20, tokens=10, simulate={"text": word}, timeout_s=60.0))
    assert [row["error"] for row in driven.requests] == [None] * 20
    assert [row["text"] for row in driven.requests] == [word * 10] * 20


def test_a_load_generator_stopped_while_it_writes_goes_on_where_it_was(unbuffered: str) -> None:
    word = "x" * 20_000

    def stop_once(*_: int) -> None:
        """Called at the first progress: lets the answers fill the pipe, then stops and continues."""
        process = generator._process
        assert process is not None
        assert process.stdout is not None
        while held(process.stdout.fileno()) < 50_000:
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)

    with server({"ttft_ms": 30, "itl_ms": 0}) as port, LoadGenerator() as generator:
        driven = generator.drive(job(port, 10, tokens=10, simulate={"text": word}), stop_once)
    assert [row["text"] for row in driven.requests] == [word * 10] * 10


def test_a_sampler_that_is_stopped_and_continued_still_gives_its_account(unbuffered: str, tmp_path: Path) -> None:
    sampler = Sampler.start(tmp_path, probes={"host": {}})
    with storm(sampler.process_id, seed=3):
        for number in range(2000):
            sampler.set_metrics_url(f"http://127.0.0.1:{number}/{'x' * 80}")
        info = sampler.stop()
    assert info.complete
    assert info.probes["host"]["samples"] > 0
    assert info.log == ""


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing() -> None:
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    whole = random.Random(4).randbytes(LONG)

    def say() -> None:
        pipes.write_all(writing, whole)
        os.close(writing)

    thread = threading.Thread(target=say)
    thread.start()
    got = bytearray()
    while part := pipes.read_some(reading, 10_000):
        got += part
    thread.join()
    os.close(reading)
    assert bytes(got) == whole


def test_programs_that_import_nothing_of_ours_carry_the_same_text() -> None:
    def text(file: Path) -> str | None:
        functions = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
        return next((ast.unparse(node) for node in functions if node.name == "write_all"), None)

    root = Path(pipes.__file__).parent
    copies = {str(file.relative_to(root)): found for file in root.rglob("*.py") if (found := text(file))}
    assert set(copies) == {
        "pipes.py",
        "engines/server_process.py",
        "programs/jtop_process.py",
        "programs/quantize_process.py",
        "programs/transformers_server/events.py",
    }
    assert len(set(copies.values())) == 1
