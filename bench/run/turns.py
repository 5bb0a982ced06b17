"""Runs on one machine take turns, launch by launch: two engines at once would measure each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.home import home, locked
from bench.run.progress import Progress

# Set to 1 where runs do not disturb each other: tests of the harness itself, or a GPU for each.
BESIDE = "FIRSTTOKEN_BESIDE_OTHERS"


@contextmanager
def turn(progress: Progress) -> Iterator[None]:
    """Hold the machine for one launch; waits, and says for whom, while another run of this user has it."""
    if os.environ.get(BESIDE) == "1":
        yield
        return
    with locked(home() / "measuring.lock", lambda words: progress.note(f"{words}: another run measures")):
        yield
