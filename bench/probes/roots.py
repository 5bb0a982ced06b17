"""Where the machine is read: the real one by default, a folder of files for an emulated board or a test."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.probes.probe import Reading

# What an errno says about a sensor; anything else counts as `stale`: the file is there and gives nothing.
_ERRNO = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EACCES: "no_permission",
    errno.EPERM: "no_permission",
    errno.EAGAIN: "unsupported",  # a thermal zone whose block is powered off
    errno.EOPNOTSUPP: "unsupported",
    errno.EINVAL: "unsupported",
}


@dataclass(frozen=True, slots=True)
class Roots:
    """The trees that probes read.

    `tasks` holds process ids and the kernel's own accounting; it stays the real /proc for an emulated board, whose
    engine is a real process. `path` is where tegrastats and nvpmodel are searched. `nvml` is `real`, `none`, or a
    profile of the scripted library. `emulated` names the emulated board.
    """

    sys: str = "/sys"
    proc: str = "/proc"
    root: str = "/"
    tasks: str = "/proc"
    path: str | None = None
    nvml: str = "real"
    emulated: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for the sampler's process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Roots:
        """The inverse of to_json."""
        return cls(**data)

    def in_sys(self, *parts: str) -> Path:
        """A path below /sys."""
        return Path(self.sys, *parts)

    def in_proc(self, *parts: str) -> Path:
        """A path below /proc."""
        return Path(self.proc, *parts)

    def in_root(self, *parts: str) -> Path:
        """A path below /."""
        return Path(self.root, *parts)

    def which(self, program: str) -> str | None:
        """The program's path, searched where this machine keeps its tools."""
        return shutil.which(program, path=self.path)

    def output(self, *argv: str, timeout_s: float = 5.0) -> str | None:
        """What a short command prints; None if it is missing, fails, or takes longer."""
        program = self.which(argv[0])
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, *argv[1:]],
                capture_output=True,
                timeout=timeout_s,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None


def text(path: Path) -> str | None:
    """A small file's text without its trailing blanks and NULs; None if it cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def number(path: Path) -> int | None:
    """A small file's integer; None if it cannot be read or is none."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def peek(path: str, size: int = 4096) -> bytes:
    """The first bytes of a file in three system calls; OSError if it cannot be read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def listing(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Sorted entries of a folder; none if it is missing or closed to us."""
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return


def reason(error: OSError) -> str:
    """Why a reading is null, from the system's error."""
    return _ERRNO.get(error.errno or 0, "stale")


Answer = bytes | Reading
"""What a file said: its content, or a null."""


def parsed(answer: Answer, value: Callable[[bytes], float]) -> Reading:
    """What `value` makes of a content; a null stays what it is."""
    if isinstance(answer, Reading):
        return answer
    try:
        return Reading(float(value(answer)))
    except (ValueError, LookupError):
        return Reading.null("parse_failed")


def scaled(answer: Answer, scale: float) -> Reading:
    """The number in a content, times `scale`."""
    return parsed(answer, lambda data: int(data) * scale)


class SensorFile:
    """One file read again and again through one descriptor: a few microseconds a time.

    A file that was there and goes away gives `stale`; one that was never there, `not_found`. It is opened again when
    it comes back. Whether it is still, or by now, at its path is looked at once in `every` readings: that costs more
    than the reading, and a device that has gone says so by itself when its file is read.
    """

    def __init__(self, path: Path | str, size: int = 4096, every: int = 1) -> None:
        self.path = str(path)
        self._size = size
        self._every = every
        self._turn = 0
        self._fd: int | None = None
        self._null: Reading | None = None
        self._seen = False

    def raw(self) -> bytes:
        """The content; OSError says why there is none."""
        turn, self._turn = self._turn, (self._turn + 1) % self._every
        try:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            elif not turn and os.fstat(self._fd).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "gone", self.path)
            data = os.pread(self._fd, self._size, 0)
        except OSError:
            self.close()
            raise
        self._seen = True
        return data

    def answer(self) -> Answer:
        """The content, or the null that stands for it."""
        if self._turn and self._fd is None and self._null is not None:
            self._turn = (self._turn + 1) % self._every
            return self._null
        try:
            return self.raw()
        except OSError as error:
            self._turn = 1 % self._every
            self._null = Reading.null(self.why(error))
            return self._null

    def read(self, scale: float = 1.0) -> Reading:
        """The number in it, times `scale`."""
        return scaled(self.answer(), scale)

    def parse(self, value: Callable[[bytes], float]) -> Reading:
        """What `value` makes of the content."""
        return parsed(self.answer(), value)

    def why(self, error: OSError) -> str:
        """The reason for a null, given whether the file ever answered."""
        found = reason(error)
        return "stale" if self._seen and found == "not_found" else found

    def close(self) -> None:
        """Give the descriptor back; the next read opens the file again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __del__(self) -> None:
        self.close()
