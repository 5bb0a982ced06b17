"""The one address before changing engines, as the harness sees it: opened, told who serves, and asked what happened."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from bench import pipes
from bench.engines.engine import Endpoint
from bench.errors import LaunchError
from bench.record.launches import RequestsPassed
from bench.run.switch import State

HOST = "127.0.0.1"
BACKLOG = 512
# An order is answered within milliseconds; this is for a machine that swaps.
PATIENCE_S = 60.0
# The child's module, by which others know that it only passes on.
PROGRAM = "bench.run.front_process"


@dataclass(slots=True)
class Front:
    """The proxy's process. `states` are (state, ns) as they came; `firsts` the first answered request in each."""

    port: int = 0
    state: State = "quick"
    serving: str | None = None
    states: list[tuple[State, int]] = field(default_factory=list)
    firsts: list[dict[str, Any]] = field(default_factory=list)
    passed: dict[str, RequestsPassed] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    unserved: int = 0
    refused: str | None = None
    _process: subprocess.Popen[bytes] | None = None
    _unread: bytes = b""
    _accounts: int = 0

    def __enter__(self) -> Self:
        """Listen; LaunchError if the port is taken."""
        try:
            listener = socket.create_server((HOST, self.port), backlog=BACKLOG)
        except OSError as error:
            raise LaunchError("port", f"port {self.port} on {HOST} cannot be had: {error.strerror}") from None
        with listener:
            self.port = listener.getsockname()[1]
            descriptor = listener.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-B", "-m", PROGRAM, "--socket", str(descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        self.states.append(("quick", time.monotonic_ns()))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def endpoint(self, of: Endpoint) -> Endpoint:
        """An engine's endpoint at this address."""
        return Endpoint(
            HOST, self.port, of.model, headers=of.headers, token_ids=of.token_ids, completions=of.completions,
            prefix=of.prefix, body=of.body,
        )  # fmt: skip

    @property
    def pid(self) -> int | None:
        """The proxy's process."""
        return None if self._process is None else self._process.pid

    def serve(self, name: str, endpoint: Endpoint) -> None:
        """Pass requests to this engine."""
        self._order({"do": "serve", "name": name, "host": endpoint.host, "port": endpoint.port})

    def beside(self, name: str, endpoint: Endpoint) -> None:
        """Another engine starts beside the one that serves."""
        self._order({"do": "beside", "name": name, "host": endpoint.host, "port": endpoint.port})

    def over(self) -> None:
        """The one beside is warm: new requests go to it from now on."""
        self._order({"do": "over"})

    def gone(self, name: str) -> None:
        """An engine has died or was given up."""
        self._order({"do": "gone", "name": name})

    def look(self, wait_s: float = 0.0) -> None:
        """Take in what was reported; wait at most this long for something."""
        if self._process is None or self._process.stdout is None:
            return
        pipe = self._process.stdout.fileno()
        while select.select([pipe], [], [], wait_s)[0]:
            data = os.read(pipe, 65536)
            if not data:
                code = self._process.wait()
                self.close()
                raise LaunchError("internal", f"the proxy before the engines ended ({code})")
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            wait_s = 0.0

    def ask(self) -> None:
        """Bring the counts up to date."""
        self._order({"do": "tell"})

    def close(self) -> None:
        """End the proxy, and with it every connection."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _order(self, order: Mapping[str, Any]) -> None:
        """Give an order and wait until it has been carried out."""
        if self._process is None or self._process.stdin is None:
            raise LaunchError("internal", "the proxy before the engines is not there")
        wanted, self.refused = self._accounts + 1, None
        with suppress(BrokenPipeError):
            pipes.write_all(self._process.stdin.fileno(), json.dumps(order).encode() + b"\n")
        end = time.monotonic() + PATIENCE_S
        while self._accounts < wanted:
            self.look(1.0)
            if time.monotonic() > end:
                raise LaunchError("internal", "the proxy before the engines does not answer")
        if self.refused is not None:
            raise LaunchError("internal", f"the hand-over is out of order: {self.refused}")

    def _take(self, told: dict[str, Any]) -> None:
        match told.pop("event"):
            case "state":
                self.states.append((told["state"], told["t_ns"]))
                self.state, self.serving = told["state"], told["serving"]
            case "first":
                self.firsts.append(told)
            case "refused":
                self.refused = told["reason"]
            case "account":
                self._accounts += 1
                self.state, self.serving, self.unserved = told["state"], told["serving"], told["unserved"]
                self.running = told["running"]
                self.passed = {name: RequestsPassed(**count) for name, count in told["engines"].items()}
