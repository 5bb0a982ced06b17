"""How long the command takes to start, beside Python itself. CPU time, so that a busy machine changes little."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

START = "import sys; from bench.cli import main; sys.exit(main())"
ROUNDS = 7


def once(*arguments: str) -> tuple[float, float]:
    """CPU and wall seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=Path.cwd(), env=os.environ)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "limit_s", "limit_ratio"),
    [(("--help",), 0.25, 10.0), (("check", "scenarios/quick.yaml"), 0.5, 30.0)],
    ids=["help", "check"],
)
def test_a_command_starts_quickly(arguments: tuple[str, ...], limit_s: float, limit_ratio: float) -> None:
    once("-c", START, *arguments)
    pairs = [(once("-c", "pass"), once("-c", START, *arguments)) for _ in range(ROUNDS)]
    python_cpu = statistics.median(plain[0] for plain, _ in pairs)
    cpu = statistics.median(ours[0] for _, ours in pairs)
    ratio = min(ours[1] for _, ours in pairs) / min(plain[1] for plain, _ in pairs)
    wall = min(ours[1] for _, ours in pairs)
    print(
        f"\nbench {' '.join(arguments)}: {wall * 1e3:.0f} ms at best of {ROUNDS}, {ratio:.1f} times `python -c pass`; "
        f"{cpu * 1e3:.0f} ms of CPU against {python_cpu * 1e3:.0f}"
    )
    # A start is one thread's work: on a machine with nothing else to do, its CPU time is its duration.
    assert cpu <= limit_s
    assert cpu / python_cpu <= limit_ratio
