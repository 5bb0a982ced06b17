"""A server's port: a free one, who listens on it, and what is answered there about health and model."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

from bench.engines.engine import Endpoint
from bench.errors import LaunchError

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


TIMEOUT_S = 5.0


def problem(endpoint: Endpoint, path: str | None, *, attached: bool = False) -> str:
    """Why the health check is not passed; empty once it is. LaunchError if a server attached to wants a key."""
    if path is None:
        return ""
    try:
        status, _ = _get(endpoint, path)
    except (OSError, http.client.HTTPException) as error:
        return f"GET {path} failed: {error or type(error).__name__}"
    if status in (401, 403) and attached:
        raise LaunchError("bad_argument", f"the server answers {status} to GET {path}: is the API key right?")
    return "" if status == http.client.OK else f"GET {path} answers {status}"


def named(endpoint: Endpoint) -> Endpoint:
    """The endpoint with a model: the first of /v1/models, where the scenario gave none. LaunchError if none answers."""
    if endpoint.model:
        return endpoint
    path = f"{endpoint.prefix}/v1/models"
    try:
        _, body = _get(endpoint, path)
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise LaunchError("bad_argument", f"no answer to GET {path} ({reason}): is it running?") from error
    try:
        name = json.loads(body)["data"][0]["id"]
    except (ValueError, LookupError, TypeError) as error:
        raise LaunchError("bad_argument", f"GET {path} names no model ({error}): set served_model") from error
    return dataclasses.replace(endpoint, model=str(name))


def _get(endpoint: Endpoint, path: str) -> tuple[int, bytes]:
    host, port = endpoint.host, endpoint.port
    connection: http.client.HTTPConnection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        if endpoint.tls
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(endpoint.headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
