"""`bench deploy`: a measured variant as a folder that serves it, and whether it still keeps what was measured."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError


class Target(StrEnum):
    """What keeps the service running."""

    script = "script"
    systemd = "systemd"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="deploy")(deploy)


def deploy(
    run: Annotated[Path, typer.Argument(help="a run's folder; with --verify a deployed folder")],
    folder: Annotated[Path | None, typer.Argument(help="folder to write")] = None,
    variant: Annotated[str | None, typer.Option(help="which variant; may be left out if there is one")] = None,
    to: Annotated[Target, typer.Option(help="what keeps it running")] = Target.script,
    port: Annotated[int, typer.Option(help="port it will serve on", min=1, max=65535)] = 8000,
    json: Annotated[bool, typer.Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write a folder that serves a variant exactly as it was measured, ready only when its first token is warm.

    The folder needs neither this project nor its environment; the engine's own environment and the weights stay where
    they are and are checked before each start.

    Example: bench deploy results/quick --variant transformers-bf16-requests --to systemd /srv/quick
    """
    from bench.analyse.run import Run
    from bench.cli.output import print_json
    from bench.service.deploy import of, write

    if folder is None:
        raise UsageError("no folder to write", hint="bench deploy RUN FOLDER --variant V")
    opened = Run.open(run)
    if variant is None and len(opened.variants) != 1:
        raise UsageError(
            f"the run has {len(opened.variants)} variants: {', '.join(opened.variants)}", hint="name one: --variant"
        )
    made = write(of(opened, variant or opened.variants[0], port), folder, to.value)
    if json:
        print_json({"folder": str(folder.absolute()), "files": [path.name for path in made]})
        return
    for path in made:
        typer.echo(f"written  {path}")
