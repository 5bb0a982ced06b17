"""Patience: a launch that can no longer be among the best is ended before its first token, and has no value then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.engines.server import Server


@dataclass(slots=True)
class Waiting:
    """How long a launch may take to its first token, s, and whether that is over."""

    patience_s: float | None
    over: bool = False
    met: bool = False

    def heard(self) -> None:
        """The workload's first token has come: the launch goes on, however long its answers are."""
        self.met = True

    @property
    def words(self) -> str:
        """Why it was ended."""
        return f"no first token within {self.patience_s:.1f} s of the spawn: it cannot be among the best any more"


@contextmanager
def patient(patience_s: float | None, server: Server, kill: Callable[[], None]) -> Iterator[Waiting]:
    """Calls `kill` once the server's spawn is so long ago and the workload's first token has not come yet.

    Until the launch is left; never where there is no limit. That the token came is told to the Waiting by the client,
    up to 20 ms later (a page in a browser tells it at the end of the answer).
    """
    waiting = Waiting(patience_s)
    if patience_s is None:
        yield waiting
        return

    def end() -> None:
        if not waiting.met and server.stamps.get("stop") is None:
            waiting.over = True
            kill()

    spawn = server.stamps.get("spawn")
    gone = 0.0 if spawn is None else (time.monotonic_ns() - spawn) / 1e9
    timer = threading.Timer(max(0.0, patience_s - gone), end)
    timer.daemon = True
    timer.start()
    try:
        yield waiting
    finally:
        timer.cancel()
        timer.join()
