"""`bench selfcheck` and `bench simulate`: the client measured against known timing, and that timing for anyone."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.loadgen.selfcheck import LoadResult


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("selfcheck")(selfcheck)
    app.command("simulate")(simulate)


def selfcheck(
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds instead of half a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this client's own error on this machine, against a scripted server that logs when its bytes really leave.

    Example: bench selfcheck --quick
    """
    from bench.loadgen.selfcheck import selfcheck as check

    result = check(quick=quick)
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
    else:
        typer.echo("\n".join(table(result.readings)))


def table(readings: tuple[LoadResult, ...]) -> list[str]:
    """The readings as columns, one row a figure."""

    def row(name: str, values: list[str]) -> str:
        return f"{name:<38}" + "".join(f"{value:>16}" for value in values)

    def figure(name: str, unit: str, digits: int, pick: str) -> str:
        values = [getattr(reading, pick) for reading in readings]
        return row(f"{name}, {unit}", ["–" if value is None else f"{value:,.{digits}f}" for value in values])

    return [
        row("", [reading.load.name for reading in readings]),
        row(
            "script: first token, gap, ms",
            [f"{reading.load.ttft_ms:g}, {reading.load.itl_ms:g}" for reading in readings],
        ),
        row("requests x tokens", [f"{reading.load.requests} x {reading.load.tokens}" for reading in readings]),
        row("stamps", [reading.stamp_source for reading in readings]),
        row("scheduling of the client", [reading.scheduling for reading in readings]),
        figure("TTFT error: mean (bias)", "ms", 3, "bias_ms"),
        figure("TTFT error: |p50|", "ms", 3, "error_p50_ms"),
        figure("TTFT error: |p99|", "ms", 3, "error_p99_ms"),
        figure("TTFT error: |max|", "ms", 3, "error_max_ms"),
        figure("gap between tokens: |p50| error", "ms", 3, "gap_error_p50_ms"),
        figure("gap between tokens: |p99| error", "ms", 3, "gap_error_p99_ms"),
        figure("user stamp late by, p99", "ms", 3, "client_lag_p99_ms"),
        figure("server behind its script, p99", "ms", 3, "server_late_p99_ms"),
        figure("CPU per event, driving", "us", 1, "cpu_us_per_event"),
        figure("CPU per event, parsing after", "us", 1, "parse_us_per_event"),
        figure("one core could take, events", "per s", 0, "capacity_per_s"),
        figure("headroom over this load", "times", 1, "headroom"),
        figure("resident while driving", "MiB", 0, "rss_mib"),
    ]


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
            raise UsageError(f"cannot read the script {script}: {error.strerror}") from None
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the script is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("the script must be a JSON object")
    return given
