"""`bench engines list|install|remove`: the environments that engines run in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json

HELP = """List engines and install their environments.

Example: bench engines list
Example: bench engines install transformers
"""


engines = typer.Typer(help=HELP, no_args_is_help=True)


@engines.command("list")
def list_environments(json: AsJson = False) -> None:
    """Show every environment, whether it is installed, and where.

    Example: bench engines list
    """
    from bench.environments.environment import environments

    found = [
        {
            "name": place.recipe.name,
            "installed": place.ready,
            "folder": str(place.folder) if place.folder.exists() else None,
            "python": place.recipe.python,
            "about": place.recipe.about,
        }
        for place in environments()
    ]
    if json:
        print_json(found)
        return
    for row in found:
        state = "installed" if row["installed"] else "half installed" if row["folder"] else "–"
        typer.echo(f"{row['name']:<20} {state:<15} {row['about']}")


@engines.command("install")
def install(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An environment, as `bench engines list` shows them.")],
    python: Annotated[Path | None, typer.Option(help="Interpreter to build on; one that fits by default.")] = None,
    index: Annotated[
        str | None, typer.Option(help="A further package index for PyTorch; else FIRSTTOKEN_TORCH_INDEX.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it anew.")] = False,
    json: AsJson = False,
) -> None:
    """Make an engine's environment from its pinned packages or sources; goes on where it was interrupted.

    Example: bench engines install transformers
    """
    from bench.environments import environment

    place = environment.install(
        name, python=python, index=index, force=force, progress=lambda line: typer.echo(line, err=True)
    )
    if json:
        print_json({"name": name, "python": str(place.python), "program": str(place.program)})
    else:
        typer.echo(place.program)


@engines.command("remove")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="An environment.")]) -> None:
    """Delete an engine's environment.

    Example: bench engines remove vllm-cpu
    """
    from bench.environments import environment

    typer.echo(f"{name}: {'removed' if environment.remove(name) else 'was not installed'}")
