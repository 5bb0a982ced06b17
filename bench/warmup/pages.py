"""The weight files in the page cache before the engine is started: established, looked at, and a step of its own."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import mmap
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bench.engines.engine import Checkpoint, LaunchTrace
from bench.errors import UsageError
from bench.record.documents import parsed
from bench.record.launches import Check, PageCacheState
from bench.record.schema import CheckStatus
from bench.scenario.model import PAGE_CACHE
from bench.warmup.step import HostState, Prepared, Step, StepOptions

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".params", ".pdparams")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
# Below this share a file counts as not in the page cache: readahead brings a header back when somebody looks at it.
COLD_SHARE = 0.02
WARM_SHARE = 0.98

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


def weight_files(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """The checkpoint's weight files, links resolved; none for a server that has its own."""
    root = checkpoint.path
    if root is None:
        return ()
    found = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix in WEIGHTS)
    return tuple(path.resolve() for path in found)


def resident_bytes(path: Path) -> int | None:
    """Bytes of a file that lie in the page cache, by mincore(2); None where the kernel does not say.

    Needs no root, but since Linux 5.2 only the file's owner, or who may write to it, is told the truth: others see
    every page as resident, so they are told None here.
    """
    size = path.stat().st_size
    if size == 0:
        return 0
    if not os.access(path, os.W_OK) and path.stat().st_uid != os.geteuid():
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Through libc and not the mmap module, whose read-only maps ctypes cannot take the address of.
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    finally:
        os.close(descriptor)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    try:
        pages = -(-size // mmap.PAGESIZE)
        vector = ctypes.create_string_buffer(pages)
        if _libc.mincore(address, size, vector) != 0:
            return None
        # Only the lowest bit of each byte is defined.
        resident = sum(vector.raw.count(bytes([byte])) for byte in set(vector.raw[:pages]) if byte & 1)
        return min(resident * mmap.PAGESIZE, size)
    finally:
        _libc.munmap(address, size)


def resident_share(files: Iterable[Path]) -> float | None:
    """The share of the files' bytes that is in the page cache; None if that cannot be known or there are none."""
    files = tuple(files)
    total = sum(file.stat().st_size for file in files)
    counts = [resident_bytes(file) for file in files]
    if not total or any(count is None for count in counts):
        return None
    return sum(count for count in counts if count is not None) / total


def drop(files: Iterable[Path]) -> str:
    """Put the files out of the page cache; the words say how. Root drops all caches, others advise file by file."""
    files = tuple(files)
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            # Dirty pages cannot be dropped: a freshly written checkpoint must reach the disk first.
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    share = resident_share(files)
    if share is not None and share < COLD_SHARE:
        return "posix_fadvise"
    try:
        os.sync()
        DROP_CACHES.write_text("1\n")
    except OSError as error:
        return f"posix_fadvise only ({DROP_CACHES}: {error.strerror})"
    return "posix_fadvise, then drop_caches"


def prefetch(files: Iterable[Path]) -> str:
    """Read the files into the page cache, to their end."""
    for file in files:
        with file.open("rb", buffering=0) as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while handle.read(8 << 20):
                pass
    return "read to the end"


def establish_page_cache(checkpoint: Checkpoint, mode: str) -> PageCacheState:
    """Bring the weight files into the state asked for and say what the state is."""
    if mode not in PAGE_CACHE:
        raise UsageError(f"page cache state {mode!r} is not one of {', '.join(PAGE_CACHE)}")
    files = weight_files(checkpoint)
    began = time.monotonic()
    before = resident_share(files)
    method = {"leave": lambda _: "left alone", "drop": drop, "prefetch": prefetch}[mode](files) if files else "no files"
    after = resident_share(files)
    achieved = None
    if after is not None and mode != "leave":
        achieved = after < COLD_SHARE if mode == "drop" else after > WARM_SHARE
    return PageCacheState(
        mode=mode,
        method=method,
        files=len(files),
        bytes=sum(file.stat().st_size for file in files),
        resident_before=before,
        resident=after,
        seconds=time.monotonic() - began,
        achieved=achieved,
    )


class Beside:
    """Weight files that are read in while the engine starts; stamps are None for what did not happen."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self.before = resident_share(self.files)
        self.begun_ns: int | None = None
        self.done_ns: int | None = None
        self.resident: float | None = None
        self.fault: str | None = None
        # An engine that is broken off is not waited for.
        self._thread = threading.Thread(target=self._read, name="page cache", daemon=True)

    def begin(self) -> None:
        """Start to read."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until all is read."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        self.begun_ns = time.monotonic_ns()
        try:
            prefetch(self.files)
        except OSError as error:
            self.fault = f"{error.filename}: {error.strerror}"
            return
        self.done_ns = time.monotonic_ns()
        self.resident = resident_share(self.files)

    def check(self, health_ns: int | None) -> Check:
        """Whether all was in the page cache before the engine was healthy: later it has read the weights itself."""
        status: CheckStatus = "violated"
        if self.fault is not None:
            words = f"the weights could not be read: {self.fault}"
        elif self.begun_ns is None or self.done_ns is None:
            words = "the weights were not read to their end while the engine was there"
        else:
            before = "an unknown share" if self.before is None else f"{self.before:.1%}"
            words = f"{before} of the weight bytes resident before spawn; all read within "
            words += f"{(self.done_ns - self.begun_ns) / 1e9:.2f} s beside the start"
            if health_ns is not None:
                early = (health_ns - self.done_ns) / 1e9
                words += f", {abs(early):.2f} s {'before' if early >= 0 else 'after'} the engine was healthy"
            gone = self.resident is not None and self.resident <= WARM_SHARE
            words += f"; {self.resident:.1%} resident then" if gone else ""
            if not gone and health_ns is not None and self.done_ns <= health_ns:
                status = "ok"
        return Check(
            "page_cache.beside", status, words, "above 98 % resident before the engine is healthy",
            "read them before the spawn (`when: before`), or leave it" if status == "violated" else None,
        )  # fmt: skip


class PageCache(Step):
    """The weight files' state in the page cache: prefetched before the spawn or beside the start, or dropped."""

    name = "page-cache"

    class Options(StepOptions):
        """Which state, and when it is brought about."""

        state: Literal["prefetch", "drop"] = Field("prefetch", description="the state to bring the weight files into")
        when: Literal["before", "beside"] = Field(
            "before", description="before the spawn, outside every figure, or while the engine starts, inside of them"
        )

        @model_validator(mode="after")
        def _in_time(self) -> Self:
            if self.when == "beside" and self.state != "prefetch":
                raise ValueError("what an engine reads cannot be dropped beside its start")
            return self

    def __init__(self, options: Options) -> None:
        self.options = options
        self._beside: Beside | None = None

    def prepare(self, state: HostState) -> Prepared:
        """Establish and measure, or have it done once the engine has been spawned."""
        if self.options.when == "before":
            return Prepared(state=asdict(establish_page_cache(state.checkpoint, self.options.state)))
        self._beside = beside = Beside(weight_files(state.checkpoint))
        sizes = sum(file.stat().st_size for file in beside.files)
        told = {"mode": "beside", "files": len(beside.files), "bytes": sizes, "resident_before": beside.before}
        return Prepared(state=told, at_spawn=(beside.begin,))

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """The share that was resident just before spawn, or once it was read beside the start."""
        if self._beside is not None:
            return [self._beside.check(trace.stamps.get("health"))]
        return [page_cache_check(parsed(PageCacheState, prepared.state))]


def page_cache_check(seen: PageCacheState) -> Check:
    """The verdict on what `establish_page_cache` saw: ok, violated, or unknown where mincore cannot tell."""
    mode, share, achieved = seen.mode, seen.resident, seen.achieved
    words = "resident share unknown" if share is None else f"{share:.1%} of the weight bytes resident before spawn"
    missed = achieved is False
    return Check(
        name="page_cache.state",
        status="violated" if missed else "ok" if achieved or mode == "leave" else "unknown",
        evidence=f"{words} ({seen.method or 'not established'})",
        limit={"drop": "below 2 % resident", "prefetch": "above 98 % resident"}.get(str(mode)),
        remedy="another process maps the files, or memory is short: close it, or run as root" if missed else None,
    )
