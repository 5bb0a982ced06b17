"""`bench compare`: two variants, or two runs, launch by launch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import AsJson, RunFolder
from bench.cli.output import margins, print_json

if TYPE_CHECKING:
    from bench.analyse.run import Run


def compare(
    run: RunFolder,
    other: Annotated[Path | None, typer.Argument(help="a second run, interleaved with the first")] = None,
    a: Annotated[str | None, typer.Option("--a", help="baseline variant: its id, or factor=level,…")] = None,
    b: Annotated[str | None, typer.Option("--b", help="candidate variant")] = None,
    margin: Annotated[list[str] | None, typer.Option(help="metric=5%: judge this metric; may be repeated")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="metric to show; may be repeated")] = None,
    json: AsJson = False,
) -> None:
    """Compare two variants of a run, or of two interleaved runs, launch by launch.

    Without margins this is an estimate and ends with 0; with margins the verdict is the exit code.

    Example: bench compare results/quick --a warmup=none --b warmup=compile-cache --margin ttft=5%
    """
    from bench.analyse.run import Run
    from bench.judge.compare import Comparison
    from bench.judge.gate import EXITS
    from bench.report.verdicts import data, sentences

    first = Run.open(run)
    second = Run.open(other) if other else None
    left, right = _sides(first, second, a, b)
    compared = Comparison.of(first, left, right, other=second, margins=margins(margin or ()), metrics=metric)
    if json:
        print_json(data.compared(compared))
    else:
        typer.echo("\n".join(sentences.compared(compared)))
    if compared.verdict is not None:
        raise typer.Exit(EXITS[compared.verdict])


def _sides(first: Run, second: Run | None, a: str | None, b: str | None) -> tuple[str, str]:
    from bench.errors import UsageError

    names = first.variants
    if second is not None:
        theirs = second.variants
        if (a is None and len(names) > 1) or (b is None and len(theirs) > 1):
            raise UsageError(f"name both sides with --a ({', '.join(names)}) and --b ({', '.join(theirs)})")
        return a or names[0], b or theirs[0]
    if a is None and b is None and len(names) == 2:
        return names[0], names[1]
    if a is None or b is None:
        raise UsageError(f"name both sides with --a and --b: the run has {', '.join(names)}")
    return a, b
