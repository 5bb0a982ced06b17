"""A chat page before a server: Chainlit in an environment of its own, started, watched and ended like an engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from bench.engines.engine import Endpoint, LaunchSpec
from bench.engines.server import Server, start
from bench.environments.environment import provisioned
from bench.programs import FOLDER

ENVIRONMENT = "chat"
PROGRAM = FOLDER / "chat_process.py"
LOOPBACK = "127.0.0.1"
READY_S = 120.0
LOOK_S = 0.5


def words(url: str, model: str, key_env: str | None, body: Mapping[str, Any]) -> list[str]:
    """The page's command line after the interpreter and before the port; a key by the name of its variable alone."""
    key = ["--key-env", key_env] if key_env else []
    return [str(PROGRAM), "--url", url, "--model", model, *key, "--body", json.dumps(dict(body))]


@contextmanager
def page(command: list[str], folder: Path, host: str, port: int) -> Iterator[Server]:
    """The page, answering; ended with all its children. LaunchError if it does not come up, EnvironmentFault if it is
    not installed."""
    argv = (str(provisioned(ENVIRONMENT)), *command, "--host", host, "--port", str(port))
    # Every address of the machine is asked at its own.
    place = Endpoint(LOOPBACK if host in ("0.0.0.0", "::") else host, port, "page")
    with start(LaunchSpec(argv, {}, place, health="/", ready_timeout_s=READY_S), folder) as server:
        server.wait_healthy()
        yield server


def watch(server: Server) -> NoReturn:
    """Stay as long as it does; LaunchError with its last words once it is gone."""
    while server.alive():
        time.sleep(LOOK_S)
    raise server.failure("serving")
