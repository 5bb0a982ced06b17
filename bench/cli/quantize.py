"""`bench models quantize`: make a 4-bit or 8-bit checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(models: typer.Typer) -> None:
    """Add the command to the group `bench models`."""
    models.command("quantize")(quantize)


def quantize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf:owner/name, path:folder, pypi:…, or an alias.")],
    to: Annotated[str, typer.Option(metavar="METHOD", help="awq, gptq or int8.")],
    group_size: Annotated[int | None, typer.Option(help="Weights per scale; must divide every input width.")] = None,
    samples: Annotated[int, typer.Option(help="Rows of calibration text.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens per row.")] = 128,
    seed: Annotated[int, typer.Option(help="Draws the order of the calibration texts.")] = 1,
    n_grid: Annotated[int, typer.Option(help="Points of AWQ's search for scales; 20 is its authors' choice.")] = 10,
    corpus: Annotated[Path | None, typer.Option(help="JSON lines with `text`; the shipped texts by default.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Make it again if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Quantize a model and keep it in the cache, where scenarios find it.

    Example: bench models quantize smollm2-135m --to awq
    """
    from bench.home import size
    from bench.models.quantize import QuantizeOptions
    from bench.models.quantize import quantize as make
    from bench.scenario.model import Model

    options = QuantizeOptions(
        to, group_size=group_size, samples=samples, length=length, seed=seed, n_grid=n_grid, corpus=corpus
    )
    made = make(Model(source=source), options, replace=replace, progress=lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps({"path": str(made.path), "digest": made.digest, "bytes": made.size_bytes}))
    else:
        typer.echo(f"{to} of {made.source}: {size(made.size_bytes or 0)} in {made.path}")
