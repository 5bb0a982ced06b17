"""One load generator on another host, reached by ssh: host keys are checked, and nobody is asked for a password."""

from __future__ import annotations

import os
import queue
import re
import select
import shlex
import subprocess
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from bench import pipes
from bench.errors import LaunchError
from bench.loadgen.echo import Echo
from bench.loadgen.generator import next_bytes
from bench.loadgen.job import Frame, packed, receive
from bench.loadgen.outpost_process import digest, release

LOST = "client_lost"
# ssh itself notices a dead link by questions of its own; connections are not shared, so that ending one ends it.
_OPTIONS = (
    *("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=5"),
    *("ServerAliveCountMax=3", "ControlMaster=no", "ControlPath=none"),
)
# From one question about the clock to the next; seldomer once there are many.
_BEAT_S = 0.25
_MANY = 4000
# Without an answer for so long the other host is given up; there, the load generator ends after twice that.
_SILENCE_S = 15.0
_PATIENCE_S = 60.0
_ADDRESS = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b")

# What ssh says → what that means for the user.
_REFUSALS = (
    (
        r"HOST IDENTIFICATION HAS CHANGED",
        "its host key has changed: it is another machine than it was, or somebody is in between; "
        "if you know why, `ssh-keygen -R` forgets the old key",
    ),
    (
        r"Host key verification failed",
        "its host key is not known here: `ssh {host}` once, by hand, and compare the key",
    ),
    (r"Permission denied", "it does not let us in without a password: `ssh-copy-id {host}`"),
    (r"Could not resolve", "there is no such host: give it a name and an address in ~/.ssh/config"),
    (
        r"No module named .?bench",
        "firsttoken is not installed for {python} there: `client.python` names its interpreter",
    ),
    (r"[Uu]nknown option: ?-P|No such file|not found", "{python} is no Python ≥ 3.11 there: `client.python` names one"),
    (r"timed out|No route|unreachable|refused|[Tt]imeout", "it does not answer"),
)


