"""`bench deploy`: a measured variant as a folder that serves it, and whether it still keeps what was measured."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError


class Keeper(StrEnum):
    """What keeps the service running."""

    script = "script"
    systemd = "systemd"
    compose = "compose"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="deploy")(deploy)


def deploy(
    run: Annotated[Path | None, typer.Argument(help="a run's folder")] = None,
    folder: Annotated[Path | None, typer.Argument(help="folder to write")] = None,
    variant: Annotated[str | None, typer.Option(help="which variant; may be left out if there is one")] = None,
    to: Annotated[Keeper, typer.Option(help="what keeps it running")] = Keeper.script,
    port: Annotated[int, typer.Option(help="port it will serve on", min=1, max=65535)] = 8000,
    nginx: Annotated[
        bool, typer.Option("--nginx", help="nginx in front, on the port; the engine on the next one")
    ] = False,
    instances: Annotated[
        int, typer.Option(help="so many engines behind nginx, on the ports after --port", min=1, max=64)
    ] = 1,
    rate: Annotated[
        float | None, typer.Option(help="nginx: so many requests a second from one address, others get 429", min=0.0)
    ] = None,
    nginx_image: Annotated[str | None, typer.Option(help="with --to compose: nginx's image, best by digest")] = None,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="with what bench monitor, Prometheus and Grafana need")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="FOLDER", help="start this folder and compare it with its run")
    ] = None,
    blocks: Annotated[int, typer.Option(help="with --verify: starts of each side", min=1)] = 7,
    requests: Annotated[
        int, typer.Option(help="with --verify: requests of each start, where the scenario has fewer", min=1)
    ] = 40,
    results: Annotated[Path, typer.Option(help="with --verify: folder that runs are kept in")] = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="print what was done as JSON")] = False,
) -> None:
    """Write a folder that serves a variant exactly as it was measured, ready only when its first token is warm.

    The folder needs neither this project nor its environment; the engine's own environment and the weights stay where
    they are and are checked before each start. A variant that was forked, restored or handed over is kept by `bench
    serve`: this firsttoken must then be installed from a wheel, in an environment that stays and is checked too.

    With --verify a folder is started, and asked beside fresh launches of its variant: the ratio of both with its
    interval, and the exit code of a gate at 5 % on the first token.

    Example: bench deploy results/quick /srv/quick --variant bf16-requests --to systemd
    Example: bench deploy results/quick /srv/quick --nginx --instances 2 --rate 10
    Example: bench deploy --verify /srv/quick
    """
    from bench.analyse.run import Run
    from bench.cli.output import print_json
    from bench.service.deploy import of
    from bench.service.folder import write
    from bench.service.nginx import IMAGE, Nginx

    if verify is not None:
        if folder is not None:
            raise UsageError("--verify reads a folder and writes none", hint=f"bench deploy --verify {verify}")
        raise typer.Exit(_verify(run, verify, results, (blocks, requests), json))
    if run is None or folder is None:
        raise UsageError("a run and a folder to write are needed", hint="bench deploy RUN FOLDER --variant V")
    opened = Run.open(run)
    if variant is None and len(opened.variants) != 1:
        raise UsageError(
            f"the run has {len(opened.variants)} variants: {', '.join(opened.variants)}", hint="name one: --variant"
        )
    asked = nginx or instances > 1 or rate is not None or nginx_image is not None
    front = Nginx(instances, rate or None, nginx_image or IMAGE) if asked else None
    made = write(of(opened, variant or opened.variants[0], port, front), folder, to.value, monitor)
    if json:
        print_json({"folder": str(folder.absolute()), "files": [path.name for path in made]})
        return
    for path in made:
        typer.echo(f"written  {path}")


def _verify(run: Path | None, folder: Path, results: Path, size: tuple[int, int], quiet: bool) -> int:
    from bench.analyse.run import Run
    from bench.cli.output import print_json
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.judge.gate import EXITS
    from bench.report.verdicts import data, sentences
    from bench.service.verify import read, verify

    made_from = read(folder)["made_from"]
    source = Run.open(run or made_from["path"])
    if made_from["run"] != source.manifest.run_id:
        raise UsageError(f"{folder} was made from run {made_from['run']}, not from {source.manifest.run_id}")
    with ends_on_term(), watch(quiet=quiet) as progress:
        found = verify(folder.absolute(), source, results, size, progress)
    if quiet:
        told = {"then": dict(found.then), "runs": [str(path) for path in found.runs]}
        print_json({**data.compared(found.comparison), **told})
    else:
        typer.echo("\n".join(sentences.compared(found.comparison)))
        for metric, value in found.then.items():
            typer.echo(
                f"  {metric} was {value:.4g} ms when the run was made" if value is not None else f"  {metric}: –"
            )
        for path in found.runs:
            typer.echo(f"run     {path}")
    verdict = found.comparison.verdict
    return EXITS[verdict] if verdict is not None else 0
