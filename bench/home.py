"""The folder that survives runs: engine environments and model checkpoints, shared by all runs of this user."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import ProvisionError
from bench.phrases import is_full, unwritten

Progress = Callable[[str], None]

# Where runs, and the baselines among them, are kept unless a command is told otherwise.
RESULTS = Path("results")
BASELINES = RESULTS / "baselines"


def home() -> Path:
    """`$FIRSTTOKEN_HOME`, else `firsttoken` in the user's cache folder."""
    chosen = os.environ.get("FIRSTTOKEN_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "firsttoken"


@contextmanager
def locked(file: Path, progress: Progress | None = None) -> Iterator[None]:
    """Hold a file's lock against other processes; it ends with the process, however that ends."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress:
                owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "?"
                progress(f"waiting for process {owner}, which holds {file.name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def room(folder: Path, needs: int, what: str) -> None:
    """Refuse to start writing `needs` bytes below `folder` where the disk cannot hold them."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needs:
        raise _full(f"{what} needs {size(needs)} and {existing} has {size(free)} left")


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says so."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise _full(unwritten(where, error)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ProvisionError(unwritten(where, error), hint="set FIRSTTOKEN_HOME to a folder of yours") from error
        raise


def size(count: float) -> str:
    """A number of bytes for people: 93 MB, 1.4 GB."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def clear(path: Path) -> None:
    """Remove a file or a folder; nothing happens if it is not there."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _full(message: str) -> ProvisionError:
    return ProvisionError(
        message,
        hint="free some space (`bench models`, `bench engines` or `bench images remove`) or set FIRSTTOKEN_HOME",
    )
