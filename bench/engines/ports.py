"""TCP ports: a free one, and who listens on one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

LISTEN = "0A"


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listened on a moment ago; the engine, not this, binds it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def is_open(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def owner(port: int) -> int | None:
    """The process that listens on a local TCP port; None if nobody does, or if it may not be looked into."""
    inodes = set(_listening(port))
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        if links & set(_descriptors(process)):
            return int(process.name)
    return None


def _listening(port: int) -> Iterable[str]:
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _descriptors(process: Path) -> Iterable[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            yield str(descriptor.readlink())
