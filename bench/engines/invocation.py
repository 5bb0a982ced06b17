"""How an engine was started, as it is recorded: its words and variables, and what in them was the harness's own.

A launch runs on a port of its own, in a folder of its own, and may send its spans to the harness. Whoever starts the
same engine elsewhere needs the same command without these. An adapter is pure, so it can be asked again: for another
port, which shows where the port stands, and without spans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from bench import programs
from bench.engines.engine import OURS, Engine, LaunchContext, LaunchSpec
from bench.record.launches import CommandTemplate, Invocation
from bench.scenario.redaction import secret
from bench.scenario.variant import Variant


def invocation(engine: Engine, variant: Variant, context: LaunchContext, spec: LaunchSpec) -> Invocation | None:
    """`spec` as it was carried out, and `template`, in which {port}, {folder}, {caches}, {model} and {programs} stand
    for what was this launch's own; None for a server that was attached to.

    Values of variables with names like a secret's are left out and named under `secrets`. An address at which a client
    on another host sees this machine is nobody's business either: {host} stands for it, and in the template the usual.
    """
    if spec.attached:
        return None
    places = {
        "folder": str(context.folder),
        "caches": str(context.caches) if context.caches else None,
        "model": str(context.checkpoint.path) if context.checkpoint.path else None,
        "programs": str(programs.FOLDER),
    }
    plain = replace(context, spans_url=None, host=OURS)
    here = engine.command(variant, plain)
    there = engine.command(variant, replace(plain, port=context.port ^ 1))
    ports = (str(context.port), str(context.port ^ 1))
    secrets = sorted(name for name in spec.env if secret(name))
    return Invocation(
        argv=[_without_address(word, context.host) for word in spec.argv],
        env={name: _without_address(value, context.host) for name, value in spec.env.items() if name not in secrets},
        template=CommandTemplate(
            argv=[_template(*pair, ports, places) for pair in zip(here.argv, there.argv, strict=True)],
            env={
                name: _template(value, there.env[name], ports, places)
                for name, value in here.env.items()
                if name not in secrets
            },
            cwd=_template(str(here.cwd), str(there.cwd), ports, places) if here.cwd else None,
        ),
        places=places,
        health=spec.health,
        served_model=spec.endpoint.model,
        stop_signal=spec.stop_signal,
        stop_timeout_s=spec.stop_timeout_s,
        cwd=str(spec.cwd) if spec.cwd else None,
        secrets=secrets,
    )


def _without_address(word: str, host: str) -> str:
    return word if host == OURS else word.replace(host, "{host}")


def _template(here: str, there: str, ports: tuple[str, str], places: Mapping[str, str | None]) -> str:
    """One word with its places marked; the port is where the word differs when another port is asked for."""
    if here != there:
        # Twice the same number with two meanings in one word: only what changed with the port is the port.
        pieces, others = (
            re.split(rf"(?<!\d){port}(?!\d)", word) for port, word in zip(ports, (here, there), strict=True)
        )
        if pieces == others:
            here = "{port}".join(pieces)
    # The longest first: one place may lie within another.
    for name, value in sorted(places.items(), key=lambda place: -len(place[1] or "")):
        if value:
            here = re.sub(rf"{re.escape(value)}(?=/|:|,|$|\s|[\"'])", f"{{{name}}}", here)
    return here
