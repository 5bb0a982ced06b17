"""The rest between rounds of reads."""

from __future__ import annotations

import asyncio
import time

from bench.loadgen.punctuality import Pause


async def test_many_reads_of_one_round_make_one_rest() -> None:
    loop = asyncio.get_running_loop()
    pause, rounds = Pause(loop, 0.02), 3
    begun = time.monotonic()
    for _ in range(rounds):
        for _ in range(10):
            pause.soon()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    spent = time.monotonic() - begun
    assert spent >= rounds * 0.02
    assert spent < 10 * rounds * 0.02


async def test_nothing_read_means_no_rest() -> None:
    Pause(asyncio.get_running_loop(), 60.0)
    begun = time.monotonic()
    await asyncio.sleep(0)
    assert time.monotonic() - begun < 1.0
