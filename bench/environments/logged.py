"""A long command of somebody else's: its output kept in a file, and told line by line while it runs."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.home import Progress

# Lines of the end that are given back when it fails.
TAIL = 200


def logged(argv: Sequence[str], log: Path, line: Progress, *, env: Mapping[str, str]) -> str | None:
    """Run it with stdout and stderr appended to `log`, every line given to `line` too; ended if we are.

    None if it succeeded, else the end of its output. OSError if it cannot be run.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    with (
        log.open("a", buffering=1, encoding="utf-8") as kept,
        subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for said in process.stdout:
                kept.write(said)
                tail.append(said)
                line(said)
        except BaseException:
            process.terminate()
            raise
    return "".join(tail) if process.returncode else None
