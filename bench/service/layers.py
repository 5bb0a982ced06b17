"""The ways to a server as the variants of one scenario: straight to it, and through what may stand in front of it.

A way is an engine like any other: a server that runs, or one that is started for its launch and ended after it. So all
that holds of a run holds of this one: blocks, order, logs, validity, report. What the ways add is `judge.added`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bench.engines.openai import authorization, parse
from bench.engines.ports import named
from bench.environments.environment import environment
from bench.errors import EnvironmentFault, LaunchError, ProvisionError, UsageError
from bench.judge.added import CHAT, NUMBER, POLLING, STRAIGHT
from bench.loadgen import chromium
from bench.run.progress import Progress
from bench.scenario.load import Scenario
from bench.service import chat, passage
from bench.service.verify import LOOK_S, Detached

NGINX, BUFFERED, LITELLM = "nginx", "nginx-buffered", "litellm"
# What can be put in front of a server here, in the order in which it is tried. A page that polls is tried where it is
# asked for: a piece that misses its poll waits for the next heartbeat, which is 25 s away.
USUAL = (NUMBER, NGINX, BUFFERED, LITELLM, CHAT)
KNOWN = (*USUAL, POLLING)
PATIENT_S = 5.0
# A served engine that is not ready by then never will be.
PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class Destination:
    """The server that all ways lead to: its base URL without /v1, its model, and where its key stands."""

    url: str
    model: str
    key_env: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What every way is asked, and how often: prompts and answers in tokens, requests a launch, blocks."""

    prompt_tokens: int = 32
    output_tokens: int = 32
    requests: int = 20
    blocks: int = 5
    seed: int = 1


def target(url: str, model: str | None, key_env: str | None) -> Destination:
    """A server that runs, with the name of its model; UsageError if it does not answer or cannot be told."""
    try:
        endpoint = replace(parse(url), model=model or "", headers=authorization(key_env))
        found = named(endpoint)
    except LaunchError as error:
        raise UsageError(f"{url}: {error.message}", hint="--model says what it calls its model") from None
    return Destination(url.rstrip("/").removesuffix("/v1"), found.model, key_env)


def available(name: str, server: str) -> str | None:
    """Why a known way to a server (its URL, or the scenario to be served) cannot be taken on this machine, and what to
    do; None if it can."""
    if name == NUMBER:
        return unnumbered(server)
    if name in (NGINX, BUFFERED):
        with suppress(EnvironmentFault):
            passage.found()
            return None
        return f"nginx is not installed ({passage.INSTALL})"
    needed = chat.ENVIRONMENT if name in (CHAT, POLLING) else name
    if not environment(needed).ready:
        return f"the environment {needed} is not installed (`bench engines install {needed}`)"
    if name in (CHAT, POLLING):
        try:
            chromium.found()
        except EnvironmentFault:
            return f"no Chromium is installed to read its page with ({chromium.INSTALL})"
    return None


def unnumbered(server: str) -> str | None:
    """Why a server cannot be asked by its number instead of its name; None if it can."""
    parts = urlsplit(server)
    if parts.scheme == "https":
        return "a certificate is for a name"
    with suppress(ValueError):
        ipaddress.ip_address(parts.hostname or "")
        return f"{server} has a number and no name to look up"
    return None if parts.scheme else "a variant served for this is asked by number"


