"""A launch forked from a warm parent is the engine that a new program would be, as guarded, and leaves as little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.engines.engine import Endpoint, LaunchSpec, ParentSpec
from bench.engines.origin import start_check
from bench.engines.parent import CannotFork, Parent
from bench.engines.parents import Parents
from bench.engines.server import Server, free_port, start
from bench.record.launches import ParentAccount, StartAccount
from tests.engines.test_server import gone, left_behind, living

HERE = Path(__file__).parent
# What its imports leave behind; the little engine itself is child.py, run as `python -m child PORT HABIT…`.
HEAVY = "import json, http.server\nweight = list(range(100_000))\n"
Launch = Callable[..., Server]


def spec(folder: Path, *habits: str, module: str = "child", **changes: Any) -> LaunchSpec:
    """A launch whose parent imports `heavy` of this folder, which is made there unless it is."""
    heavy = folder / "heavy.py"
    if not heavy.exists():
        heavy.write_text(HEAVY)
    path = os.pathsep.join((str(folder), str(HERE)))
    port = free_port()
    parent = ParentSpec(("heavy",), env={"PYTHONPATH": path}, versions=("pytest", "not-there"))
    return LaunchSpec(
        argv=(sys.executable, "-m", module, str(port), *habits),
        env={"PYTHONPATH": path, "OWN": "launch", **changes.pop("env", {})},
        endpoint=Endpoint("127.0.0.1", port, "m"),
        cwd=folder,
        parent=changes.pop("parent", parent),
        **{"ready_timeout_s": 120.0, "stop_timeout_s": 10.0, **changes},
    )


@pytest.fixture
def parents() -> Iterator[Parents]:
    with Parents() as living_ones:
        yield living_ones


@pytest.fixture
def launch(tmp_path: Path, parents: Parents) -> Iterator[Launch]:
    servers: list[Server] = []

    def launch(*habits: str, **changes: Any) -> Server:
        folder = tmp_path / f"launch-{len(servers)}"
        servers.append(start(spec(tmp_path, *habits, **changes), folder, parents))
        return servers[-1]

    yield launch
    for server in servers:
        server.stop()


def account(origin: StartAccount) -> ParentAccount:
    """What the start tells of its parent."""
    assert origin.parent is not None
    return origin.parent


def parent_of(parents: Parents) -> Parent:
    (only,) = parents._living.values()
    return only


def told(server: Server) -> Any:
    """What the engine printed as JSON, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in server.log():
            if line.text.startswith("{"):
                return json.loads(line.text)
        assert server.alive() or server.log(), server.tail()
        time.sleep(0.02)
    raise AssertionError(server.tail())


def test_a_forked_launch_descends_from_its_parent_and_ends_politely(launch: Launch, parents: Parents) -> None:
    ordered = time.monotonic_ns()
    server = launch()
    server.wait_healthy()
    parent = parent_of(parents)
    origin = server.origin
    assert origin.mode == "forked"
    assert origin.ancestry[:3] == [origin.guardian, parent.process.pid, os.getpid()]
    assert origin.guardian_parent == parent.process.pid
    assert account(origin).pid == parent.process.pid
    assert account(origin).name.startswith(f"pytest-{pytest.__version__}_")
    assert 1 < (account(origin).uss_mib or 0) <= (account(origin).pss_mib or 0)
    check = start_check(replace(origin, asked="forked"))
    assert check is not None
    assert (check.status, check.evidence.startswith("fork 1 of ")) == ("ok", True)
    # Never executed: the same program and words as the parent's.
    assert Path(f"/proc/{server.pid}/cmdline").read_bytes() == Path(f"/proc/{parent.process.pid}/cmdline").read_bytes()
    ended = server.stop()
    assert (ended["signal"], ended["killed"], ended["leftover"], ended["lines_lost"]) == ("SIGTERM", False, [], 0)
    order = [server.stamps[name] for name in ("spawn", "first_output", "port_open", "health", "stop", "exit")]
    stamps = [ordered, *(stamp for stamp in order if stamp), time.monotonic_ns()]
    assert len(stamps) == 8
    assert stamps == sorted(stamps)
    assert parent.alive


def test_a_parent_forks_again_and_again_and_each_fork_is_counted(launch: Launch, parents: Parents) -> None:
    origins = []
    for _ in range(3):
        server = launch()
        server.wait_healthy()
        origins.append(server.origin)
        server.stop()
    assert {account(origin).pid for origin in origins} == {parent_of(parents).process.pid}
    assert [account(origin).forks for origin in origins] == [0, 1, 2]


