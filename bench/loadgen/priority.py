"""The driving process goes first where the system lets it: it needs little, and must not be late.

Real-time priority lasts only while driving; parsing, which takes longer, goes back into the line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NICE = -10


@contextmanager
def first_in_line() -> Iterator[str]:
    """While the block runs: real-time where permitted, else a better nice value, else as it was; says which."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        yield _raised(before)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def _raised(before: int) -> str:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
        return "real-time"
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, _NICE))
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"
