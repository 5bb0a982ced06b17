"""A launched engine starts, is waited for, and leaves nothing behind, whatever its habits."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.engines import server_process
from bench.engines.engine import Endpoint, LaunchSpec
from bench.engines.server import Server, free_port, start
from bench.errors import LaunchError

CHILD = Path(__file__).parent / "child.py"


def spec(*habits: str, **changes: Any) -> LaunchSpec:
    port = changes.pop("port", None) or free_port()
    return LaunchSpec(
        argv=(sys.executable, "-S", "-E", str(CHILD), str(port), *habits),
        env=changes.pop("env", {}),
        endpoint=Endpoint("127.0.0.1", port, changes.pop("model", "m")),
        **{"ready_timeout_s": 20.0, "stop_timeout_s": 5.0, **changes},
    )


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def launch(*habits: str, **changes: Any) -> Server:
        servers.append(start(spec(*habits, **changes), tmp_path))
        return servers[-1]

    yield launch
    for server in servers:
        server.stop()


def gone(pids: list[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(living(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_launch_stamps_its_milestones_in_order_and_ends_politely(launch: Callable[..., Server]) -> None:
    before = time.monotonic_ns()
    server = launch()
    server.wait_healthy()
    assert server.alive()
    assert server.pid in server.tree()
    ended = server.stop()
    assert (ended["signal"], ended["killed"], ended["leftover"]) == ("SIGTERM", False, [])
    assert ended["max_rss_mib"] > 1
    order = [server.stamps[name] for name in ("spawn", "first_output", "port_open", "health", "stop", "exit")]
    assert None not in order
    stamps = [before, *(stamp for stamp in order if stamp), time.monotonic_ns()]
    assert stamps == sorted(stamps)
    assert not server.alive()
    assert server.stop() == ended


def test_health_is_waited_for_beyond_the_open_port_and_the_waiting_is_told(launch: Callable[..., Server]) -> None:
    waits: list[float] = []
    server = launch("slow_health")
    server.wait_healthy(waits.append)
    assert len(waits) >= 3
    assert waits == sorted(waits)
    assert (server.stamps["health"] or 0) > (server.stamps["port_open"] or 0)


def test_children_that_fork_ignore_term_and_daemonise_are_all_ended(launch: Callable[..., Server]) -> None:
    server = launch("forks", "daemonises", "ignores_term", stop_timeout_s=0.3)
    server.wait_healthy()
    tree = server.tree()
    assert len(tree) == 3
    ended = server.stop()
    assert ended["killed"]
    assert ended["signal"] == "SIGKILL"
    assert ended["leftover"] == []
    assert not any(living(pid) for pid in tree)


def test_children_left_by_an_engine_that_ended_are_ended_too(launch: Callable[..., Server]) -> None:
    server = launch("forks", "daemonises")
    server.wait_healthy()
    tree = server.tree()
    os.kill(server.pid or 0, signal.SIGKILL)
    while server.alive():
        time.sleep(0.01)
    ended = server.stop()
    assert ended["by_itself"]
    assert ended["signal"] == "SIGKILL"
    assert not any(living(pid) for pid in tree)


@pytest.mark.parametrize("killed", [False, True])
def test_what_an_engine_leaves_among_temporary_files_goes_with_it(launch: Callable[..., Server], killed: bool) -> None:
    server = launch("litters")
    server.wait_healthy()
    assert (server.scratch / "cache" / "kernels" / "everything").is_symlink()
    if killed:
        assert server._supervisor is not None
        server._supervisor.kill()
    server.stop()
    assert not server.scratch.exists()


def test_a_scenario_may_choose_the_place_of_temporary_files(launch: Callable[..., Server], tmp_path: Path) -> None:
    server = launch("litters", env={"TMPDIR": str(tmp_path)})
    server.wait_healthy()
    server.stop()
    assert (tmp_path / "cache").is_dir()


def test_an_engine_that_dies_at_start_says_why(launch: Callable[..., Server]) -> None:
    server = launch("dies_at_start")
    with pytest.raises(LaunchError, match="torchvision") as caught:
        server.wait_healthy()
    assert caught.value.kind == "missing_module"
    assert caught.value.tail[-1] == "ModuleNotFoundError: No module named 'torchvision'"


@pytest.mark.parametrize(("habit", "words"), [("segfaults", "segmentation fault"), ("silent_exit", "status 0")])
def test_an_engine_that_dies_wordless_is_a_crash(launch: Callable[..., Server], habit: str, words: str) -> None:
    with pytest.raises(LaunchError, match=words) as caught:
        launch(habit).wait_healthy()
    assert caught.value.kind == "crash_at_start"


@pytest.mark.parametrize(("habit", "words"), [("never_ready", "answers 500"), ("never_listens", "port is closed")])
def test_an_engine_that_never_becomes_ready_is_given_up(launch: Callable[..., Server], habit: str, words: str) -> None:
    server = launch(habit, ready_timeout_s=0.6)
    with pytest.raises(LaunchError, match=words) as caught:
        server.wait_healthy()
    assert caught.value.kind == "not_ready"
    assert server.stop()["leftover"] == []


def test_an_engine_that_dies_while_serving_is_noticed(launch: Callable[..., Server]) -> None:
    server = launch("dies_serving")
    server.wait_healthy()
    connection = http.client.HTTPConnection(server.endpoint.host, server.endpoint.port)
    connection.request("GET", "/die")
    connection.getresponse().read()
    connection.close()
    deadline = time.monotonic() + 5
    while server.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    failure = server.failure("serving")
    assert failure.kind == "crash_while_serving"
    assert "status 3" in failure.message
    assert failure.tail[-1] == "RuntimeError: Engine core died"


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"port {port}.*by process {os.getpid()}") as caught:
            start(spec(port=port), tmp_path)
    assert caught.value.kind == "port"
    assert not (tmp_path / "engine.log").exists()


def test_a_port_that_an_older_process_takes_meanwhile_is_not_mistaken_for_the_engine(
    launch: Callable[..., Server],
) -> None:
    time.sleep(0.02)
    server = launch("never_listens")
    with (
        socket.create_server(("127.0.0.1", server.endpoint.port)),
        pytest.raises(LaunchError, match=f"taken by process {os.getpid()}") as caught,
    ):
        server.wait_healthy()
    assert caught.value.kind == "port"


@pytest.mark.parametrize(
    ("argv", "kind"), [(("no-such-engine-anywhere",), "missing_file"), (("/etc/hostname",), "bad_argument")]
)
def test_a_command_that_cannot_be_executed_says_so(tmp_path: Path, argv: tuple[str, ...], kind: str) -> None:
    with pytest.raises(LaunchError, match="could not be executed") as caught:
        start(LaunchSpec(argv, {}, Endpoint("127.0.0.1", free_port(), "m")), tmp_path)
    assert caught.value.kind == kind


def test_output_is_stamped_line_by_line_whatever_it_is(launch: Callable[..., Server]) -> None:
    server = launch("garbage")
    server.wait_healthy()
    server.stop()
    lines = server.log()
    assert [line.text for line in lines[:5]] == ["plain", "�� broken utf-8", "10%", "20%", "100%"]
    assert lines[5].text == "x" * server_process.MAX_LINE + f" […{1_000_000 - server_process.MAX_LINE} bytes cut]"
    assert lines[6].text == "no newline at the endlistening"
    assert [line.t_ns for line in lines] == sorted(line.t_ns for line in lines)
    assert {line.stream for line in lines} == {"out"}
    assert server.stamps["first_output"] == lines[0].t_ns


def test_a_flood_of_output_is_kept_whole_and_holds_nobody_up(launch: Callable[..., Server]) -> None:
    server = launch("chatters")
    server.wait_healthy()
    deadline = time.monotonic() + 20
    while "line 199999" not in server.tail(5) and time.monotonic() < deadline:
        time.sleep(0.05)
    said = [line.text for line in server.log() if line.text.startswith("line")]
    assert said == [f"line {number}" for number in range(200_000)]
    assert server.tail(2)[-1] == "line 199999"


def test_the_engine_gets_the_launchs_environment_and_not_the_harness_own(
    launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("FROM_OUTSIDE", "kept")
    seen = Path(f"/proc/{launch(env={'ITS_OWN': 'flag'}).pid}/environ").read_bytes().split(b"\0")
    assert b"ITS_OWN=flag" in seen
    assert b"FROM_OUTSIDE=kept" in seen
    assert not any(item.startswith(b"PYTHONPATH=") for item in seen)


def test_worker_events_are_read_up_to_a_line_cut_short(launch: Callable[..., Server], tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    server = launch(events_file=file)
    assert server.events() == []
    file.write_text('{"name": "imports", "t_ns": 5}\n{"name": "wei')
    assert server.events() == [{"name": "imports", "t_ns": 5}]


def test_a_server_that_already_runs_is_attached_to_and_left_alone(
    launch: Callable[..., Server], tmp_path: Path
) -> None:
    running = launch()
    running.wait_healthy()
    attached = start(LaunchSpec((), {}, Endpoint("127.0.0.1", running.endpoint.port, "")), tmp_path / "other")
    with attached:
        attached.wait_healthy()
        assert attached.alive()
        assert attached.endpoint.model == "little-model"
        assert (attached.pid, attached.tree(), attached.stamps["spawn"]) == (None, [], None)
        assert attached.stamps["health"]
    assert running.alive()


def test_a_killed_supervisor_takes_its_engine_and_its_daemons_along(launch: Callable[..., Server]) -> None:
    server = launch("forks", "daemonises", "ignores_term")
    server.wait_healthy()
    tree = server.tree()
    guardian = server._supervisor
    assert guardian is not None
    os.kill(guardian.pid, signal.SIGKILL)
    guardian.wait()
    assert not server.alive()
    assert server.stop()["leftover"] == []
    assert gone(tree)


HARNESS = """
import sys, time
from pathlib import Path
from tests.engines.test_server import spec, start
server = start(spec("litters", "forks", "daemonises", "ignores_term", stop_timeout_s=0.5), Path(sys.argv[1]))
server.wait_healthy()
time.sleep(600)
"""


def left_behind(mark: str) -> list[int]:
    """Living processes that inherited a variable of this value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TEST_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def left_after(folder: Path, moment_s: float, number: int) -> tuple[bool, list[int]]:
    """Kill a harness some time after its own start: whether an engine had started, and what is left of it."""
    mark = uuid.uuid4().hex
    conductor = subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TEST_MARK": mark, "TMPDIR": str(folder)},
        stderr=subprocess.DEVNULL,
    )
    time.sleep(moment_s)
    started = len(left_behind(mark)) > 2
    conductor.send_signal(number)
    conductor.wait()
    deadline = time.monotonic() + 15
    while left_behind(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(folder.glob("firsttoken-*"))
    return started, left_behind(mark)


def test_a_harness_killed_outright_leaves_no_orphan(tmp_path: Path) -> None:
    # Its engine ignores TERM, so that the supervisor must go all the way to KILL.
    assert left_after(tmp_path, 3.0, signal.SIGKILL) == (True, [])


@pytest.mark.slow
def test_a_harness_killed_at_any_moment_leaves_no_orphan(tmp_path: Path) -> None:
    draw = random.Random(7)
    number = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
    ends = [left_after(tmp_path, draw.uniform(0.2, 3.0), draw.choice(number)) for _ in range(24)]
    assert [left for _, left in ends] == [[]] * 24
    # Some kills must have met a running engine, or this has shown nothing.
    assert sum(started for started, _ in ends) >= 5


def test_a_supervisor_without_a_launch_just_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-S", "-E", server_process.__file__], stdin=subprocess.DEVNULL, capture_output=True, timeout=10
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_a_full_disk_stops_the_log_and_not_the_engine(tmp_path: Path) -> None:
    log = server_process.Log("/dev/full")
    log.write(["1 out a\n", "2 out b\n"])
    log.write(["3 out c\n"])
    assert (log.lost, log.fault) == (3, "No space left on device")


def test_lines_are_the_same_however_the_bytes_arrive() -> None:
    data = "один\r\ntwo\rthree\n\n四\nlast".encode()
    whole = server_process.Lines("out")
    expected = whole.feed(data, 5) + whole.flush()
    for size in range(1, len(data)):
        split = server_process.Lines("out")
        found = [line for at in range(0, len(data), size) for line in split.feed(data[at : at + size], 5)]
        assert found + split.flush() == expected
    assert [line.removeprefix("5 out ").rstrip("\n") for line in expected] == ["один", "two", "three", "", "四", "last"]
