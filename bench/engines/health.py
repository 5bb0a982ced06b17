"""What a server answers about itself: is it healthy, and what does it call its model."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import ssl

from bench.engines.engine import Endpoint
from bench.errors import LaunchError

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
        name = json.loads(body)["data"][0]["id"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
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