TELLER = """
import json, os, signal, sys, tempfile, threading, time, heavy
print(json.dumps({
    "argv": sys.argv[1:], "name": __name__, "path0": sys.path[0], "cwd": os.getcwd(), "own": os.environ.get("OWN"),
    "only_parent": os.environ.get("ONLY_PARENT"), "temporary": tempfile.gettempdir(), "tmpdir": os.environ["TMPDIR"],
    "session": os.getsid(0) == os.getpid(), "ignored": signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
    "interrupt": signal.getsignal(signal.SIGINT) == signal.default_int_handler, "stdin": sys.stdin.read(),
    "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "threads": threading.active_count(),
    "files": sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")),
    "wakeup": signal.set_wakeup_fd(-1), "warm": len(heavy.weight), "pid": os.getpid(),
}), flush=True)
print("to the other stream", file=sys.stderr, flush=True)
time.sleep(600)
"""


def test_a_fork_finds_the_words_variables_folder_streams_and_signals_of_a_new_program(
    tmp_path: Path, parents: Parents, launch: Launch
) -> None:
    (tmp_path / "teller.py").write_text(TELLER)
    asked = spec(tmp_path, "one", "two", module="teller")
    assert asked.parent is not None
    asked = replace(asked, parent=replace(asked.parent, env={**asked.parent.env, "ONLY_PARENT": "1"}))
    seen = []
    for how in (parents, None):
        with start(asked, tmp_path / f"{how is None}", how) as server:
            seen.append(told(server))
            assert [line.stream for line in server.log() if "other stream" in line.text] == ["err"]
            assert server.origin.mode == ("exec" if how is None else "forked")
            assert seen[-1].pop("pid") == server.pid
            assert seen[-1].pop("temporary") == seen[-1].pop("tmpdir") == str(server.scratch)
    forked, executed = seen
    assert forked == executed
    assert forked["argv"] == [str(asked.endpoint.port), "one", "two"]
    assert (forked["own"], forked["only_parent"], forked["name"]) == ("launch", None, "__main__")


ENDS = {
    "sys.exit(3)": (3, ""),
    "sys.exit('no weights')": (1, "no weights"),
    "raise ValueError('broken')": (1, "ValueError: broken"),
    "atexit.register(print, 'last words')": (0, "last words"),
    "threading.Timer(0.2, print, ['a thread ended']).start()": (0, "a thread ended"),
    "os.kill(os.getpid(), signal.SIGINT)": (130, "KeyboardInterrupt"),
}


@pytest.mark.parametrize(("statement", "end"), ENDS.items())
def test_a_fork_ends_as_a_program_does(tmp_path: Path, launch: Launch, statement: str, end: tuple[int, str]) -> None:
    (tmp_path / "ending.py").write_text(f"import atexit, os, signal, sys, threading\n{statement}\n")
    server = launch(module="ending")
    while server.alive():
        time.sleep(0.01)
    code, words = end
    assert server.exit["code"] == code
    assert words in "\n".join(server.tail())


UNFIT = {
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(600,), daemon=True, name='idler').start()": "one: idler",
    "import _thread, time\n_thread.start_new_thread(time.sleep, (600,))": "one: 1 unnamed",
    "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()": "a socket listens",
    "import socket, tempfile\n"
    "s = socket.socket(socket.AF_UNIX)\ns.bind(tempfile.mkdtemp() + '/s')\ns.listen()": "a socket listens",
    "import atexit, subprocess\np = subprocess.Popen(['sleep', '600'])\natexit.register(p.kill)": "child processes: ",
    "import sys, types\nsys.modules['torch'] = t = types.ModuleType('torch')\n"
    "t.cuda = types.SimpleNamespace(is_initialized=lambda: True)": "CUDA is initialised",
    "import no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    "raise SystemExit('no')": "SystemExit: no",
    "import os\nos._exit(3)": "the parent died",
}


@pytest.mark.parametrize(("code", "words"), UNFIT.items(), ids=lambda text: text[-24:])
def test_from_a_parent_that_is_not_fit_nothing_is_forked_and_the_launch_goes_on_by_exec(
    tmp_path: Path, launch: Launch, parents: Parents, code: str, words: str
) -> None:
    (tmp_path / "heavy.py").write_text(f"{code}\n")
    server = launch()
    server.wait_healthy()
    assert server.origin.mode == "exec"
    assert words in str(server.origin.reason)
    assert parents._living == {}
    check = start_check(replace(server.origin, asked="forked"))
    assert check is not None
    assert (check.status, words in check.evidence) == ("violated", True)


