"""`bench ready`: the gate before a server: its first token has come, and comes warm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="ready")(ready)


def ready(
    url: Annotated[str, typer.Argument(help="an OpenAI-compatible server, e.g. http://127.0.0.1:8000")],
    within: Annotated[str | None, typer.Option(help="limit on the warm first token: 200ms, 1.5s")] = None,
    run: Annotated[Path | None, typer.Option(help="take the limit from this run's measured requests")] = None,
    variant: Annotated[str | None, typer.Option(help="with --run: the variant that is served")] = None,
    timeout: Annotated[str, typer.Option(help="how long to wait for it in all: 60s, 10m")] = "60s",
    model: Annotated[str | None, typer.Option(help="name to ask for; the first of /v1/models by default")] = None,
    key_env: Annotated[str | None, typer.Option(help="environment variable that holds the API key")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the verdict as JSON")] = False,
) -> None:
    """Say whether a server is ready: one real completion, then a warm one inside a limit. 0 ready, 1 not.

    It asks again until the time is over, unless no waiting can help (a wrong key, a redirect, a web page).

    Example: bench ready http://127.0.0.1:8000 --run results/quick --variant bf16-requests
    """
    import os
    from dataclasses import asdict

    from bench.cli.output import print_json
    from bench.programs import ready_process
    from bench.service.ready import WarmLimit, check, of_run

    if within and run:
        raise UsageError("--within and --run both set the limit", hint="give one of them")
    if variant and not run:
        raise UsageError("--variant belongs to --run")
    limit = WarmLimit(milliseconds("--within", within), evidence="as given") if within else None
    if run:
        from bench.analyse.run import Run

        opened = Run.open(run)
        limit = of_run(opened, _variant(opened.variants, variant))
    try:
        target = ready_process.parse(url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    key = os.environ.get(key_env, "").strip() if key_env else None
    if key == "":
        raise UsageError(f"--key-env names {key_env}, which is not set", hint=f"export {key_env}=…")
    target = ready_process.shaped(target, model=model, key=key)
    verdict = check(
        target,
        limit,
        milliseconds("--timeout", timeout) / 1000,
        told=lambda reason: typer.echo(f"waiting    {reason}", err=True),
    )
    if json:
        print_json({"url": target.url, **asdict(verdict), "evidence": limit.evidence if limit else None})
    else:
        typer.echo(ready_process.described(verdict, target.url))
        if run and limit:
            typer.echo(f"           {limit.evidence}")
    raise typer.Exit(0 if verdict.ready else 1)


def milliseconds(option: str, text: str) -> float:
    """A duration such as 200ms, 1.5s, 10m; a bare number is seconds. UsageError for anything else, and for zero."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|)", text.strip())
    value = float(match[1]) * {"ms": 1, "s": 1000, "": 1000, "m": 60000}[match[2]] if match else 0.0
    if not value:
        raise UsageError(f"{option} {text}: write a duration such as 200ms, 1.5s or 10m")
    return value


def _variant(known: tuple[str, ...], given: str | None) -> str:
    if given is None and len(known) != 1:
        raise UsageError(f"the run has {len(known)} variants: {', '.join(known)}", hint="name one: --variant")
    return given or known[0]
