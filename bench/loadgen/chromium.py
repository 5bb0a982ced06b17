"""Chromium without a window, spoken to in its own protocol (DevTools) over a pair of pipes.

Pipes and no port: nobody else can speak to it, and it ends by itself when they close, also after a `kill -9` of whoever
held them. It is no child of the load generator's, whose work its own is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Self

from bench.errors import EnvironmentFault, LaunchError

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
INSTALL = "on Debian: apt install chromium"
# A page of its own, no window, nothing fetched that the page does not name.
FLAGS = (
    *("--headless", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-extensions", "--disable-default-apps", "--metrics-recording-only", "--disable-dev-shm-usage"),
    *("--disable-renderer-backgrounding", "--disable-background-timer-throttling", "--mute-audio"),
    "--window-size=1280,900",
)
PATIENCE_S = 30.0
# Its ends of the pipes are descriptors 3 and 4 there, whatever they are here.
_BECOME = (
    "import fcntl, os, sys\nif os.fork():\n    os._exit(0)\nos.setsid()\n"
    "reads, writes, told = (os.dup(int(word)) for word in sys.argv[1:4])\n"
    "os.write(told, str(os.getpid()).encode())\nos.close(told)\n"
    "reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes))\n"
    "os.dup2(reads, 3)\nos.dup2(writes, 4)\nos.closerange(5, 256)\nos.execv(sys.argv[4], sys.argv[4:])"
)


def found() -> str:
    """The program; EnvironmentFault says how to get it."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        raise EnvironmentFault("no Chromium is installed", hint=INSTALL)
    return program


class Chromium:
    """One browser with one page; gone with `close()`."""

    def __init__(self) -> None:
        program = found()
        self._profile = tempfile.TemporaryDirectory(prefix="bench-chromium-", ignore_cleanup_errors=True)
        words = [program, *FLAGS, f"--user-data-dir={self._profile.name}"]
        if os.getuid() == 0:
            words.append("--no-sandbox")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        told, tells = os.pipe()
        ends = (theirs_in, theirs_out, tells)
        with os.fdopen(told, "rb") as answer:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _BECOME, *map(str, ends), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=ends,
                check=True,
            )
            for end in ends:
                os.close(end)
            self.pid = int(answer.read())
        self._handle = os.pidfd_open(self.pid)
        self._number = 0
        self._unread = b""
        self.session: str | None = None
        try:
            target = self.tell("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.tell("Page.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self, method: str, timeout_s: float = PATIENCE_S, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; LaunchError if it is refused, or none comes."""
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self.session is not None:
            order["sessionId"] = self.session
        end = time.monotonic() + timeout_s
        try:
            data = json.dumps(order).encode() + b"\0"
            while data:
                data = data[os.write(self._out, data) :]
            while True:
                answer = self._next(end)
                if answer.get("id") == self._number:
                    break
        except OSError as error:
            raise LaunchError("request_failed", f"the browser is gone: {error}") from None
        if "error" in answer:
            raise LaunchError("request_failed", f"the browser refuses {method}: {answer['error'].get('message')}")
        found: dict[str, Any] = answer.get("result", {})
        return found

    def value(self, expression: str, timeout_s: float = PATIENCE_S) -> Any:
        """What an expression of JavaScript gives in the page, a promise once it is kept; LaunchError if it throws."""
        told = self.tell(
            "Runtime.evaluate",
            timeout_s,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if fault := told.get("exceptionDetails"):
            said = fault.get("exception", {}).get("description") or fault.get("text")
            raise LaunchError("request_failed", f"the page says: {str(said).splitlines()[0]}")
        return told.get("result", {}).get("value")

    def wait(self, expression: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until an expression is true in the page; LaunchError if it never is."""
        end = time.monotonic() + timeout_s
        while not self.value(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise LaunchError("not_ready", f"the page did not come to {expression} in {timeout_s:g} s")
            time.sleep(0.05)

    def close(self) -> None:
        """End it, with its profile; it ends at the closed pipes, and is not asked twice."""
        for end in (self._out, self._in):
            with contextlib.suppress(OSError):
                os.close(end)
        if not select.select([self._handle], [], [], 5.0)[0]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            select.select([self._handle], [], [], 5.0)
        os.close(self._handle)
        self._profile.cleanup()

    def _next(self, end: float) -> Mapping[str, Any]:
        while b"\0" not in self._unread:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise LaunchError("stalled", "the browser fell silent")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise LaunchError("request_failed", "the browser ended")
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        told: Mapping[str, Any] = json.loads(message)
        return told
