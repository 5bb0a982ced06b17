"""`bench history`: lasting changes over stored sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json


def history(
    folder: Annotated[Path, typer.Argument(help="a baseline file, or a folder of runs of one scenario")],
    variant: Annotated[str | None, typer.Option(help="with a folder of runs: the variant to follow")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="metric to follow; may be repeated")] = None,
    json: AsJson = False,
) -> None:
    """Look for lasting changes over stored sessions. Advice only: it ends with 0.

    Example: bench history results/baselines/jetson-orin-nx-16gb/orin-first-token--vllm.json
    """
    from dataclasses import asdict

    from bench.judge import history as past
    from bench.record.documents import plain

    found = past.of_file(folder, metric) if folder.is_file() else past.of_runs(folder, variant, metric)
    if json:
        print_json([plain(asdict(one)) for one in found])
        return
    for one in found:
        typer.echo(str(one))
