"""A scripted server in the place of an engine: known times, known faults, known noise."""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.emulate.server.script import BadScript, script
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.errors import LaunchError
from bench.record.schema import Phase
from bench.scenario.variant import Variant

HOST = "127.0.0.1"
WORKER = "bench.emulate.server.program"


class Simulated:
    """`args` are the fields of workers.simulated_script.Script; no model is loaded and none is needed."""

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
            "host": HOST,
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
            endpoint=Endpoint(HOST, launch.port, self.name),
            health=variant.engine.ready or "/health",
            ready_timeout_s=variant.engine.ready_timeout_s,
            stop_timeout_s=variant.engine.stop_timeout_s,
            events_file=events,
        )

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """The worker's own phases: its imports, and those of the script."""
        return [
            Phase(str(event["name"]), int(event["t_ns"]), int(event["end_ns"]), source="worker", process=self.name)
            for event in trace.events
            if "end_ns" in event
        ]

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """The script as it was understood."""
        return next((dict(event["script"]) for event in trace.events if event.get("name") == "script"), {})
