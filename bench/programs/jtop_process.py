"""Talk to jetson-stats and print what it says as JSON lines. A program of its own: nothing else imports it.

jetson-stats is AGPL and, once imported, changes how its process starts children. So it is imported here alone, in an
interpreter that has it, apart from the harness; the two speak through a pipe. First line: `{"hello": {...}}` with its
version, the interval asked for and the one in force (the service has one for all its clients), or `{"error", "kind"}`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

# A script's own folder comes first on its path, and this one holds a `jtop` of another kind.
if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting where there is no room; OSError if the other side is gone."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()


def say(message: dict[str, Any]) -> None:
    """One line."""
    write_all(1, json.dumps(message).encode() + b"\n")


def kind_of(error: Exception) -> str:
    """What a refusal of the service means."""
    words = str(error).lower()
    if "mismatch" in words or "version" in words:
        return "version"
    if "access" in words or "permission" in words:
        return "permission"
    if "active" in words or "not running" in words:
        return "service"
    return "other"


def numbers(stats: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number of a nested reading, by dotted name; no texts, so no serial numbers."""
    found: dict[str, float] = {}
    for key, value in stats.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found.update(numbers(value, f"{name}."))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = value
    return found


def main() -> None:
    """Stream until the pipe closes."""
    asked = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    try:
        import jtop
    except ImportError as error:
        say({"error": str(error), "kind": "missing"})
        return
    try:
        with jtop.jtop(interval=asked) as client:
            version = getattr(jtop, "__version__", None)
            say({"hello": {"version": version, "asked_s": asked, "interval_s": getattr(client, "interval", None)}})
            while client.ok():
                readings: dict[str, float] = {}
                for part in ("power", "temperature", "gpu", "memory", "fan"):
                    value = getattr(client, part, None)
                    if isinstance(value, dict):
                        readings.update(numbers(value, f"{part}."))
                say({"t": time.monotonic_ns(), "v": readings})
    except BrokenPipeError:
        return
    except Exception as error:
        say({"error": str(error), "kind": kind_of(error)})


if __name__ == "__main__":
    main()
