"""Every byte through a pipe, whatever happens on the way.

A write to a pipe may take fewer bytes than it was given: when the process is stopped and continued (Ctrl-Z, a freezer,
a laptop's lid), when a signal comes, when somebody else has made the pipe non-blocking. Python's buffered streams go on
with the rest; its raw ones don't, and with PYTHONUNBUFFERED `sys.stdout.buffer` is a raw one. So our processes speak
through this, and none through `print`. Programs that may import nothing of ours carry a copy of `write_all`, held equal
by a test.
"""

from __future__ import annotations

import os
import select


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


def read_some(descriptor: int, most: int) -> bytes:
    """Some bytes, waited for; none once the other side is gone."""
    while True:
        try:
            return os.read(descriptor, most)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll()
