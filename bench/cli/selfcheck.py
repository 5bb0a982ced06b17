"""`bench selfcheck`: the client measured against known timing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import AsJson, ClientPython
from bench.cli.output import print_json

if TYPE_CHECKING:
    from bench.loadgen.selfcheck import LoadResult


def selfcheck(
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds instead of half a minute.")] = False,
    client: Annotated[str | None, typer.Option(metavar="HOST", help="the client on this host, by ssh")] = None,
    client_python: ClientPython = None,
    json: AsJson = False,
) -> None:
    """Measure the client's own error, on this machine or another, against a scripted server beside it that logs when
    its bytes really leave.

    Example: bench selfcheck --quick
    """
    from dataclasses import asdict

    from bench.loadgen.selfcheck import selfcheck as check
    from bench.run.clients import checked

    result = check(quick=quick) if client is None else checked(client, client_python, quick=quick)
    if json:
        print_json(asdict(result))
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
