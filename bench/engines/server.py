"""A launched engine as the harness sees it: started, waited for, looked at, and ended with all its children.

The process work is done by `server_process.py`, one per launch, which outlives a killed harness just long enough to
leave nothing behind. This side sends it a launch and an order, reads its reports, and asks whether the server is
healthy.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from bench import pipes
from bench.engines import containers, ports, server_process
from bench.engines.engine import Endpoint, LaunchSpec
from bench.engines.failure import classify
from bench.engines.image import Image, guardian
from bench.engines.origin import MARK, ancestry, inherited, mapped_mib, started
from bench.engines.parent import CannotFork, Guardian, Parent
from bench.engines.ports import free_port
from bench.errors import LaunchError
from bench.record import engine_log
from bench.record.engine_log import LogLine
from bench.record.launches import StartAccount

__all__ = ["Server", "free_port", "start"]

POLL_S, POLL_MAX_S, POLL_GROWTH = 0.02, 0.1, 1.25
# Beyond the engine's own time to stop: KILL, reaping, and a busy machine.
SUPERVISOR_GRACE_S = 30.0
TAIL = 40
# A parent that died, or is no longer fit, is replaced once for a launch.
FORK_TRIES = 2
# A cause of death is looked for in so many bytes of the log: all of it, but for an engine that floods it.
LONGEST = 16 << 20


Source = Parent | Image


class Sources(Protocol):
    """Where launches come from that are no new programs: warm parents, images."""

    def warm(self, spec: LaunchSpec) -> Source:
        """One for this launch, made now unless there is one; CannotFork says why not."""

    def drop(self, parent: Source) -> None:
        """Let go of one that did not do."""


def start(spec: LaunchSpec, folder: Path, parents: Sources | None = None) -> Server:
    """Start the engine with its log in `folder`, or attach; LaunchError if that fails or its port is taken.

    With `parents` it is forked from a warm one, or restored from an image, where that can be; else it is executed.
    """
    server = Server(spec, folder, parents)
    try:
        server.launch()
    except BaseException:
        server.stop()
        raise
    return server


class Server:
    """One engine process tree, or someone else's server (`spec.attached`: never started, never stopped).

    `stamps` has the keys spawn, first_output, port_open, health, stop and exit of record.launches.STAMPS, ns. `origin`
    says where its process came from, but for what only the launch knows: what was asked, and the oracle's answers.
    """

    def __init__(self, spec: LaunchSpec, folder: Path, parents: Sources | None = None) -> None:
        self.spec = spec
        self.parents = parents
        self.origin = StartAccount(mode="attached" if spec.attached else "exec")
        self.endpoint: Endpoint = spec.endpoint
        self.folder = folder
        self.log_path = folder / engine_log.NAME
        self.mark = uuid.uuid4().hex
        # Short, because sockets are made in it and their paths may have 107 characters.
        self.scratch = Path(tempfile.gettempdir(), f"firsttoken-{self.mark[:12]}")
        self.pid: int | None = None
        # The process with the port, where `pid` is the client of the container that it runs in.
        self.inside: int | None = None
        self.stamps: dict[str, int | None] = dict.fromkeys(
            ("spawn", "first_output", "port_open", "health", "stop", "exit")
        )
        self.exit: dict[str, Any] = {}
        # Events that were written before the image that it was restored from.
        self._past = 0
        self._supervisor: subprocess.Popen[bytes] | Guardian | None = None
        self._unread = b""
        self._gone: dict[str, Any] | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def launch(self) -> None:
        """Spawn the engine, unless it is someone else's; LaunchError if that fails."""
        if self.spec.attached:
            return
        host, port = self.endpoint.host, self.endpoint.port
        if ports.is_open(host, port, timeout_s=0.5):
            raise LaunchError("port", f"port {port} on {host} is already taken{_by(ports.owner(port))}")
        self.folder.mkdir(parents=True, exist_ok=True)
        source = self._source() if self.parents is not None else None
        order = {
            "argv": [str(word) for word in self.spec.argv],
            "env": self.environment(),
            "cwd": str(self.spec.cwd) if self.spec.cwd else None,
            "log": str(self.log_path),
            "scratch": str(self.scratch),
            "removal": containers.removal(self.spec.argv),
            "stop_signal": self.spec.stop_signal,
            "stop_timeout_s": self.spec.stop_timeout_s,
        }
        if source is None:
            self._supervisor = guardian()
        self._say(order | (source.order(self.stamps["spawn"]) if source else {}))
        while self.pid is None and self._gone is None:
            self._listen(None)
        if self.pid is None:
            if isinstance(source, Image) and self.parents is not None:
                # One that cannot be restored is none: the next launch makes another.
                self.parents.drop(source)
            raise self.failure("start")
        assert self._supervisor is not None
        self._came(guardian=self._supervisor.pid, ancestry=ancestry(self.pid))

    def _source(self) -> Source | None:
        """The guardian of a launch that is no new program, from a parent or for an image; another one if that has died
        or is not fit. None with the reason where there can be none.
        """
        assert self.parents is not None
        for attempt in range(1, FORK_TRIES + 1):
            source = None
            try:
                source = self.parents.warm(self.spec)
                evidence = source.evidence()
                self.stamps["spawn"] = time.monotonic_ns()
                self._supervisor = source.guardian()
            except CannotFork as fault:
                self.stamps["spawn"] = None
                if source is not None:
                    self.parents.drop(source)
                    self._came(replaced=f"{source.name}, pid {source.pid}: {fault}")
                if source is None or attempt == FORK_TRIES:
                    self._came(reason=str(fault))
                    return None
            else:
                self._came(**evidence)
                if isinstance(source, Image):
                    self._settle(source)
                return source
        return None

    def _settle(self, image: Image) -> None:
        """Be found where an image answers: under its mark, at its port, with its temporary files."""
        self.spec = image.settled(self.spec)
        self.endpoint = self.spec.endpoint
        self.mark, self.scratch, self._past = image.told["mark"], Path(image.told["scratch"]), image.told["events"]

    def _came(self, **told: Any) -> None:
        self.origin = replace(self.origin, **told)

    def environment(self) -> dict[str, str]:
        """The harness's environment without what is its own, then the launch's.

        Temporary files go to a folder that ends with the launch: engines leave sockets and caches there, and what one
        launch leaves would warm the next.
        """
        return {**inherited(), "TMPDIR": str(self.scratch), **self.spec.env, MARK: self.mark}

    @property
    def supervisor_pid(self) -> int | None:
        """The process that guards the engine; None for an attached server, or after the end."""
        return None if self._supervisor is None else self._supervisor.pid

    def alive(self) -> bool:
        """Whether the engine's main process runs; for an attached server, whether it accepts connections."""
        if self.spec.attached:
            return ports.is_open(self.endpoint.host, self.endpoint.port)
        self._listen(0)
        return self.pid is not None and self.stamps["exit"] is None and self._gone is None

    def wait_healthy(self, on_wait: Callable[[float], None] | None = None) -> None:
        """Wait until the port is open and the health check answers 200.

        `on_wait` is called now and then with the seconds waited. LaunchError: port, not_ready, or why it died.
        """
        begun = time.monotonic()
        pause = POLL_S
        last = "the port is closed"
        while True:
            if not self.spec.attached and not self.alive():
                raise self.failure("start")
            if self.stamps["port_open"] is None and ports.is_open(self.endpoint.host, self.endpoint.port):
                self.stamps["port_open"] = time.monotonic_ns()
                self._refuse_stranger()
                pause = POLL_S
            if self.stamps["port_open"] is not None:
                last = ports.problem(self.endpoint, self.spec.health, attached=self.spec.attached)
                if not last:
                    self.stamps["health"] = time.monotonic_ns()
                    self.endpoint = ports.named(self.endpoint)
                    self._came(read_mib=_read_mib(self.tree()))
                    if self.origin.mode == "restored" and self.spec.image and self.spec.image.weights:
                        self._came(weights_mib=mapped_mib(self.tree(), self.spec.image.weights))
                    return
            waited = time.monotonic() - begun
            if waited > self.spec.ready_timeout_s:
                where = f"{self.endpoint.host}:{self.endpoint.port}"
                raise LaunchError(
                    "not_ready",
                    f"{where} was not ready after {self.spec.ready_timeout_s:g} s: {last}",
                    tail=self.tail(),
                )
            if on_wait is not None:
                on_wait(waited)
            self._listen(pause)
            pause = min(POLL_MAX_S, pause * POLL_GROWTH)

    def failure(self, phase: str) -> LaunchError:
        """Why the engine is no longer there, classified by its last words and its exit; phase is start or serving."""
        kind, sentence = classify(self.said(), self.exit or None, phase)
        return LaunchError(kind, sentence, tail=self.tail())

    def log(self) -> list[LogLine]:
        """All that the engine has said so far."""
        return [line for line in map(engine_log.parse, self._log_text().split("\n")) if line]

    def said(self) -> list[str]:
        """All that the engine said, without stamps; of a very long log the end."""
        return self._lines(LONGEST)

    def tail(self, count: int = TAIL) -> list[str]:
        """The last lines of the engine's output, without stamps."""
        return self._lines(count * 4096)[-count:]

    def events(self) -> list[dict[str, Any]]:
        """What the engine's own worker reported; a last line cut short by its death is left out."""
        if self.spec.events_file is None or not self.spec.events_file.is_file():
            return []
        found = []
        for line in self.spec.events_file.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    found.append(event)
        # Stamped before the image was written, perhaps before this machine was last started.
        past = [{**event, **{name: 0 for name in ("t_ns", "end_ns") if name in event}} for event in found[: self._past]]
        return past + found[self._past :]

    def tree(self) -> list[int]:
        """Every living process of the engine, also those that went to the background, and a container's."""
        if self._supervisor is None:
            return []
        found = server_process.descendants(self._supervisor.pid)
        if self.inside is not None and self.inside not in found:
            found += [*server_process.descendants(self.inside), self.inside]
        return found

    def kill(self) -> None:
        """End the engine at once, from any thread: nothing is waited for, and `stop` is still to be called."""
        for pid in self.tree():
            server_process.send(pid, signal.SIGKILL)

    def stop(self) -> dict[str, Any]:
        """End the engine with all its children; how it went. Does nothing to an attached server, or a second time.

        Keys: code, signal, seconds, killed (it had to be), by_itself (it had ended before), leftover (pids that even
        KILL did not end), max_rss_mib, oom_kills, peak_rss_sum_mib, lines_lost, log_fault; stops: [pid, from, to] of
        those of its processes that others stopped, ns.
        """
        if self._supervisor is None:
            return {"attached": True} if self.spec.attached else self.exit
        try:
            self._say({"signal": self.spec.stop_signal, "timeout_s": self.spec.stop_timeout_s})
            deadline = time.monotonic() + self.spec.stop_timeout_s + SUPERVISOR_GRACE_S
            while self._gone is None and time.monotonic() < deadline:
                self._listen(0.5)
            # If this process itself was stopped meanwhile, the time is over and the report is there.
            self._listen(0)
        finally:
            # Also when Ctrl-C comes a second time: a closed pipe is an order that the supervisor obeys alone.
            self._dismiss()
        return self.exit

    def _dismiss(self) -> None:
        guardian, self._supervisor = self._supervisor, None
        if guardian is None:
            return
        assert guardian.stdin is not None
        assert guardian.stdout is not None
        with contextlib.suppress(OSError):
            guardian.stdin.close()
        if self._gone is not None:
            guardian.wait()
        guardian.stdout.close()

    def _say(self, order: Mapping[str, Any]) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdin is not None
        with contextlib.suppress(OSError):
            pipes.write_all(self._supervisor.stdin.fileno(), json.dumps(order).encode() + b"\n")

    def _listen(self, timeout_s: float | None) -> None:
        """Take in the supervisor's reports; wait for one at most this long, for ever if None."""
        with self._lock:
            if self._supervisor is None or self._gone is not None:
                if timeout_s:
                    time.sleep(timeout_s)
                return
            assert self._supervisor.stdout is not None
            pipe = self._supervisor.stdout.fileno()
            while select.select([pipe], [], [], timeout_s)[0]:
                data = os.read(pipe, 65536)
                if not data:
                    # The last report and the end of the pipe may come together: that is an end as it should be.
                    if self._gone is None:
                        self._bereaved()
                    return
                *lines, self._unread = (self._unread + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
                timeout_s = 0

    def _take(self, report: dict[str, Any]) -> None:
        match report.pop("event"):
            case "spawned":
                self.pid, self.stamps["spawn"] = report["pid"], report["t_ns"]
                self._came(guardian_parent=report.get("parent"))
                if report.get("restored_ns"):
                    self.stamps["restored"] = report["restored_ns"]
            case "first_output":
                self.stamps["first_output"] = report["t_ns"]
            case "failed":
                self._gone = report
                self.exit = {"code": 127, "signal": None, "message": report["message"], "errno": report["errno"]}
            case "exited":
                self.stamps["exit"] = report.pop("t_ns")
                self.exit |= report
            case "gone":
                self._gone = report
                stop_ns, gone_ns = report.pop("stop_ns"), report.pop("t_ns")
                self.stamps["stop"] = stop_ns
                self.stamps["exit"] = gone_ns
                self.exit |= report | {"seconds": (gone_ns - stop_ns) / 1e9}

    def _bereaved(self) -> None:
        """The supervisor itself was killed: its engine died with it, and what had gone to the background goes now."""
        self._gone = {}
        killed = []
        for _ in range(100):
            left = marked(self.mark)
            if not left:
                break
            killed += left
            for pid in left:
                server_process.send(pid, signal.SIGKILL)
            time.sleep(0.02)
        if words := containers.removal(self.spec.argv):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=server_process.REMOVE_S)
        self.stamps["exit"] = time.monotonic_ns()
        server_process.clear(str(self.scratch))
        self.exit = {
            "code": None,
            "signal": None,
            "killed": bool(killed),
            "by_itself": False,
            "leftover": marked(self.mark),
            "message": "the engine's supervisor was killed from outside",
        }

    def _refuse_stranger(self) -> None:
        """LaunchError if a process that was there before the engine has its port."""
        spawned = self.stamps["spawn"]
        owner = None if spawned is None else ports.owner(self.endpoint.port)
        if owner is None or (owner in self.tree() and not containers.removal(self.spec.argv)):
            return
        # A younger stranger may be a container's process, which is no descendant of the command that started it.
        if spawned is not None and (_started_ns(owner) or spawned) < spawned:
            raise LaunchError("port", f"port {self.endpoint.port} is taken{_by(owner)}", tail=self.tail())
        # Of its container's client the engine is no child.
        self.inside = owner if containers.removal(self.spec.argv) else None

    def _lines(self, last: int) -> list[str]:
        return [line.text for line in map(engine_log.parse, self._log_text(last=last).split("\n")) if line]

    def _log_text(self, last: int | None = None) -> str:
        try:
            with self.log_path.open("rb") as file:
                if last is not None:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - last))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""


def marked(mark: str) -> list[int]:
    """Living processes whose environment carries a launch's mark."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _read_mib(pids: list[int]) -> float | None:
    """What these living processes have read by read(2) so far, from files, pipes and sockets, MiB; mapped files are not
    in it. None where the kernel does not say.
    """
    found = []
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(int(Path(f"/proc/{pid}/io").read_text().split()[1]))
    return sum(found) / 2**20 if found else None


def _by(pid: int | None) -> str:
    if pid is None:
        return ""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return f" by process {pid}"
    return f" by process {pid} ({' '.join(words).strip()[:120]})"


def _started_ns(pid: int) -> int | None:
    """When a process began, ns on (nearly) CLOCK_MONOTONIC, exact to a clock tick."""
    ticks = started(pid)
    if ticks is None:
        return None
    # The kernel counts from boot including suspend; the difference of the two clocks takes that out.
    asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK") - asleep
