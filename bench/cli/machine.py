"""`bench doctor` and `bench monitor`: what the machine is, what it can tell, and watching it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.phrases import counted, unwritten

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.probes.doctor import Diagnosis
    from bench.probes.machine import Machine

Emulate = Annotated[str | None, typer.Option(metavar="BOARD", help="an emulated board: orin-nx, agx-orin, thor, …")]
Fault = Annotated[list[str] | None, typer.Option(metavar="KIND@S", help="on the emulated board: rail@5, hot@10+30, …")]


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command(name="doctor")(doctor)
    app.command(name="monitor")(monitor)


def doctor(
    emulate: Emulate = None,
    into: Annotated[Path | None, typer.Option(help="with --emulate: build the board's files in this folder")] = None,
    seconds: Annotated[float, typer.Option(help="with --into: keep the board alive this long", min=0)] = 0.0,
    fault: Fault = None,
    collect: Annotated[
        Path | None, typer.Option(metavar="FILE.tar.gz", help="pack raw sensor files and tool output, scrubbed")
    ] = None,
    jtop: Annotated[bool, typer.Option("--jtop", help="ask jetson-stats too")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the diagnosis as JSON")] = False,
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


def monitor(
    period: Annotated[float, typer.Option(help="seconds between two readings", min=0.1)] = 1.0,
    seconds: Annotated[float | None, typer.Option(help="end after this long; until Ctrl-C by default")] = None,
    pid: Annotated[int | None, typer.Option(help="a process to watch with all that came from it")] = None,
    emulate: Emulate = None,
    fault: Fault = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON line per reading")] = False,
) -> None:
    """Watch the machine's sensors: a live table on a terminal, plain lines elsewhere.

    Example: bench monitor --pid $(pgrep -f vllm | head -1)
    """
    import time

    from rich.console import Console
    from rich.live import Live

    from bench.cli.output import as_json
    from bench.probes.machine import machine
    from bench.probes.watching import Watching

    console = Console()
    with machine(emulate, faults=fault or ()) as host:
        watching = Watching(host.roots, pid)
        end = time.monotonic() + seconds if seconds is not None else float("inf")
        live = Live(console=console, auto_refresh=False) if console.is_terminal and not json else None
        try:
            if live:
                live.start()
            while True:
                readings = watching.read()
                if live:
                    live.update(_table(host.banner or host.host_class, readings), refresh=True)
                else:
                    typer.echo(_line(readings) if not json else as_json(readings).replace("\n", ""))
                if time.monotonic() + period > end:
                    return
                time.sleep(period)
        except KeyboardInterrupt:
            return
        finally:
            if live:
                live.stop()
            watching.close()


def _table(title: str, readings: dict[str, dict[str, object]]) -> RenderableType:
    from rich.table import Table

    table = Table(title=title, box=None)
    for column in ("what", "now", "unit"):
        table.add_column(column, justify="right" if column == "now" else "left")
    for name, reading in readings.items():
        value = reading["value"]
        now = f"{value:.4g}" if isinstance(value, float) else str(reading["reason"])
        table.add_row(name, now, str(reading["unit"]), style=None if isinstance(value, float) else "yellow")
    return table


def _line(readings: dict[str, dict[str, object]]) -> str:
    known = ((name, reading["value"], reading["unit"]) for name, reading in readings.items())
    return "  ".join(f"{name} {value:.4g} {unit}" for name, value, unit in known if isinstance(value, float))
