"""The samples file: one line per reading, `{"t": ns, "p": probe, "v": {field: value or [null, reason]}}`."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from bench.probes.probe import Reading

FILE = "samples.jsonl"

Made = Mapping[str, Reading] | Callable[[], Mapping[str, Reading]]


class Sink:
    """The samples file: whole lines, or a count of those that did not fit.

    Readings are gathered, and made into lines and written once a beat: done one by one, each finds the processor's
    caches cold and costs several times as much.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._gathered: deque[tuple[int, str, Made]] = deque()
        self._broken = False
        self.lost = 0

    def write(self, t_ns: int, probe: str, made: Made) -> None:
        """One reading of one probe, or what makes it."""
        self._gathered.append((t_ns, probe, made))

    def flush(self) -> None:
        """Put all that was gathered on disk; called by one thread alone."""
        lines = []
        while self._gathered:
            t_ns, probe, made = self._gathered.popleft()
            lines.append(_line(t_ns, probe, made() if callable(made) else made))
        # After a short write the next line starts on a fresh one: the reader drops the half.
        data = b"\n" * self._broken + b"".join(lines)
        written = 0
        with suppress(OSError):
            while lines and written < len(data):
                written += os.write(self._fd, data[written:])
        whole = data[:written].count(b"\n") - self._broken * (written > 0)
        self._broken = self._broken if not lines else written != len(data)
        self.lost += len(lines) - whole


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _line(t_ns: int, probe: str, readings: Mapping[str, Reading]) -> bytes:
    values = {
        field: round(value, 6) if value is not None else (None, reason) for field, (value, reason) in readings.items()
    }
    return _encode({"t": t_ns, "p": probe, "v": values}).encode() + b"\n"
