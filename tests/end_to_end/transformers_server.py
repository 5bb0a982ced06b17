"""The real server of the transformers engine, started by the engine's own command line."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engines.engine import LaunchContext, LaunchTrace
from bench.engines.transformers import EVENTS, Transformers
from bench.environments import environment
from bench.models.checkpoints import resolve
from bench.scenario.model import EngineSetting, Model, Quantization
from bench.scenario.variant import Variant


@dataclass
class Server:
    """A server that answers."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    python: Path
    checkpoint: Path

    def connect(self) -> http.client.HTTPConnection:
        """A connection with a generous time limit."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)

    def get(self, path: str) -> tuple[int, Any]:
        """A document."""
        return self._exchange("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | bytes) -> tuple[int, Any]:
        """An answer in one piece."""
        return self._exchange("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def complete(self, **body: Any) -> dict[str, Any]:
        """A completion, which must succeed."""
        status, answer = self.post("/v1/completions", {"temperature": 0, **body})
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    def stream(self, path: str = "/v1/completions", **body: Any) -> Generator[tuple[float, dict[str, Any]]]:
        """Events of a stream with the seconds since it was asked for; ends with [DONE] or fails."""
        began = time.monotonic()
        with closing(self.connect()) as connection:
            connection.request("POST", path, json.dumps({"temperature": 0, "stream": True, **body}))
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                for line in response:
                    data = line.removeprefix(b"data: ").strip()
                    if data == b"[DONE]":
                        return
                    if data:
                        yield time.monotonic() - began, json.loads(data)
        raise AssertionError("the stream ended without [DONE]")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What the worker wrote."""
        found = [json.loads(line) for line in (self.folder / EVENTS).read_text().splitlines()]
        return [event for event in found if name in (None, event["name"])]

    def trace(self) -> LaunchTrace:
        """The launch as the engine reads it."""
        return LaunchTrace(stamps={}, log=(), events=self.events())

    def stop(self) -> float:
        """TERM; seconds until the process is gone."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0
        return time.monotonic() - began

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, Any]:
        connection = self.connect()
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer


@contextmanager
def serving(
    folder: Path, source: str, quantization: Quantization, env: Mapping[str, str] | None = None, **args: Any
) -> Iterator[Server]:
    """Start a server and wait until it is healthy; it is gone at the end."""
    environment.install("transformers")
    model = Model(source=source)
    checkpoint = resolve(model, quantization)
    assert checkpoint.path is not None
    engine = EngineSetting(engine="transformers", args=args, env=dict(env or {}))
    variant = Variant("v", {}, "transformers", engine, "model", model, quantization, "none", (), "leave")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    spec = Transformers().command(variant, LaunchContext(port, folder, checkpoint))
    with (
        (folder / "engine.log").open("w") as log,
        subprocess.Popen(
            spec.argv, env={**os.environ, **spec.env}, cwd=spec.cwd, stdout=log, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        server = Server(process, port, folder, Path(spec.argv[0]), checkpoint.path)
        try:
            _wait(server, folder / "engine.log")
            yield server
        finally:
            process.kill()


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert server.process.poll() is None, log.read_text()[-2000:]
        try:
            assert server.get("/health") == (200, {})
        except ConnectionError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"not healthy in time: {log.read_text()[-2000:]}")