def test_an_open_device_is_in_the_contract(tmp_path: Path, launch: Launch) -> None:
    place = f"/dev/nvidia-{uuid.uuid4().hex}"
    try:
        Path(place).touch()
        Path(place).unlink()
    except OSError:
        pytest.skip("files cannot be made in /dev here")
    (tmp_path / "heavy.py").write_text(f"import os\nf = open({place!r}, 'w')\nos.unlink({place!r})\n")
    assert f"devices in use: {place}" in str(launch().origin.reason)


def test_what_cannot_be_imported_though_it_was_only_wished_for_is_told(tmp_path: Path, launch: Launch) -> None:
    wanted = spec(tmp_path).parent
    assert wanted is not None
    server = launch(parent=replace(wanted, optional=("heavy", "no_such_module")))
    assert account(server.origin).skipped == {"no_such_module": "ModuleNotFoundError: No module named 'no_such_module'"}


def test_an_engine_that_has_no_forked_start_says_so(launch: Launch) -> None:
    assert launch(parent=None).origin.reason == "this engine has no forked start"
    assert launch(parent=None, not_forked="it is a container").origin.reason == "it is a container"


@pytest.mark.parametrize("change", ["package", "module"])
def test_an_upgrade_of_the_environment_makes_its_parent_stale(
    tmp_path: Path, launch: Launch, parents: Parents, change: str
) -> None:
    launch().stop()
    old = parent_of(parents)
    (tmp_path / "heavy.py").write_text(HEAVY + "# another version\n")
    server = launch()
    assert server.origin.mode == "forked"
    assert account(server.origin).pid != old.process.pid
    assert account(server.origin).name != old.name
    assert not old.alive


def test_a_parent_that_died_before_the_order_is_replaced(launch: Launch, parents: Parents) -> None:
    launch().stop()
    old = parent_of(parents).process
    old.kill()
    old.wait()
    server = launch()
    server.wait_healthy()
    assert server.origin.mode == "forked"
    assert account(server.origin).pid != old.pid


AT_FORK = """
import os, signal
def once():
    if os.path.exists({flag!r}):
        os.unlink({flag!r})
        {what}
os.register_at_fork({when}=once)
"""


