"""A scripted server in the place of an engine: known times, known faults, known noise."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from bench.emulate.server.script import BadScript, Script, script
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace, ParentSpec
from bench.errors import LaunchError
from bench.phrases import among
from bench.record.launches import Phase
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

WORKER = "bench.emulate.server.program"


class Simulated:
    """`args` are the fields of bench.emulate.server.script.Script; no model is loaded and none is needed."""

    name = "simulated"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The worker's command line; LaunchError(bad_argument) for a script that says something unknown."""
        args = {**variant.engine.args, **launch.args}
        try:
            script(args)
        except BadScript as error:
            raise LaunchError("bad_argument", f"engine: simulated: {error}") from None
        events = launch.folder / "simulated-events.jsonl"
        options = {
            "host": launch.host,
            "port": launch.port,
            "script": json.dumps(args),
            "model": self.name,
            "truth": launch.folder / "truth.jsonl",
            "events": events,
            # The same draw whenever the plan is carried out again, another one for each of its launches.
            "launch": f"{launch.seed}/{launch.block}/{launch.position}/{variant.id}",
            "block": launch.block,
            "position": launch.position,
        }
        return LaunchSpec(
            argv=(sys.executable, "-m", WORKER, *(f"--{name}={value}" for name, value in options.items())),
            env={**variant.engine.env, **launch.env},
            endpoint=Endpoint(launch.host, launch.port, self.name),
            health=variant.engine.ready or "/health",
            ready_timeout_s=variant.engine.ready_timeout_s,
            stop_timeout_s=variant.engine.stop_timeout_s,
            events_file=events,
            parent=_parent(variant) if variant.start == "forked" else None,
        )

    def mistakes(self, engine: EngineSetting) -> Iterator[tuple[str, str]]:
        """Fields that no script has, or with values that none may have."""
        known = [one.name for one in fields(Script)]
        for name, value in engine.args.items():
            if name not in known:
                yield name, f"the simulated engine has no {name!r}: {among(sorted(known), name)}"
                continue
            try:
                script({name: value})
            except BadScript as error:
                yield name, str(error)

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """The worker's own phases: its imports, and those of the script."""
        return [
            Phase(str(event["name"]), int(event["t_ns"]), int(event["end_ns"]), source="worker", process=self.name)
            for event in trace.events
            if "end_ns" in event
        ]

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """The script as it was understood."""
        script = next((dict(event["script"]) for event in trace.events if event.get("name") == "script"), {})
        return {**script, "device_used": "none", "device_evidence": "a script: nothing is computed"} if script else {}


def _parent(variant: Variant) -> ParentSpec:
    return ParentSpec((WORKER,), env=dict(variant.engine.env), versions=("firsttoken",))
