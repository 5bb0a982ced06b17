"""What happens in this process, as JSON lines for the harness: `name`, `t_ns`, `end_ns` on CLOCK_MONOTONIC, `pid`."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting where there is no room; OSError if the other side is gone."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()


class Events:
    """The events file; without one the events are dropped."""

    def __init__(self, file: str | None) -> None:
        # Unbuffered appends: each event is one write, and none is lost when the process is killed.
        self._file = Path(file).open("ab", buffering=0) if file else None  # noqa: SIM115  # open as long as the process

    def emit(self, name: str, t_ns: int | None = None, end_ns: int | None = None, **detail: Any) -> None:
        """Write one event; a full disk costs the event and not the server."""
        if self._file is None:
            return
        event = {"name": name, "t_ns": t_ns if t_ns is not None else time.monotonic_ns(), "pid": os.getpid(), **detail}
        if end_ns is not None:
            event["end_ns"] = end_ns
        try:
            write_all(self._file.fileno(), json.dumps(event, default=str).encode() + b"\n")
        except OSError as error:
            print(f"events file: {error}", file=sys.stderr)
            self._file = None

    @contextmanager
    def phase(self, name: str, **detail: Any) -> Iterator[dict[str, Any]]:
        """Time a phase; what is put into the mapping goes along. A phase that raises is not written."""
        began = time.monotonic_ns()
        yield detail
        self.emit(name, began, time.monotonic_ns(), **detail)
