"""`bench images list|remove`: engines on this machine's disk, written by CRIU."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json
from bench.errors import UnknownName, UsageError

HELP = """List and remove the images that engines are restored from.

Example: bench images list
"""


images = typer.Typer(help=HELP, no_args_is_help=True)


@images.command("list")
def list_images(json: AsJson = False) -> None:
    """Show every image, its size, when it was made, and of which model.

    Example: bench images list
    """
    from bench.engines.gallery import kept
    from bench.home import size

    found = kept()
    if json:
        print_json([{"name": one.name} | asdict(one) | {"folder": str(one.folder)} for one in found])
        return
    for one in found:
        made = (
            "never finished"
            if one.made is None
            else f"{datetime.fromtimestamp(one.made, UTC).astimezone():%Y-%m-%d %H:%M}"
        )
        runs = "" if one.pid is None else f"  runs as process {one.pid}"
        typer.echo(f"{one.name:<24}  {size(one.size):>8}  {made:<16}  {one.model or '–'}{runs}")


@images.command("remove")
def remove(
    name: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="An image's name, or the beginning of it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Delete an image; the next launch that needs it makes a new one.

    Example: bench images remove 936643bd963141db
    """
    from bench.engines import gallery
    from bench.home import size

    if (name is None) != every:
        raise UsageError("either an image's name or --all")
    found = {one.name: one for one in gallery.kept()}
    chosen = [one for known, one in found.items() if name is None or known.startswith(name)]
    if name is not None and not chosen:
        raise UnknownName("image", name, found)
    if name is not None and len(chosen) > 1:
        raise UsageError(f"{name!r} begins several images: {', '.join(one.name for one in chosen)}")
    for one in chosen:
        gallery.remove(one)
        typer.echo(f"removed {one.name}, {size(one.size)}")
