"""A server that already runs, here or elsewhere: attached to over http or https, never started, never stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.errors import LaunchError
from bench.phrases import among
from bench.record.launches import Phase
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

OPTIONS = ("body", "token_ids", "completions", "page")


class OpenAI:
    """Any OpenAI-compatible server by its `base_url`, with the key from the variable that `api_key_env` names.

    Options under `args`: `token_ids: false` for a server that takes no token-id prompts, `completions: false` for one
    that has only the chat endpoint, `body:` for fields that every request needs, `page: true` for a chat page, which a
    browser asks. Without `served_model` the first name
    of /v1/models is used once the server answers.
    """

    name = "openai"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """Nothing to start: where the server is, and how to ask whether it is well."""
        engine = variant.engine
        args = {**engine.args, **launch.args}
        if unknown := sorted(set(args) - set(OPTIONS)):
            raise LaunchError(
                "bad_argument",
                f"an attached server's flags cannot be set: {', '.join(unknown)} (allowed are {', '.join(OPTIONS)})",
            )
        if not engine.base_url:
            raise LaunchError("bad_argument", "engine: openai needs base_url, e.g. http://127.0.0.1:8000")
        endpoint = parse(engine.base_url)
        return LaunchSpec(
            argv=(),
            env={},
            endpoint=Endpoint(
                host=endpoint.host,
                port=endpoint.port,
                tls=endpoint.tls,
                prefix=endpoint.prefix,
                model=engine.served_model or "",
                headers=authorization(engine.api_key_env),
                token_ids=bool(args.get("token_ids", True)),
                completions=bool(args.get("completions", True)),
                body=dict(args.get("body", {})),
            ),
            # The one path that every server of this kind has.
            health=engine.ready or f"{endpoint.prefix}/v1/models",
            ready_timeout_s=engine.ready_timeout_s,
        )

    def mistakes(self, engine: EngineSetting) -> Iterator[tuple[str, str]]:
        """Flags, which an attached server no longer takes."""
        for name in engine.args:
            if name not in OPTIONS:
                yield name, f"an attached server's flags cannot be set: {among(sorted(OPTIONS), name)}"

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """None: it had started before we came."""
        return []

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """Where it is and what it calls its model; nothing else is known of a stranger."""
        if trace.endpoint is None:
            return {"attached": True}
        endpoint = trace.endpoint
        scheme = "https" if endpoint.tls else "http"
        return {
            "attached": True,
            "base_url": f"{scheme}://{endpoint.host}:{endpoint.port}{endpoint.prefix}",
            "served_model": endpoint.model or None,
        }


def parse(base_url: str) -> Endpoint:
    """Host, port, TLS and prefix of a base URL; a trailing /v1 is the API's and not part of the prefix."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as error:
        raise LaunchError("bad_argument", f"base_url {base_url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LaunchError("bad_argument", f"base_url {base_url!r} is not http://host[:port] or https://host[:port]")
    if parts.username or parts.password:
        raise LaunchError("bad_argument", "base_url holds a password, which would be recorded: use api_key_env")
    tls = parts.scheme == "https"
    return Endpoint(
        host=parts.hostname,
        port=port or (443 if tls else 80),
        model="",
        tls=tls,
        prefix=parts.path.rstrip("/").removesuffix("/v1"),
    )


def authorization(variable: str | None) -> dict[str, str]:
    """The header that carries the API key; LaunchError if the variable is named and not set."""
    if variable is None:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise LaunchError("bad_argument", f"api_key_env names {variable}, which is not set: export {variable}=…")
    return {"Authorization": f"Bearer {key}"}
