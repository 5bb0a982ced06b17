"""Any server, by the command line that starts it and the path that says it is ready."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.openai import authorization
from bench.errors import LaunchError
from bench.phrases import among
from bench.record.launches import Phase
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

OWN = ("body", "token_ids", "completions", "page")
_PLACE = re.compile(r"\{([a-z_]+)\}")


class Command:
    """A server started by `command`, a list of words in which {port}, {host}, {model}, {python}, {folder} and
    {served_name} are filled in.

    `args` become flags after them (`max_model_len: 2048` → `--max-model-len 2048`, true → the bare flag, false → none),
    so that `args.*` factors work, but for `token_ids`, `completions`, `body` and `page`, which say how it is asked.
    `served_model` may be `{model}`; without it the first name of /v1/models is used. The server must stay in the
    foreground.
    """

    name = "command"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The template filled in; LaunchError(bad_argument) for a place that nothing fills."""
        engine = variant.engine
        if not engine.command:
            raise LaunchError("bad_argument", "engine: command needs command, a list of words")
        places = {
            "port": str(launch.port),
            "host": launch.host,
            "folder": str(launch.folder),
            "model": str(launch.checkpoint.path) if launch.checkpoint.path else None,
            "python": python(engine),
        }
        served = fill(engine.served_model, places) if engine.served_model else None
        places["served_name"] = served
        args = {**engine.args, **launch.args}
        own = {name: args.pop(name) for name in OWN if name in args}
        argv = tuple(fill(word, places) for word in engine.command) + flags(args)
        return LaunchSpec(
            argv=argv,
            env={name: fill(value, places) for name, value in {**engine.env, **launch.env}.items()},
            endpoint=Endpoint(
                host=launch.host,
                port=launch.port,
                model=served or "",
                headers=authorization(engine.api_key_env),
                token_ids=bool(own.get("token_ids", True)),
                completions=bool(own.get("completions", True)),
                body=dict(own.get("body", {})),
            ),
            health=engine.ready or "/health",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
        )

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """What the launch's own stamps say: to the first output, to the open port, to health."""
        names = ("spawn", "first_output", "port_open", "health")
        return [
            Phase(f"to {end}", trace.stamps.get(begin), trace.stamps.get(end), "stamp")
            for begin, end in pairwise(names)
            if trace.stamps.get(begin) is not None and trace.stamps.get(end) is not None
        ]

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What it calls its model; what it really loaded is not known."""
        return {"served_model": trace.endpoint.model or None if trace.endpoint else None}


def python(engine: EngineSetting) -> str | None:
    """The interpreter named by the scenario, or that of the environment it names; None if it names neither."""
    if engine.python is None and engine.environment is None:
        return None
    from bench.environments.environment import interpreter

    return str(interpreter(engine))


def fill(word: str, places: Mapping[str, str | None]) -> str:
    """A word of the template with its places filled in; other braces, as in JSON, stay as they are."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in places:
            raise LaunchError("bad_argument", f"command: nothing fills {{{name}}}: {among(sorted(places), name)}")
        found = places[name]
        if found is None:
            needs = {"python": "python: or environment:", "served_name": "served_model:", "model": "a model of its own"}
            raise LaunchError("bad_argument", f"command: {{{name}}} needs {needs[name]} in the scenario")
        return found

    return _PLACE.sub(value, word)


def flags(args: Mapping[str, Any]) -> tuple[str, ...]:
    """Command-line flags from `args`: underscores to dashes, true to the bare flag, false and null to none."""
    words: list[str] = []
    for name, value in args.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return tuple(words)
