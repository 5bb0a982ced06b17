"""Where an engine's process comes from: what it inherits, who its parents are, whether that is what was asked for."""

from __future__ import annotations

import os
from pathlib import Path

from bench.record.launches import Check, StartAccount

# Every process of a launch inherits this, so that even one whose supervisor was killed can be found again.
MARK = "FIRSTTOKEN_LAUNCH"
# What belongs to the harness's own interpreter and would mislead the engine's.
PRIVATE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP")

LIMIT = "forked from a warm parent, as the variant asks"
LIMIT_OF_IMAGE = "restored from an image, as the variant asks"
REMEDY = "docs/start.md says which engines and versions can be forked"


def inherited() -> dict[str, str]:
    """The harness's environment without what is its own; output is not held back in buffers."""
    return {"PYTHONUNBUFFERED": "1"} | {name: value for name, value in os.environ.items() if name not in PRIVATE}


def ancestry(pid: int) -> list[int]:
    """The parents of a process, nearest first, as far as they can be read."""
    found: list[int] = []
    while pid > 1:
        try:
            pid = int(_stat(pid)[1])
        except (OSError, IndexError):
            break
        found.append(pid)
    return found


def started(pid: int) -> int | None:
    """A process's start in clock ticks since boot: together with its pid it names one process for ever."""
    try:
        return int(_stat(pid)[19])
    except (OSError, IndexError):
        return None


def start_check(start: StartAccount) -> Check | None:
    """Forked where that was asked for, by the pids as they were seen; None where it was not."""
    if start.asked == "restored":
        return _restored_check(start)
    if start.asked != "forked":
        return None
    parent = start.parent
    if not start.forked or parent is None:
        words = f"started by exec: {start.reason or 'no reason was given'}"
        return Check("start.state", "violated", words, LIMIT, REMEDY)
    line, above = list(start.ancestry), start.guardian_parent
    told = f"{parent.name}, pid {parent.pid} since tick {parent.started}"
    if above != parent.pid or line[:1] != [start.guardian]:
        words = f"the engine descends from {line}, its guardian from {above}, and not from {told}"
        return Check("start.state", "violated", words, LIMIT, REMEDY)
    words = f"fork {parent.forks + 1} of {told}"
    if start.read_mib is not None:
        words += f"; {start.read_mib:.1f} MiB read until healthy"
    return Check("start.state", "ok", words, LIMIT)


def _restored_check(start: StartAccount) -> Check:
    image, line = start.image, list(start.ancestry)
    if start.mode != "restored" or image is None:
        words = f"started by exec: {start.reason or 'no reason was given'}"
        return Check("start.state", "violated", words, LIMIT_OF_IMAGE, REMEDY)
    if line[:1] != [start.guardian]:
        words = f"the engine descends from {line}, and not from its guardian {start.guardian}"
        return Check("start.state", "violated", words, LIMIT_OF_IMAGE, REMEDY)
    words = f"restore {image.restores + 1} of image {image.name}, {image.mib or 0:.0f} MiB on disk"
    if image.refused:
        words += f" ({image.refused})"
    if start.read_mib is not None:
        words += f"; {start.read_mib:.1f} MiB read until healthy, the image among them"
    if start.weights_mib is not None:
        words += f", {start.weights_mib:.1f} MiB of the weights' own files in memory"
    return Check("start.state", "ok", words, LIMIT_OF_IMAGE)


def mapped_mib(pids: list[int], weights: Path) -> float | None:
    """How much of the weights' own files these processes have mapped and in memory, MiB; None where it is not told."""
    total, told, counted = 0, False, False
    place = str(weights.resolve())
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
        except OSError:
            continue
        told = True
        for line in lines:
            words = line.split(maxsplit=5)
            if "-" in words[0]:
                counted = len(words) == 6 and words[5].startswith(place)
            elif counted and words[0] == "Rss:":
                total += int(words[1])
    return total / 1024 if told else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