@pytest.mark.parametrize("when", ["before", "after_in_parent"])
def test_a_parent_that_dies_while_it_forks_costs_no_launch_and_leaves_nothing(
    tmp_path: Path, launch: Launch, parents: Parents, when: str
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    what = "os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "heavy.py").write_text(AT_FORK.format(flag=str(flag), what=what, when=when))
    mark = uuid.uuid4().hex
    os.environ["TEST_MARK"] = mark
    try:
        server = launch()
        server.wait_healthy()
        assert server.origin.mode == "forked"
        assert "the parent died" in str(server.origin.replaced)
        assert not flag.exists()
        server.stop()
        parents.close()
        assert gone(left_behind(mark))
    finally:
        del os.environ["TEST_MARK"]


def test_a_thread_that_appears_in_a_parent_is_met_before_the_next_fork(
    tmp_path: Path, launch: Launch, parents: Parents
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    what = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    (tmp_path / "heavy.py").write_text(AT_FORK.format(flag=str(flag), what=what, when="after_in_parent"))
    first = launch()
    second = launch()
    assert [first.origin.mode, second.origin.mode] == ["forked", "forked"]
    assert "threads of Python's" in str(second.origin.replaced)
    assert account(first.origin).pid != account(second.origin).pid


def test_a_launch_outlives_the_parent_that_it_was_forked_from(launch: Launch, parents: Parents) -> None:
    server = launch("forks", "daemonises")
    server.wait_healthy()
    tree = server.tree()
    assert len(tree) == 3
    parent_of(parents).process.kill()
    parent_of(parents).process.wait()
    time.sleep(1.5)
    assert server.alive()
    ended = server.stop()
    assert (ended["signal"], ended["leftover"]) == ("SIGTERM", [])
    assert gone(tree)


def test_a_killed_guardian_takes_its_forked_engine_and_the_daemons_along(launch: Launch) -> None:
    server = launch("forks", "daemonises", "ignores_term")
    server.wait_healthy()
    tree = server.tree()
    assert len(tree) == 3
    guardian = server._supervisor
    assert guardian is not None
    guardian.kill()
    guardian.wait()
    assert not server.alive()
    assert server.stop()["leftover"] == []
    assert gone(tree)


def test_children_left_by_a_killed_forked_engine_are_ended_too(launch: Launch) -> None:
    server = launch("forks", "daemonises")
    server.wait_healthy()
    tree = server.tree()
    os.kill(server.pid or 0, signal.SIGKILL)
    while server.alive():
        time.sleep(0.01)
    ended = server.stop()
    assert (ended["by_itself"], ended["signal"], ended["leftover"]) == (True, "SIGKILL", [])
    assert not any(living(pid) for pid in tree)


HARNESS = """
import sys, time
from pathlib import Path
from bench.engines.parents import Parents
from tests.engines.test_parents import spec, start
parents, folder = Parents(), Path(sys.argv[1])
server = start(spec(folder, "forks", "daemonises", "ignores_term", stop_timeout_s=0.5), folder / "launch", parents)
server.wait_healthy()
assert server.origin.mode == "forked", server.origin
print("healthy", flush=True)
time.sleep(600)
"""


def test_a_harness_killed_outright_leaves_neither_engine_nor_parent(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(tmp_path)],
        cwd=HERE.parents[1],
        env={**os.environ, "TEST_MARK": mark, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert harness.stdout is not None
    assert harness.stdout.readline() == b"healthy\n"
    # The harness, the parent, the guardian, the engine and its two children.
    assert len(left_behind(mark)) == 6
    harness.kill()
    harness.wait()
    harness.stdout.close()
    assert gone(left_behind(mark), 15.0)
    assert not list(tmp_path.glob("firsttoken-*"))


def test_leaving_ends_every_parent(tmp_path: Path) -> None:
    with Parents() as parents:
        made = parents.warm(spec(tmp_path))
        assert made.alive
        assert parents.warm(spec(tmp_path)) is made
    assert not made.alive


def test_ctrl_c_while_a_parent_is_made_leaves_none(
    tmp_path: Path, parents: Parents, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TEST_MARK", mark)
    asked = spec(tmp_path)
    (tmp_path / "heavy.py").write_text("import time\ntime.sleep(600)\n")
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            parents.warm(asked)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert left_behind(mark) == []
    assert time.monotonic() - begun < 60


def test_weights_that_are_to_leave_the_page_cache_are_let_go_of(tmp_path: Path, parents: Parents) -> None:
    plain = spec(tmp_path)
    assert plain.parent is not None
    holding = replace(plain, parent=replace(plain.parent, holds=tmp_path))
    other = replace(plain, parent=replace(plain.parent, arguments={"of": "another"}))
    kept, ended = parents.warm(other), parents.warm(holding)
    parents.release(tmp_path / "others")
    assert ended.alive
    parents.release(tmp_path)
    assert (kept.alive, ended.alive) == (True, False)


def test_a_parent_that_failed_is_not_tried_again_until_something_changes(tmp_path: Path, parents: Parents) -> None:
    heavy = tmp_path / "heavy.py"
    asked = spec(tmp_path)
    heavy.write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'tries')!r}).open('a').write('x')\nraise OSError(5)\n"
    )
    for _ in range(2):
        with pytest.raises(CannotFork, match="OSError: 5"):
            parents.warm(asked)
    assert (tmp_path / "tries").read_text() == "x"
    heavy.write_text(HEAVY)
    assert parents.warm(asked).alive


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_forks_leave_nothing_and_the_parent_as_large_as_it_was(tmp_path: Path, parents: Parents) -> None:
    sizes, trees = list[float](), set[int]()
    for number in range(200):
        with start(spec(tmp_path, "forks", "daemonises"), tmp_path / str(number % 4), parents) as server:
            server.wait_healthy()
            trees |= set(server.tree())
            size = account(server.origin).uss_mib
            assert size is not None
            sizes.append(size)
            assert account(server.origin).forks == number
    assert len(trees) == 600
    assert not any(living(pid) for pid in trees)
    parent = parent_of(parents).process.pid
    assert len(list(Path(f"/proc/{parent}/fd").iterdir())) <= 6
    assert sizes[-1] - sizes[5] < 1.0
