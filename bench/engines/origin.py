"""Whether a launch came from where its variant says: a new program, or a fork of a warm parent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.record.schema import Check

LIMIT = "forked from a warm parent, as the variant asks"
REMEDY = "docs/start.md says which engines and versions can be forked"


def start_check(start: Mapping[str, Any]) -> Check | None:
    """Of a launch's `start`: forked where that was asked for, by the pids as they were seen; None for any other."""
    if start.get("asked") != "forked":
        return None
    if start.get("mode") != "forked":
        words = f"started by exec: {start.get('reason') or 'no reason was given'}"
        return Check("start.state", "violated", words, LIMIT, REMEDY)
    parent, line = start["parent"], list(start.get("ancestry") or ())
    told = f"{parent['name']}, pid {parent['pid']} since tick {parent['started']}"
    above = start.get("guardian_parent")
    if above != parent["pid"] or line[:1] != [start.get("guardian")]:
        words = f"the engine descends from {line}, its guardian from {above}, and not from {told}"
        return Check("start.state", "violated", words, LIMIT, REMEDY)
    read = start.get("read_mib")
    words = f"fork {parent['forks'] + 1} of {told}" + (
        f"; {read:.1f} MiB read until healthy" if read is not None else ""
    )
    return Check("start.state", "ok", words, LIMIT)


def ancestry(pid: int) -> list[int]:
    """The parents of a process, nearest first, as far as they can be read."""
    found: list[int] = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            break
        found.append(pid)
    return found
