"""Which processes of a launch were stopped and continued while it ran: its figures then measure the pause.

The kernel remembers of a child that it was continued until the parent asks, however short the stop was; so children are
asked once, at the end. This process has no parent of ours: it notices its own SIGCONT.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from bench.record.launches import Stop


@contextmanager
def own_stops() -> Iterator[list[Stop]]:
    """The stops of this process within the context, each noted when it is continued; none outside the main thread."""
    found: list[Stop] = []
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def continued(number: int, frame: FrameType | None) -> None:
        found.append(Stop("harness", os.getpid(), end_ns=time.monotonic_ns()))

    before = signal.signal(signal.SIGCONT, continued)
    try:
        yield found
    finally:
        signal.signal(signal.SIGCONT, before)


def of_children(children: Mapping[str, int | None]) -> list[Stop]:
    """Those of our living children, by name, that were stopped since they began."""
    return [Stop(name, pid) for name, pid in children.items() if pid is not None and was_stopped(pid)]


def was_stopped(child: int) -> bool:
    """Whether a living child is stopped, or was and goes on."""
    try:
        return os.waitid(os.P_PID, child, os.WSTOPPED | os.WCONTINUED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
