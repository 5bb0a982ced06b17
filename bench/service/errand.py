"""A program sent on an errand: given its words, heard to its end, and ended itself when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress


async def errand(command: Sequence[str], data: bytes, env: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Exit code and standard error of a program that read `data`; OSError if it could not be started.

    Cancelled at any moment it leaves no process behind, also while that is being made.
    """
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    making = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=nowhere, stderr=pipe, env=env)
    )
    try:
        process = await asyncio.shield(making)
    except asyncio.CancelledError:
        with suppress(OSError):
            await _ended(await making)
        raise
    try:
        _, said = await process.communicate(data)
    finally:
        await _ended(process)
    assert process.returncode is not None
    return process.returncode, said


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
