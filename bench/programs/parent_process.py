# ruff: noqa: PTH109, PTH115, PTH123, PTH208 (as in the supervisor: nothing that is not needed)
"""A warm parent: a process that has imported what an engine needs and forks a launch of it at every order.

A program for the engine's interpreter, `python parent_process.py NAME`, standard library only. Its standard input is
one end of a SOCK_SEQPACKET pair. The first message says what to do before anything is forked; the answer is `ready`
with what that came to, or `failed`. After that each `fork` brings the two pipes of a guardian
(engines/server_process.py), which is forked here, reads its launch from the first and forks the engine: a process that
goes on with `python -m module …` as a new program would, in an interpreter that has all its modules already. When the
other end closes, the owner has gone and the parent ends; launches under way have owners of their own.

A fork copies memory and not threads, locks' owners or a device's state. So before every fork a contract is checked: one
thread of Python's, no device opened or mapped, CUDA not initialised, nothing listening, no child processes.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
# The name of the variable by which a launch's processes are found; in a fork's memory its value is written over.
MARK = "FIRSTTOKEN_LAUNCH"
DEVICES = ("/dev/nvidia", "/dev/nvhost", "/dev/nvmap", "/dev/nvgpu", "/dev/dri", "/dev/kfd")
ORDER_BYTES = 1 << 20


class Parent:
    """This process: what it holds, and the guardians it has forked."""

    def __init__(self, channel: socket.socket, order: dict[str, Any]) -> None:
        self.channel = channel
        self.order = order
        self.supervisor = supervisor(order["supervisor"])
        self.skipped: dict[str, str] = {}
        self.guardians: set[int] = set()
        self.kept: frozenset[int] = frozenset()
        self.prepared: Any = None

    def prepare(self) -> None:
        """Import, prepare, and keep it all from the garbage collector; a needed import that fails raises."""
        for name in self.order["imports"]:
            importlib.import_module(name)
        for name in self.order.get("optional", ()):
            try:
                importlib.import_module(name)
            except Exception as error:
                self.skipped[name] = f"{type(error).__name__}: {error}"[:200]
        if self.order.get("prepare"):
            self.prepared = function(self.order["prepare"])(**self.order.get("arguments", {}))
        if self.order.get("child"):
            function(self.order["child"])
        sys.stdout.flush()
        sys.stderr.flush()
        # A collection in a fork would write into every page that holds an object, and so copy it.
        gc.collect()
        gc.freeze()
        self.kept = frozenset(descriptors()) - {self.channel.fileno()}

    def about(self) -> dict[str, Any]:
        """What this parent is, for whoever will fork from it."""
        return {
            "event": "ready",
            "pid": os.getpid(),
            "modules": len(sys.modules),
            "skipped": self.skipped,
            "prepared": self.prepared,
            "native_threads": len(os.listdir("/proc/self/task")) - 1,
            "breaches": breaches(self.guardians),
        }

    def serve(self) -> None:
        """Fork at every order until the other end closes."""
        while True:
            data, ends, _, _ = socket.recv_fds(self.channel, ORDER_BYTES, 2)
            if not data:
                return
            self.guardians = {pid for pid in self.guardians if not reaped(pid)}
            broken = breaches(self.guardians)
            if broken or len(ends) != 2:
                self.say({"event": "refused", "breaches": broken or ["the order came without its two pipes"]})
            else:
                guardian = os.fork()
                if guardian == 0:
                    self.guard(*ends)
                self.guardians.add(guardian)
                self.say({"event": "forked", "pid": guardian})
            for end in ends:
                os.close(end)

    def guard(self, orders: int, reports: int) -> NoReturn:
        """In the fork: be the guardian of one launch, and of nothing else."""
        try:
            os.setsid()
            self.channel.close()
            os.dup2(orders, 0)
            os.dup2(reports, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for end in (orders, reports):
                os.close(end)
            self.supervisor.main(self.become)
        finally:
            os._exit(0)

    def become(self, argv: list[str], env: dict[str, str], fault: int) -> NoReturn:
        """In the guardian's fork: be the engine, `python -m module …`, from here on; ends the process."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            # As an interpreter sets them for itself when it starts.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            mark(env.get(MARK, ""))
            os.environ.clear()
            os.environ.update(env)
            tempfile.tempdir = None
            # What the guardian and the parent hold open is not the engine's. Last of all `fault`: it tells of success.
            for descriptor in sorted(descriptors() - self.kept - {0, 1, 2, fault}):
                os.close(descriptor)
            os.close(fault)
            code = run(argv, self.order.get("child"))
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    code = code or 1
            os._exit(code)

    def say(self, document: dict[str, Any]) -> None:
        """Answer; an owner that has gone meanwhile is met at the next order."""
        try:
            self.channel.send(json.dumps(document).encode())
        except OSError:
            return