def numbered(url: str) -> str:
    """The same server by the first of its name's addresses that takes a connection; UsageError if none does."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        with socket.create_connection((host, port), timeout=PATIENT_S) as reached:
            number = str(reached.getpeername()[0])
    except OSError as error:
        raise UsageError(f"{url}: {error}", hint="is it running?") from None
    place = f"[{number}]" if ":" in number else number
    return urlunsplit(parts._replace(netloc=f"{place}:{port}"))


def ways(through: Sequence[str]) -> dict[str, str | None]:
    """Names as given on a command line, `NAME` or `NAME=URL`, with the URLs; UsageError for one that is not known."""
    found: dict[str, str | None] = {}
    for one in through:
        name, equals, url = one.partition("=")
        if not equals and name not in KNOWN:
            known = ", ".join(KNOWN)
            raise UsageError(f"{name!r} is none of {known}", hint="a way that runs already is NAME=URL")
        if equals and not url.startswith(("http://", "https://")):
            raise UsageError(f"{one!r}: {url!r} does not begin with http:// or https://")
        if name == STRAIGHT or name in found:
            raise UsageError(f"{name!r} is there already", hint="give each way a name of its own")
        found[name] = url if equals else None
    return found


def scenario(to: Destination, chosen: Mapping[str, str | None], ask: Ask) -> Scenario:
    """The scenario whose variants are the straight way and the chosen ones (`ways`)."""
    engines = {STRAIGHT: _attached(to.url, to)}
    known = {**chosen, **({NUMBER: numbered(to.url)} if chosen.get(NUMBER, "") is None else {})}
    engines |= {name: _attached(url, to) if url else _started(name, to, ask) for name, url in known.items()}
    content = {
        "scenario": "layers",
        "description": f"What is added by what stands between a client and {to.url}?",
        "engines": engines,
        # What each way loads at its first request is not what it adds to the others.
        "warmups": {"settled": {"strategy": "requests", "n": 3, "output_tokens": min(8, ask.output_tokens)}},
        "matrix": {"engine": list(engines), "warmup": ["settled"]},
        "workload": {
            "prompts": {"kind": "random", "tokens": ask.prompt_tokens, "form": "text"},
            "output_tokens": ask.output_tokens,
            "requests": ask.requests + 1,
        },
        # The engine behind is no part of a launch: that a way waits for it on the processors is what is measured.
        "design": {"blocks": ask.blocks, "seed": ask.seed, "max_contention": 1.0},
        "measure": ["ttft", "tpot", "itl", "e2el", "throughput", "memory"],
    }
    # JSON is YAML: one way to read a scenario is enough.
    return Scenario.parse(json.dumps(content, indent=1, ensure_ascii=False), "layers.yaml")


def _asked(to: Destination) -> dict[str, Any]:
    """How every way is asked: by chat alone, which all of them have."""
    key = {"api_key_env": to.key_env} if to.key_env else {}
    return {"served_model": to.model, "args": {"completions": False, "token_ids": False}, **key}


def _attached(url: str, to: Destination) -> dict[str, Any]:
    return {"engine": "openai", "base_url": url, **_asked(to)}


def _started(name: str, to: Destination, ask: Ask) -> dict[str, Any]:
    common = ["--upstream", to.url, "--port", "{port}", "--folder", "{folder}"]
    passing = [sys.executable, "-m", "bench.service.passage", *common]
    key = ["--key-env", to.key_env] if to.key_env else []
    gateway = [sys.executable, "-m", "bench.service.litellm", *common, "--python", "{python}", "--model", to.model]
    # What the load generator puts into every request the page has to put in for it.
    body = {"max_tokens": ask.output_tokens, "temperature": 0, "ignore_eos": True}
    page = ["{python}", *chat.words(to.url, to.model, to.key_env, body), "--port", "{port}"]
    paged = {"environment": chat.ENVIRONMENT, "ready": "/"}
    ways: dict[str, dict[str, Any]] = {
        NGINX: {"command": passing, "ready": "/v1/models"},
        BUFFERED: {"command": [*passing, "--buffered"], "ready": "/v1/models"},
        LITELLM: {"command": [*gateway, *key], "environment": LITELLM, "ready": "/health/liveliness"},
        CHAT: {"command": [*page, "--transport", "websocket"], **paged},
        POLLING: {"command": [*page, "--transport", "polling"], **paged},
    }
    common_args = _asked(to)
    if name in (CHAT, POLLING):
        common_args["args"]["page"] = True
    return {"engine": "command", "ready_timeout_s": 120.0, **ways[name], **common_args}


@contextmanager
def served(
    scenario: Path, variant: str | None, progress: Progress, clock: Callable[[], float] = time.monotonic
) -> Iterator[str]:
    """A variant kept serving beside us, and no child of ours: its base URL. ProvisionError with its last words else."""
    words = [sys.executable, "-m", "bench", "serve", str(scenario), "--port", "0", "--json"]
    words += [*(("--variant", variant) if variant else ()), "--owner", str(os.getpid())]
    with tempfile.TemporaryDirectory(prefix="bench-layers-") as folder:
        said = Path(folder) / "serve.log"
        progress.preparing(f"starting {variant or scenario}")
        with said.open("w", encoding="utf-8") as log:
            process = Detached(words, log)
        try:
            yield _ready(process, said, clock)
        finally:
            process.end()


def _ready(process: Detached, said: Path, clock: Callable[[], float]) -> str:
    end = clock() + PATIENCE_S
    while True:
        ended = process.ended(LOOK_S)
        for line in said.read_text(errors="replace").splitlines():
            with suppress(ValueError, LookupError, TypeError):
                return str(json.loads(line)["ready"]).removesuffix("/v1")
        if ended or clock() > end:
            tail = "\n".join(f"    {line}" for line in said.read_text(errors="replace").splitlines()[-8:])
            raise ProvisionError("the engine did not become ready", hint=f"it said\n{tail}")
