"""What a monitor saw, line by line on the disk as it comes: `days` makes a run's tables of it.

A line is written in one go; one that a crash or a full disk cut short is left aside by its reader. Every start of a
monitor, and every day (UTC), begins a file of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import RecordError
from bench.phrases import unwritten

FOLDER = "journal"
LOCK = "monitor.lock"
STATE = "state.json"


class Held:
    """A monitor's folder, for as long as it watches: a second monitor is refused."""

    def __init__(self, folder: Path) -> None:
        try:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordError(unwritten(folder, error), hint="name another folder: --into") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise RecordError(
                f"{folder} is watched into by another monitor" + (f" (process {holder})" if holder else ""),
                hint="stop that one, or give this one a folder of its own: --into",
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go of it."""
        os.ftruncate(self._lock, 0)
        os.close(self._lock)


class Journal:
    """The file that is being written. `fault` is what keeps it from being written now, or None."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._file: int | None = None
        self._day = ""
        self._torn = False
        self.path: Path | None = None
        self.fault: str | None = None

    def write(self, now: datetime, line: Mapping[str, Any]) -> bool:
        """Write a line; False where it could not be, and `fault` says why. The next one is tried all the same."""
        data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            if self._file is None:
                self._open(now)
            assert self._file is not None
            # What was cut short before ends here, and is left aside.
            data = b"\n" + data if self._torn else data
            self._torn = True
            if os.write(self._file, data) < len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            self.fault = unwritten(self._folder, error)
            return False
        self._torn, self.fault = False, None
        return True

    def finished(self) -> list[str]:
        """Names of the journals that nobody writes to any more."""
        current = self.path.name if self.path else None
        return sorted(path.name for path in self._folder.glob("*.jsonl") if path.name != current)

    def rolled(self, now: datetime) -> bool:
        """Close the file when its day is over; whether it was."""
        if self._file is None or now.strftime("%Y%m%d") == self._day:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file, self.path, self._torn = None, None, False

    def _open(self, now: datetime) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp, number = now.strftime("%Y%m%dT%H%M%S"), 0
        while True:
            # A clock that was set back may come to the same second again.
            path = self._folder / f"{stamp}-{number}.jsonl"
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                number += 1
                continue
            self.path, self._day = path, now.strftime("%Y%m%d")
            return


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; what is no whole line is left aside."""
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if isinstance(line, dict) and "kind" in line and raw.endswith(b"\n"):
                yield line


def utc() -> datetime:
    """Now."""
    return datetime.now(UTC)
