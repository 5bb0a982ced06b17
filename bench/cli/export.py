"""`bench export`: a run in other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import RunFolder
from bench.cli.output import as_json, print_json, write


def export(
    run: RunFolder,
    format: Annotated[str, typer.Option(help="vllm, pytest-benchmark, github-action or bencher")],  # noqa: A002 -- the option's name
    out: Annotated[Path | None, typer.Option(help="folder to write to; standard output by default")] = None,
) -> None:
    """Write a run in another tool's format.

    Example: bench export results/quick --format vllm --out exported
    """
    from bench.analyse.run import Run
    from bench.errors import UsageError
    from bench.formats import exporter

    documents = exporter(format).export(Run.open(run))
    if not documents:
        raise UsageError("the run has no valid launch to export")
    if out is None:
        # Several files become one object by file name, which `bench import` reads back.
        print_json(documents if len(documents) > 1 else next(iter(documents.values())))
        return
    for name, document in documents.items():
        write(out / name, as_json(document))
        typer.echo(out / name)
