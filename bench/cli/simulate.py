"""`bench simulate`: scripted answers with known timing, for anyone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.errors import UsageError
from bench.phrases import why


def simulate(
    ttft_ms: Annotated[float, typer.Option(help="Time to the first token.")] = 50.0,
    itl_ms: Annotated[float, typer.Option(help="Time from one token to the next.")] = 5.0,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one and prints it.")] = 8000,
    unix: Annotated[str | None, typer.Option(help="Listen at this path instead.")] = None,
    fault: Annotated[str | None, typer.Option(help="What goes wrong, e.g. stall, error_event, http_500.")] = None,
    script: Annotated[
        str | None, typer.Option(help="More of the script: JSON, or a file with it (see docs/wire.md).")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Append to this file what was sent, and when.")] = None,
) -> None:
    """Serve scripted answers with known timing, in the OpenAI form; for testing clients in CI.

    Example: bench simulate --ttft-ms 200 --itl-ms 20 --script '{"role_first": true, "jitter_ms": 3}'
    """
    from bench.emulate.server.script import BadScript
    from bench.emulate.server.script import script as checked

    plan = {"ttft_ms": ttft_ms, "itl_ms": itl_ms, **({"fault": fault} if fault else {}), **_given(script)}
    try:
        checked(plan)
    except BadScript as error:
        raise UsageError(f"the script is wrong: {error}") from None
    argv = ["--host", host, "--port", str(port), "--script", json.dumps(plan)]
    argv += ["--unix", unix] if unix else []
    argv += ["--truth", str(truth)] if truth else []
    # The server takes this process's place, so that whoever started it can stop it by its pid.
    os.execv(sys.executable, [sys.executable, "-m", "bench.emulate.server.program", *argv])


def _given(script: str | None) -> dict[str, Any]:
    if script is None:
        return {}
    text = script
    if not script.lstrip().startswith("{"):
        try:
            text = Path(script).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the script {script}: {why(error)}") from None
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the script is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("the script must be a JSON object")
    return given
