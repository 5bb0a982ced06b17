"""`bench sensors`: the machine's sensors, watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Emulate, Fault, json_of

if TYPE_CHECKING:
    from rich.console import RenderableType


def sensors(
    period: Annotated[float, typer.Option(help="seconds between two readings", min=0.1)] = 1.0,
    seconds: Annotated[float | None, typer.Option(help="end after this long; until Ctrl-C by default")] = None,
    pid: Annotated[int | None, typer.Option(help="a process to watch with all that came from it")] = None,
    emulate: Emulate = None,
    fault: Fault = None,
    json: Annotated[bool, json_of("a line per reading")] = False,
) -> None:
    """Watch the machine's sensors: a live table on a terminal, plain lines elsewhere.

    Example: bench sensors --pid $(pgrep -f vllm | head -1)
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
