"""Keep an emulated board alive: `python -m bench.emulate.board FOLDER BOARD [FAULT…]`, until standard input ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

from bench import pipes
from bench.emulate.board.animate import Animation, Fault
from bench.emulate.board.catalogue import find

PERIOD_S = 0.1


def main() -> None:
    """Animate at 10 Hz, politely."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
    folder, board, *faults = sys.argv[1:]
    animation = Animation(Path(folder), find(board), faults=[Fault.parse(words) for words in faults])
    last = time.monotonic()
    animation.step(PERIOD_S)
    pipes.write_all(1, b"alive\n")
    while True:
        if select.select([0], [], [], max(0.0, last + PERIOD_S - time.monotonic()))[0] and not os.read(0, 64):
            return
        now = time.monotonic()
        animation.step(now - last)
        last = now


if __name__ == "__main__":
    main()
