"""Patience: a launch that can no longer be among the best is ended before its first token, and has no value then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.engines.server import Server
from bench.record.launches import LaunchRecord


@dataclass(slots=True)
class Waiting:
    """How long a launch may take to its first token, s, and whether that is over."""

    patience_s: float | None
    over: bool = False

    @property
    def words(self) -> str:
        """Why it was ended."""
        return f"no first answer within {self.patience_s:.1f} s of the spawn: it cannot be among the best any more"


@contextmanager
def patient(
    patience_s: float | None, record: LaunchRecord, server: Server, kill: Callable[[], None]
) -> Iterator[Waiting]:
    """Calls `kill` once the server's spawn is so long ago and the workload's first request is not answered yet.

    Until the launch is left, or that request is answered; never where there is no limit.
    """
    waiting = Waiting(patience_s)
    if patience_s is None:
        yield waiting
        return

    def end() -> None:
        if "first_token" not in record.stamps and server.stamps.get("stop") is None:
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
