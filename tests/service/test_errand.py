"""An errand is heard to its end; one that nobody waits for is no process any more."""

from __future__ import annotations

import asyncio
import os

import psutil
import pytest

from bench.service.errand import errand


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def test_it_is_given_its_words_and_heard_to_its_end() -> None:
    code, said = asyncio.run(
        errand(["sh", "-c", "cat >&2; echo $WHO >&2; exit 3"], b"words ", {**os.environ, "WHO": "me"})
    )
    assert (code, said) == (3, b"words me\n")


def test_what_cannot_be_started_says_so() -> None:
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(errand(["no-such-program"], b""))


@pytest.mark.parametrize("turns", range(12))
def test_broken_off_at_any_moment_it_leaves_no_process(turns: int) -> None:
    before = {child.pid for child in children()}

    async def broken_off() -> None:
        task = asyncio.ensure_future(errand(["sleep", "600"], b""))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(broken_off())
    assert {child.pid for child in children()} <= before
