"""One warm parent as the harness sees it: made, asked to fork, looked at, ended.

The process itself is programs/parent_process.py; when one is made, and how long it is kept, is parents.py's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.engines import server_process
from bench.engines.engine import ParentSpec
from bench.engines.origin import MARK, inherited, started
from bench.programs import FOLDER
from bench.record.launches import ParentAccount

PROGRAM = FOLDER / "parent_process.py"
# As long as a launch's own mark, which each fork writes in its place.
UNMARKED = "0" * 32
MESSAGE_BYTES = 1 << 20
# A parent that has nothing to do but fork answers at once, however busy the machine.
FORK_S = 60.0
TAIL_BYTES = 2000


class CannotFork(Exception):
    """Why no launch can be forked, in words; the launch goes on by exec. `final`: trying again would end the same."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@dataclass(slots=True)
class Guardian:
    """A launch's guardian that is a fork of a parent, with what server.py needs of a subprocess."""

    pid: int
    stdin: IO[bytes]
    stdout: IO[bytes]
    handle: int

    def __del__(self) -> None:
        os.close(self.handle)

    def wait(self) -> None:
        """Until it has ended; its own parent buries it."""
        waiting = select.poll()
        waiting.register(self.handle, select.POLLIN)
        waiting.poll()

    def kill(self) -> None:
        """End it at once."""
        signal.pidfd_send_signal(self.handle, signal.SIGKILL)


@dataclass(eq=False, slots=True)
class Parent:
    """One warm parent. `about` is what it says of itself, `seconds` what making it took, `forks` how many it gave."""

    name: str
    spec: ParentSpec
    process: subprocess.Popen[bytes]
    channel: socket.socket
    log: IO[bytes]
    about: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    started: int | None = None
    forks: int = 0

    def get_ready(self, program: Mapping[str, Any], timeout_s: float) -> None:
        """Let it import and prepare; CannotFork with its own words if it does not get there, or may not be forked."""
        begun = time.monotonic()
        self._say(json.dumps(program, default=str).encode())
        self.about = self._hear(timeout_s)
        self.seconds = time.monotonic() - begun
        if self.about["event"] != "ready":
            raise CannotFork(f"the parent failed: {self.about.get('why')}", final=True)
        if self.about["breaches"]:
            raise CannotFork(f"the parent is not fit to be forked: {'; '.join(self.about['breaches'])}", final=True)
        self.started = started(self.process.pid)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def fork(self) -> Guardian:
        """A guardian that waits for its launch; CannotFork if the parent is gone or no longer fit."""
        orders, reports = os.pipe(), os.pipe()
        kept = [orders[1], reports[0]]
        try:
            with contextlib.suppress(OSError):
                socket.send_fds(self.channel, [b"fork"], [orders[0], reports[1]])
            answer = self._hear(FORK_S)
            if answer["event"] != "forked":
                raise CannotFork(f"the parent is no longer fit to be forked: {'; '.join(answer['breaches'])}")
            handle = os.pidfd_open(answer["pid"])
        except BaseException:
            # A guardian that was forked all the same finds its orders closed, and ends.
            for end in kept:
                os.close(end)
            raise
        finally:
            os.close(orders[0])
            os.close(reports[1])
        self.forks += 1
        return Guardian(answer["pid"], os.fdopen(kept[0], "wb"), os.fdopen(kept[1], "rb", 0), handle)

    def guardian(self) -> Guardian:
        """A guardian of one launch, forked from it."""
        return self.fork()

    def evidence(self) -> dict[str, Any]:
        """What a launch records of where it comes from."""
        return {"mode": "forked", "parent": self.account()}

    def order(self, spawn_ns: int | None) -> dict[str, Any]:
        """What the guardian is told beside the launch: the guardian's own fork is part of such a start."""
        return {"ordered_ns": spawn_ns}

    def account(self) -> ParentAccount:
        """What it is and what it costs now, with nothing served: MiB shared out (pss) and its own alone (uss)."""
        pss, uss = held(self.process.pid)
        return ParentAccount(
            name=self.name,
            pid=self.process.pid,
            started=self.started,
            seconds=self.seconds,
            forks=self.forks,
            pss_mib=pss,
            uss_mib=uss,
            modules=self.about.get("modules"),
            native_threads=self.about.get("native_threads"),
            skipped=self.about.get("skipped") or {},
            prepared=self.about.get("prepared"),
        )

    def close(self) -> None:
        """End it at once, whatever it is at: it keeps nothing that would be lost. Launches that it gave go on."""
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.log.close()

    def tail(self) -> str:
        """The last line that it said, as an addition to a sentence."""
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return f" (its last words: {lines[-1].strip()})" if lines else ""

    def _say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.channel.send(data)

    def _hear(self, timeout_s: float) -> dict[str, Any]:
        if not select.select([self.channel], [], [], timeout_s)[0]:
            raise CannotFork(f"the parent did not answer within {timeout_s:g} s{self.tail()}")
        try:
            data = self.channel.recv(MESSAGE_BYTES)
        except OSError:
            data = b""
        if not data:
            raise CannotFork(f"the parent died{self.tail()}")
        document: dict[str, Any] = json.loads(data)
        return document


def make(name: str, python: str, spec: ParentSpec, timeout_s: float) -> Parent:
    """Start a parent and wait until it can be forked; CannotFork if it never can."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the parent)
    try:
        with theirs:
            process = subprocess.Popen(
                [python, str(PROGRAM), name],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited(), **spec.env, MARK: UNMARKED},
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        log.close()
        raise CannotFork(f"the parent could not be started: {error}") from error
    parent = Parent(name, spec, process, ours, log)
    try:
        program = {
            "supervisor": server_process.__file__,
            "imports": spec.imports,
            "optional": spec.optional,
            "prepare": spec.prepare,
            "arguments": dict(spec.arguments),
            "child": spec.child,
        }
        parent.get_ready(program, timeout_s)
    except BaseException:
        parent.close()
        raise
    return parent


def held(pid: int) -> tuple[float | None, float | None]:
    """A process's proportional and unique memory now, MiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None, None
    kib = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines) if value}
    if "Pss" not in kib:
        return None, None
    return kib["Pss"] / 1024, (kib.get("Private_Clean", 0) + kib.get("Private_Dirty", 0)) / 1024