class Outpost:
    """Started on entry; a thread of its own asks for the time there and carries what is said, both ways.

    Whatever comes goes into `inbox` as (this, head, payload); the last one is `lost`, with the reason. `echoes` are the
    answers about the clock, oldest first. LaunchError (`client_lost`) where it cannot be reached or is another version.
    """

    def __init__(self, host: str, python: str, number: int = 0, inbox: queue.Queue[Any] | None = None) -> None:
        self.host, self.number = host, number
        self.inbox: queue.Queue[tuple[Outpost, dict[str, Any], bytes]] = inbox or queue.Queue()
        self.echoes: list[Echo] = []
        self.lost: str | None = None
        self._python = python
        self._outgoing: deque[tuple[dict[str, Any], bytes]] = deque()
        self._wake_read, self._wake = os.pipe()
        self._closed = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process that writes to it)
        self._process = self._started()
        self.sees = self._greeted()
        self._thread = threading.Thread(target=self._keep, name=f"outpost {host}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the ssh that leads there."""
        return self._process.pid

    def say(self, head: dict[str, Any], payload: bytes = b"") -> None:
        """Have something said there; nothing is waited for. LaunchError if nobody is there any more."""
        if self.lost is not None:
            raise self.failure(self.lost)
        self._outgoing.append((head, payload))
        with suppress(OSError):
            os.write(self._wake, b"x")

    def hear(self, kind: str, timeout_s: float = _PATIENCE_S) -> Frame:
        """Wait for what is said from there, where nobody else reads the inbox. LaunchError if that never comes."""
        while True:
            try:
                _, head, payload = self.inbox.get(timeout=timeout_s)
            except queue.Empty:
                raise self.failure(f"it did not answer ({kind}) within {timeout_s:.0f} s") from None
            if head["said"] == kind:
                return head, payload
            if head["said"] in ("lost", "failed"):
                raise self.failure(head["why"])

    def ask(self, patience_s: float = _PATIENCE_S, **question: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.say(question)
        return self.hear(question["ask"], patience_s)[0]

    def failure(self, why: str) -> LaunchError:
        """What to raise; addresses are nobody's business."""
        return LaunchError(LOST, f"the client's host {self.host!r}: {_ADDRESS.sub('its address', why)}")

    def close(self) -> None:
        """End the load generator there and the way to it."""
        self._closed = True
        with suppress(OSError):
            os.write(self._wake, b"x")
        self._thread.join(timeout=_SILENCE_S)
        self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        there = [self._python, "-P", "-m", "bench.loadgen.outpost_process", str(2 * _SILENCE_S)]
        # A tilde is the other shell's business.
        words = " ".join(word if re.fullmatch(r"~[\w/.-]*", word) else shlex.quote(word) for word in there)
        options = [part for option in _OPTIONS for part in ("-o", option)]
        try:
            return subprocess.Popen(
                ["ssh", "-T", "-x", *options, "--", self.host, words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                process_group=0,
            )
        except FileNotFoundError:
            self._let_go()
            raise self.failure("there is no ssh here: apt-get install openssh-client") from None

    def _greeted(self) -> str:
        """That it is there, of the same version; the address at which it sees us."""
        try:
            frame = receive(lambda most: next_bytes(self._out, most))
            if frame is None:
                raise self.failure(self._why())
            if (frame[0]["version"], frame[0]["digest"]) != (release(), digest()):
                raise self.failure(
                    f"it has firsttoken {frame[0]['version']} (source {frame[0]['digest']}), and here it is "
                    f"{release()} (source {digest()}): install the same one on both"
                )
        except TimeoutError:
            self._end()
            raise self.failure(f"it said nothing for {_PATIENCE_S:.0f} s") from None
        except BaseException:
            self._end()
            raise
        return str(frame[0]["sees"])

    @property
    def _out(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _keep(self) -> None:
        """Until closed or lost: say what is to be said, hear what comes, ask for the time in between."""
        try:
            self._carry()
        except (OSError, TimeoutError, ValueError) as error:
            why = self._why() if self._process.poll() is not None else str(error) or type(error).__name__
        else:
            why = "closed"
        if self.lost is None:
            self.lost = why
        self._process.kill()
        self.inbox.put((self, {"said": "lost", "why": self.lost}, b""))

    def _carry(self) -> None:
        assert self._process.stdin is not None
        into = self._process.stdin.fileno()
        heard = beat = time.monotonic()
        asked: int | None = None
        while not self._closed:
            wait = max(0.0, beat - time.monotonic())
            readable, _, _ = select.select([self._out, self._wake_read], [], [], wait)
            if self._out in readable:
                came = time.monotonic_ns()
                frame = receive(lambda most: next_bytes(self._out, most))
                heard = time.monotonic()
                if frame is None:
                    self.lost = self.lost or self._why()
                    return
                if frame[0]["said"] == "time":
                    assert asked is not None
                    self.echoes.append(Echo(asked, frame[0]["received"], frame[0]["answered"], came))
                    asked = None
                else:
                    if frame[0]["said"] == "died":
                        self.lost = f"the load generator's process there {frame[0]['why']}"
                        return
                    self.inbox.put((self, *frame))
            elif time.monotonic() - heard > _SILENCE_S:
                self.lost = f"it has been silent for {_SILENCE_S:.0f} s: the link is cut, or the host is down"
                return
            if self._wake_read in readable:
                os.read(self._wake_read, 64)
            while self._outgoing:
                head, payload = self._outgoing.popleft()
                pipes.write_all(into, packed(head, payload))
                pipes.write_all(into, payload)
            if time.monotonic() >= beat:
                beat = time.monotonic() + _BEAT_S * (1 + len(self.echoes) // _MANY)
                if asked is None:
                    message = packed({"ask": "time"})
                    asked = time.monotonic_ns()
                    pipes.write_all(into, message)

    def _why(self) -> str:
        """Why ssh ended, in words for a user."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        for pattern, words in _REFUSALS:
            if re.search(pattern, said):
                return words.format(host=self.host, python=self._python)
        last = said.splitlines()[-1] if said else "and gave no reason"
        return f"the way to it ended with status {self._process.returncode}: {last}"

    def _end(self) -> None:
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            # With its input closed, the other side ends by itself, and ssh with it.
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._let_go()

    def _let_go(self) -> None:
        for descriptor in (self._wake, self._wake_read):
            with suppress(OSError):
                os.close(descriptor)
        self._stderr.close()
