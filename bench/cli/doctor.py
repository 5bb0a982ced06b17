"""`bench doctor`: what the machine is, and what it can tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Emulate, Fault, json_of
from bench.phrases import counted, unwritten

if TYPE_CHECKING:
    from bench.probes.doctor import Diagnosis
    from bench.probes.machine import Machine


def doctor(
    emulate: Emulate = None,
    into: Annotated[Path | None, typer.Option(help="with --emulate: build the board's files in this folder")] = None,
    seconds: Annotated[float, typer.Option(help="with --into: keep the board alive this long", min=0)] = 0.0,
    fault: Fault = None,
    collect: Annotated[
        Path | None, typer.Option(metavar="FILE.tar.gz", help="pack raw sensor files and tool output, scrubbed")
    ] = None,
    jtop: Annotated[bool, typer.Option("--jtop", help="ask jetson-stats too")] = False,
    json: Annotated[bool, json_of("the diagnosis")] = False,
) -> None:
    """Say what can be measured on this machine, what can't, why, and the command that fixes it.

    Example: bench doctor --collect my-orin.tar.gz
    Example: bench doctor --emulate orin-nx
    """
    import time

    from bench.cli.output import print_json
    from bench.errors import UsageError
    from bench.probes.doctor import examine
    from bench.probes.machine import machine

    if emulate is None and (into is not None or fault):
        raise UsageError("--into and --fault belong to --emulate", hint="bench doctor --emulate orin-nx --into DIR")
    with machine(emulate, folder=into, faults=fault or ()) as host:
        if emulate:
            time.sleep(0.5)  # until its load and heat have moved off their first values
        diagnosis = examine(host, jtop=jtop)
        if json:
            print_json(diagnosis.to_json())
        else:
            _print(diagnosis)
        if collect is not None:
            _collect(host, diagnosis, collect)
        time.sleep(seconds)
    if into is not None and not json:
        typer.echo(f"built   {into}")


def _collect(host: Machine, diagnosis: Diagnosis, archive: Path) -> None:
    from bench.errors import UsageError
    from bench.probes.collect import collect

    try:
        names = collect(host.roots, diagnosis, archive)
    except OSError as error:
        raise UsageError(unwritten(archive, error)) from error
    typer.echo(f"packed  {archive}: {counted(len(names), 'file')}; look through it before you send it", err=True)


def _print(diagnosis: Diagnosis) -> None:
    import re
    import sys

    from rich.console import Console
    from rich.table import Table

    from bench.probes.doctor import REASONS

    console = Console(width=None if sys.stdout.isatty() else 120)
    if diagnosis.banner:
        console.print(diagnosis.banner, style="bold red")
    console.print(f"[bold]{diagnosis.host_class}[/bold]")
    for line in _identity(diagnosis.fingerprint):
        console.print(line)
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("probe", "what", "now", "", "why not, and what helps"):
        table.add_column(column, no_wrap=column in ("probe", "what"), justify="right" if column == "now" else "left")
    last = ""
    for finding in diagnosis.findings:
        if re.match(r"cpu\d", finding.field):
            continue  # tegrastats has two fields a core; --json shows them
        ok = finding.status == "ok"
        now = f"{finding.value:.4g}" if finding.value is not None else "–"
        why = finding.doc if finding.field == "*" else REASONS.get(finding.status, "")
        words = "" if ok else f"{finding.status}: {finding.fix or why}"
        name = finding.probe if finding.probe != last else ""
        table.add_row(
            name,
            finding.field,
            now,
            "" if finding.unit == "1" or not ok else finding.unit,
            words,
            style=None if ok else "yellow",
        )
        last = finding.probe
    console.print(table)
    for advice in diagnosis.advice:
        console.print(f"· {advice.what}: {advice.found}. {advice.fix}")


def _identity(found: dict[str, object]) -> list[str]:
    jetson, cpu, system = found["jetson"], found["cpu"], found["system"]
    assert isinstance(cpu, dict) and isinstance(system, dict)  # noqa: PT018 (a fingerprint has both)
    lines = [f"  {cpu['model']}, {cpu['threads']} threads; kernel {system['kernel']}; {system['os']}"]
    if isinstance(jetson, dict):
        locked = {True: "locked", False: "not locked", None: "unknown"}[jetson["clocks_locked"]]
        lines.append(
            f"  JetPack {jetson['jetpack']} (L4T {jetson['l4t']}), {jetson['part']}; "
            f"power mode {jetson['power_mode'] or 'unknown'}, clocks {locked}; power of {jetson['power_scope']}"
        )
    gpus = found["gpus"]
    if isinstance(gpus, list):
        lines += [f"  {gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}" for gpu in gpus]
    return lines
