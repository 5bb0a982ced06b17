"""A short rest after each round of reads, so that the next round finds several streams ready instead of one.

Where the kernel stamps what it receives, nobody needs the user's process at the very moment; being woken for every
single event costs more than the event. Sends that answer a read wait for the rest to end, at most its length.
"""

from __future__ import annotations

import asyncio
import time


class Pause:
    """Rests once per round of the event loop, `seconds` long, after the reads of that round."""

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
