"""The latest line of a program that prints one every so often, for probes that listen to others."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RETRY_S = 5.0
LONGEST = 65536


@dataclass(frozen=True, slots=True)
class Heard:
    """One whole line, counted from 1, and when it came (monotonic seconds)."""

    number: int
    at: float
    text: str


class Listener:
    """A child that is read by a thread of its own and started again when it ends. `argv` None: there is no program."""

    def __init__(
        self,
        argv: Sequence[str] | None,
        *,
        retry_s: float = RETRY_S,
        longest: int = LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.argv = argv
        self._retry_s, self._longest, self._clock = retry_s, longest, clock
        self._latest: Heard | None = None
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._came = threading.Event()
        if argv is not None:
            threading.Thread(target=self._listen, name=f"lines of {argv[0]}", daemon=True).start()

    def latest(self) -> Heard | None:
        """The newest line, or None before the first."""
        return self._latest

    def first(self, timeout_s: float) -> str | None:
        """The first line, waited for; None if none comes."""
        if self.argv is not None:
            self._came.wait(timeout_s)
        return self._latest.text if self._latest else None

    def silent_s(self) -> float:
        """How long ago the newest line came; 0 before the first."""
        return self._clock() - self._latest.at if self._latest else 0.0

    def wait(self, seconds: float) -> None:
        """Let some time pass, unless it is closed meanwhile."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End the child."""
        self._closed.set()
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                process.kill()

    def _listen(self) -> None:
        while not self._closed.is_set():
            started = time.monotonic()
            self._run_once()
            # A program that ends at once is not started again at once.
            self._closed.wait(max(0.0, started + self._retry_s - time.monotonic()))

    def _run_once(self) -> None:
        assert self.argv is not None
        try:
            process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError:
            return
        self._process = process
        with process:
            assert process.stdout is not None
            # A line is taken only whole: a program that dies leaves half a one, one that is too long comes in pieces.
            begun = True
            while data := process.stdout.readline(self._longest):
                whole, begun = begun and data.endswith(b"\n"), data.endswith(b"\n")
                if whole:
                    self._count += 1
                    self._latest = Heard(self._count, self._clock(), data.decode(errors="replace").strip())
                    self._came.set()
