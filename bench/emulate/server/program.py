"""A scripted OpenAI-compatible server: what it sends, and when, is decided beforehand, and what it did is logged.

Standard library only; run as a module by any Python that has this package.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.emulate.server.answerer import Answerer
from bench.emulate.server.loop import Server
from bench.emulate.server.script import BadScript, Script, Timing, script

_PR_SET_PDEATHSIG = 1


class _Events:
    """Start-up phases as JSON lines, for the harness to read."""

    def __init__(self, path: str | None) -> None:
        self._file = Path(path).open("a", encoding="utf-8") if path else None  # noqa: SIM115

    def phase(self, name: str, start_ns: int, end_ns: int) -> None:
        self.event(name, t_ns=start_ns, end_ns=end_ns)

    def event(self, name: str, **more: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"name": name, "t_ns": time.monotonic_ns()} | more) + "\n")
            self._file.flush()


def _listener(host: str, port: int, unix: str | None) -> socket.socket:
    if unix:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(unix)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    listener.listen(1024)
    return listener


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; it is printed")
    parser.add_argument("--unix", help="listen at this path instead")
    parser.add_argument("--script", default="{}", help="JSON object; see Script")
    parser.add_argument("--model", default="simulated")
    parser.add_argument("--truth", help="append to this file what was sent, and when")
    parser.add_argument("--events", help="append start-up events to this file")
    parser.add_argument("--launch", default="0", help="draws this launch's noise, together with the seed")
    parser.add_argument("--block", type=int, default=0)
    parser.add_argument("--position", type=int, default=0)
    parser.add_argument("--die-with-parent", type=int, metavar="PID", help="end when this process, the parent, does")
    return parser.parse_args()


def main() -> int:
    """Start up as scripted, then serve until told to end."""
    began = time.monotonic_ns()
    arguments = _arguments()
    if arguments.die_with_parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != arguments.die_with_parent:
            return 0  # it was gone before it could be watched
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    events = _Events(arguments.events)
    try:
        plan: Script = script(json.loads(arguments.script))
    except (BadScript, ValueError) as error:
        print(f"bad script: {error}", file=sys.stderr)
        return 2
    events.event("script", script=asdict(plan))
    events.phase("imports", began, time.monotonic_ns())
    for name, length in plan.start_phases_ms.items():
        start = time.monotonic_ns()
        time.sleep(length / 1e3)
        events.phase(name, start, time.monotonic_ns())
    try:
        listener = _listener(arguments.host, arguments.port, arguments.unix)
    except OSError as error:
        print(f"cannot listen on {arguments.unix or f'{arguments.host}:{arguments.port}'}: {error}", file=sys.stderr)
        return 1
    events.event("listening")
    where = arguments.unix or f"http://{arguments.host}:{listener.getsockname()[1]}"
    print(f"listening on {where}", flush=True)
    truth = Path(arguments.truth).open("a", encoding="utf-8") if arguments.truth else None  # noqa: SIM115
    timing = Timing(plan.noise, arguments.launch, arguments.block, arguments.position)
    ended_by = Server(listener, Answerer(plan, timing, arguments.model), truth).serve()
    return 130 if ended_by == signal.SIGINT else 0


if __name__ == "__main__":
    sys.exit(main())
