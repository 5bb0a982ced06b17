"""Processes that a test starts, and that end with it whatever it finds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import AnyStr

from tests.waiting import PATIENCE_S

_TERM_S = 10.0


@contextmanager
def ended(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """The process, waited for at the end of the block, by which the test has had it end; AssertionError if it has not.

    `with Popen` waits for ever, also for a process that a failed assertion left running: that test never says what it
    found. Here it is terminated, and killed if need be.
    """
    with process:
        try:
            yield process
            for stream in (process.stdin, process.stdout, process.stderr):
                # Whoever still writes hears that nobody reads, as at the end of `with Popen`.
                if stream is not None:
                    stream.close()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"the test left {process.args!r} running, and it did not end") from None
        finally:
            _end(process)


def _end(process: subprocess.Popen[AnyStr]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TERM_S)
        except subprocess.TimeoutExpired:
            # It may be stopped, or deaf.
            process.kill()
