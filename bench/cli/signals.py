"""Being told to stop is no reason to leave a mess: TERM and HUP end a command the way Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

AGAIN_S = 0.05

_heard: list[int] = []


def interrupted() -> bool:
    """Whether a Ctrl-C, TERM or HUP came to this command, whatever became of the exception that it raised.

    An extension module that is being imported may turn it into an ImportError of its own.
    """
    return bool(_heard)


@contextmanager
def ends_on_term() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise KeyboardInterrupt, so that everything is stopped and kept in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def reads_again_on_hup() -> Iterator[threading.Event]:
    """Within it SIGHUP sets the event, as services take it; one that comes because the terminal has gone ends the
    command as ever.
    """
    asked, before_terminal = threading.Event(), _terminal()

    def heard(number: int, frame: FrameType | None) -> None:
        if before_terminal and not _terminal():
            _heard.append(number)
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGHUP, heard)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGHUP, before)


def _terminal() -> bool:
    """Whether this process has a terminal that controls it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def never_unheard() -> Iterator[None]:
    """Within it a Ctrl-C is noted, and comes again if it fell where Python can only print and forget it.

    That is in a finaliser, or in a weak reference's callback, of which imports have many.
    """
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        # A real signal, so that a waiting main thread wakes too.
        main = threading.main_thread().ident
        timer = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    def heard(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        signal.default_int_handler(number, frame)

    _heard.clear()
    sys.unraisablehook = again
    # Only the main thread may, and only where nobody else has made Ctrl-C their own or unheard.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with suppress(ValueError):
        if ours:
            signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        sys.unraisablehook = before
        with suppress(ValueError):
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)


def ends_with(owner: int) -> None:
    """From now on this command is told to end (TERM) once that process is gone, killed or not."""
    import os
    import select
    import threading

    def watch() -> None:
        with suppress(OSError):
            handle = os.pidfd_open(owner)
            select.select([handle], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="owner", daemon=True).start()
