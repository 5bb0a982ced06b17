"""How the driving process meets its times: a timer of its own, rests that let reads gather, and priority."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_NICE = -10
_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_BILLION = 1_000_000_000

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Calls back once at an absolute CLOCK_MONOTONIC time, within tens of microseconds.

    A file descriptor, since uvloop's own timers tick in whole milliseconds, and arrivals must not.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        loop.add_reader(self._fd, self._expired)

    def set(self, at_ns: int) -> None:
        """Arm it, or arm it anew; a time that has passed expires at once."""
        value = _Timespec(at_ns // _BILLION, at_ns % _BILLION)
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(_Itimerspec(_Timespec(), value)), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._callback()


class Pause:
    """Rests once per round of the event loop, `seconds` long, after the reads of that round.

    So the next round finds several streams ready instead of one. Where the kernel stamps what it receives, nobody needs
    the user's process at the very moment; being woken for every single event costs more than the event. Sends that
    answer a read wait for the rest to end, at most its length.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._asked = False

    def soon(self) -> None:
        """Rest at the end of this round."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._rest)

    def _rest(self) -> None:
        self._asked = False
        time.sleep(self._seconds)


@contextmanager
def first_in_line() -> Iterator[str]:
    """While the block runs: real-time where permitted, else a better nice value, else as it was; says which.

    The driving process needs little, and must not be late. Only while driving: parsing takes longer.
    """
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
