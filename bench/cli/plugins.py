"""`bench plugins`: what is registered, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def plugins(json: AsJson = False) -> None:
    """List registered engines, warm-ups, workloads, probes and formats, and where each comes from.

    Example: bench plugins --json
    """
    from bench.plugins import GROUPS, available

    found = {group: [_registered(group, point) for _, point in sorted(available(group).items())] for group in GROUPS}
    if json:
        print_json(found)
        return
    for group, points in found.items():
        typer.echo(f"{group}:" if points else f"{group}: none")
        width = max((len(point["name"]) for point in points), default=0)
        for point in points:
            does = f"  {' and '.join(point['directions'])}" if "directions" in point else ""
            typer.echo(f"  {point['name']:{width}}  {point['object']}{does}  ({point['from']})")


def _registered(group: str, point: EntryPoint) -> dict[str, Any]:
    origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"
    told: dict[str, Any] = {"name": point.name, "object": point.value, "from": origin}
    if group == "formats":
        from bench.formats import directions
        from bench.plugins import load

        told["directions"] = list(directions(load(group, point.name)))
    return told
