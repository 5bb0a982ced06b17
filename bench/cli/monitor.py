"""`bench monitor`: endless canaries of served endpoints; six figures, their limits, alarms, Prometheus' metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError

LISTEN = "127.0.0.1:9469"


def monitor(
    what: Annotated[str, typer.Argument(metavar="FILE|URL", help="a watch list (YAML), or one server's address")],
    into: Annotated[Path | None, typer.Option(help="folder of the records; results/monitor/NAME by default")] = None,
    run: Annotated[Path | None, typer.Option("--from", help="take limits from this run's measured requests")] = None,
    variant: Annotated[str | None, typer.Option(help="with --from: the variant that is served")] = None,
    listen: Annotated[str, typer.Option(help="host:port of /metrics and /probe; `none` for neither")] = LISTEN,
    otlp: Annotated[
        str | None, typer.Option(help="push the series to this OpenTelemetry collector, e.g. http://127.0.0.1:4318")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="end after this long; until Ctrl-C by default")] = None,
    page: Annotated[Path | None, typer.Option(help="ask nobody: write a page of what was recorded so far")] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="ask nobody: write rules, dashboard and scrape configuration into this folder")
    ] = None,
) -> None:
    """Watch served endpoints by canaries: six figures against limits, changes told, records kept by day.

    Example: bench monitor http://127.0.0.1:8000 --from results/quick --variant bf16-requests
    """
    import asyncio
    import contextlib
    import signal

    from rich.console import Console
    from rich.live import Live

    from bench.home import RESULTS
    from bench.service import screen, watchlist
    from bench.service.monitor import Monitor

    watched, text = watchlist.of_url(what) if "://" in what else watchlist.load(Path(what))
    folder = into or RESULTS / "monitor" / watched.watch
    host, port = address(listen)
    if page is not None:
        from bench.service import trend

        typer.echo(f"wrote {trend.write(folder, page)}")
        return
    if prometheus is not None:
        from bench.service.prometheus import Places, write

        for path in write(prometheus, Places(monitor=f"{host}:{port}")):
            typer.echo(f"wrote {path}")
        return
    if variant and not run:
        raise UsageError("--variant belongs to --from")

    def say(sentence: str) -> None:
        typer.echo(sentence, err=True)

    pusher = None
    if otlp is not None:
        import os

        from bench.service.otlp import Pusher, headers
        from bench.service.otlp import address as collector

        pusher = Pusher(collector(otlp), headers(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")))

    evidence: list[str] = []
    if run is not None:
        from bench.service.limits import from_run

        limits, evidence = from_run(run, variant)
        watched = watchlist.limited(watched, limits)

    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    async def shown(monitor: Monitor) -> None:
        """Refresh the view, or write a line now and then."""
        period = 1.0 if live else 60.0
        while True:
            await asyncio.sleep(period)
            if live:
                live.update(screen.table(list(monitor.watches.values()), str(folder)), refresh=True)
            else:
                for watch in monitor.watches.values():
                    typer.echo(screen.line(watch))

    async def watching(monitor: Monitor) -> None:
        def ready() -> None:
            where = f"; metrics on http://{host}:{monitor.port}/metrics" if monitor.port else ""
            say(f"watching {len(watched.endpoints)} into {folder}{where}")

        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, this.cancel)
        view = asyncio.create_task(shown(monitor))
        try:
            async with asyncio.timeout(seconds):
                await monitor.run(None if listen == "none" else (host, port), ready)
        except (TimeoutError, asyncio.CancelledError):
            pass
        finally:
            view.cancel()

    for sentence in evidence:
        say(sentence)
    with contextlib.ExitStack() as stack:
        if live:
            stack.enter_context(live)
        opened = stack.enter_context(Monitor(watched, text, folder, say, pusher=pusher))
        asyncio.run(watching(opened))


def address(text: str) -> tuple[str, int]:
    """Host and port; UsageError for anything else."""
    if text == "none":
        text = LISTEN
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen {text}: write host:port, for example {LISTEN}")
    return host.strip("[]") or "127.0.0.1", int(port)