def run(argv: list[str], child: str | None) -> int:
    """Run `python -m module words…` in this interpreter, to its end; the exit status."""
    try:
        if argv[1:2] != ["-m"] or len(argv) < 3:
            raise ValueError(f"a fork can only go on as `python -m module …`, not as {argv[:3]}")
        # `-m` puts the working folder first on the import path.
        sys.path.insert(0, os.getcwd())
        sys.argv = argv[2:]
        if child:
            function(child)()
        # That the module was imported before it is run is the point.
        warnings.filterwarnings("ignore", ".* found in sys.modules after import of", RuntimeWarning)
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        # What an interpreter does at its end, in its order.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def breaches(guardians: set[int] | None = None) -> list[str]:
    """Every way in which this process is not fit to be forked, in words; none if it is."""
    found = []
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others or _thread._count():
        names = ", ".join(others) or f"{_thread._count()} unnamed"
        found.append(f"threads of Python's beside the main one: {names}")
    open_files = [target for entry in descriptors() if (target := link(f"/proc/self/fd/{entry}"))]
    devices = {target for target in open_files if target.startswith(DEVICES)}
    with open("/proc/self/maps") as maps:
        mapped = (line.split(maxsplit=5)[5].strip() for line in maps if "/dev/" in line)
        devices |= {target for target in mapped if target.startswith(DEVICES)}
    if devices:
        found.append(f"devices in use: {', '.join(sorted(devices))}")
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        found.append("CUDA is initialised")
    if listening(open_files):
        found.append("a socket listens")
    if below := children() - (guardians or set()):
        found.append(f"child processes: {', '.join(map(str, sorted(below)))}")
    return found


def listening(open_files: list[str]) -> bool:
    """Whether one of these open files is a listening socket."""
    inodes = {target[8:-1] for target in open_files if target.startswith("socket:[")}
    for table, state, wanted, inode in (("tcp", 3, "0A", 9), ("tcp6", 3, "0A", 9), ("unix", 3, "00010000", 6)):
        try:
            with open(f"/proc/self/net/{table}") as rows:
                split = [row.split() for row in rows]
        except OSError:
            continue
        if any(row[state] == wanted and row[inode] in inodes for row in split[1:] if len(row) > inode):
            return True
    return False


def children() -> set[int]:
    """Living child processes of any thread; empty where the kernel keeps no such list."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as listed:
                found |= {int(pid) for pid in listed.read().split()}
        except OSError:
            continue
    return found


def descriptors() -> set[int]:
    """Open file descriptors; the one that reads the folder is closed again and among them no more."""
    return {int(name) for name in os.listdir("/proc/self/fd") if link(f"/proc/self/fd/{name}")}


def link(path: str) -> str | None:
    """Where a link of /proc leads; None once it is gone."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def reaped(pid: int) -> bool:
    """Whether a guardian has ended, which also buries it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def mark(value: str) -> None:
    """Write a launch's mark over this process's own in the memory that /proc/PID/environ shows.

    That memory is as it was at exec and knows nothing of os.environ; the parent was given a mark of the same length.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(MARK.encode())
    if place and len(ctypes.string_at(place)) == len(value):
        ctypes.memmove(place, value.encode(), len(value))


def function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def supervisor(path: str) -> Any:
    """The guardian's program as a module; its folder has others that must not be found by their names."""
    spec = importlib.util.spec_from_file_location("firsttoken_supervisor", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Do as the first message says, then fork until the owner goes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    channel = socket.socket(fileno=os.dup(0))
    os.set_inheritable(channel.fileno(), False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # The folder of this program is not the engine's; what is needed from it stands on PYTHONPATH.
    del sys.path[0]
    data = channel.recv(ORDER_BYTES)
    if not data:
        return
    begun = time.monotonic()
    parent = Parent(channel, json.loads(data))
    try:
        parent.prepare()
    except BaseException as error:
        traceback.print_exc()
        parent.say({"event": "failed", "why": f"{type(error).__name__}: {error}"[:400]})
        return
    parent.say({**parent.about(), "prepare_s": time.monotonic() - begun})
    parent.serve()


if __name__ == "__main__":
    main()
