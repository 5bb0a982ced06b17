"""engine.log: what an engine said, line by line, each with the time at which it was read and the stream it came by.

    123456789 out Uvicorn running on http://127.0.0.1:8000

The engine's supervisor writes it (engines/server_process.py, which imports nothing of ours); everybody reads it here.
"""

from __future__ import annotations

from dataclasses import dataclass

NAME = "engine.log"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the engine's output: when it was read (ns, CLOCK_MONOTONIC), out or err, and the text."""

    t_ns: int
    stream: str
    text: str


def parse(line: str) -> LogLine | None:
    """A line of engine.log without its end; None for one that a crash cut short."""
    stamp, _, rest = line.partition(" ")
    stream, space, text = rest.partition(" ")
    return LogLine(int(stamp), stream, text) if space and stamp.isdecimal() and stream in ("out", "err") else None
