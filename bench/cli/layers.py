"""`bench layers`: what nginx, a gateway or a page adds between a client and an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import RESULTS, AsJson, Install, Report, Results
from bench.errors import Exit

if TYPE_CHECKING:
    from bench.run.progress import Progress


def layers(
    server: Annotated[str, typer.Argument(metavar="URL|SCENARIO", help="a running server, or a scenario to serve")],
    variant: Annotated[str | None, typer.Option(help="with a scenario: which variant")] = None,
    through: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WAY",
            help="number, nginx, nginx-buffered, litellm, chat, chat-polling, or NAME=URL; may be repeated",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="what the server calls its model; its first one by default")] = None,
    key_env: Annotated[str | None, typer.Option(help="variable that holds the API key")] = None,
    blocks: Annotated[int, typer.Option(help="how often each way is taken", min=1)] = 5,
    requests: Annotated[int, typer.Option(help="requests each time", min=1)] = 20,
    prompt_tokens: Annotated[int, typer.Option(help="length of the prompts", min=1)] = 32,
    output_tokens: Annotated[int, typer.Option(help="length of the answers", min=2)] = 32,
    seed: Annotated[int, typer.Option(help="draws order and prompts")] = 1,
    results: Results = RESULTS,
    install: Install = False,
    report: Report = True,
    json: AsJson = False,
) -> None:
    """Ask the same of a server straight and through what may stand in front of it; say what each way adds, in ms.

    Every block takes every way once, in random order. nginx, LiteLLM and the chat page (read in a real browser) are
    started for it, on free loopback ports, and ended. Without --through all but chat-polling are tried; what is not
    installed is left out, and said. The run is one like any other: report, compare, export.

    0 every way was measured, 3 one of them was not.

    Example: bench layers http://127.0.0.1:8000 --through nginx --through gateway=http://127.0.0.1:9000
    Example: bench layers scenarios/quick.yaml --variant fp32-requests
    """
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.judge.added import NUMBER
    from bench.judge.validity import judge_folder
    from bench.run.conductor import Rules, Setting, carry_out
    from bench.service.layers import BUFFERED, NGINX, USUAL, Ask, available, scenario, target, ways

    chosen = ways(through or USUAL)
    with ends_on_term(), watch(quiet=json) as progress:
        for name in [name for name, url in chosen.items() if url is None]:
            reason = available(name, server)
            if reason is not None and not (install and name not in (NUMBER, NGINX, BUFFERED)):
                progress.note(f"{name} is left out: {reason}")
                del chosen[name]
        with _behind(server, variant, progress) as url:
            asked = scenario(
                target(url, model, key_env), chosen, Ask(prompt_tokens, output_tokens, requests, blocks, seed)
            )
            setting = Setting(results=results, progress=progress, rules=Rules(judge_folder), install=install)
            folder = carry_out(asked, setting)
    if not _conclude(folder, report=report, as_json=json):
        raise typer.Exit(Exit.INVALID)


@contextmanager
def _behind(server: str, variant: str | None, progress: Progress) -> Iterator[str]:
    """The server's address: given, or of the variant that is started for this."""
    from bench.errors import UsageError
    from bench.run.serving import pick
    from bench.scenario.load import Scenario
    from bench.service.layers import served

    if server.startswith(("http://", "https://")):
        if variant is not None:
            raise UsageError("--variant is for a scenario; a server that runs has what it has")
        yield server
        return
    chosen = pick(Scenario.load(server), variant)
    with served(Path(server), chosen.id, progress) as url:
        yield url


def _conclude(folder: Path, *, report: bool, as_json: bool) -> bool:
    """Say what was added, and where everything is; whether every way was measured."""
    from bench.analyse.run import Run
    from bench.cli.output import print_json
    from bench.judge.added import added, chunks_per_read
    from bench.report import html
    from bench.report.sections.layers import printed

    run = Run.open(folder)
    told = added(run)
    page = html.write(run, Path("reports") / f"{run.manifest.scenario}-{run.manifest.run_id}.html") if report else None
    if as_json:
        rows = [one.to_json() for one in told]
        print_json({"run": str(folder), "added": rows, "chunks_per_read": dict(chunks_per_read(run))})
    else:
        from rich.console import Console

        Console().print(printed(run))
        typer.echo(f"run     {folder}")
        if page is not None:
            typer.echo(f"report  {page}")
    measured = {launch.record.variant for launch in run.all if launch.record.status == "ok"}
    return set(run.variants) <= measured
