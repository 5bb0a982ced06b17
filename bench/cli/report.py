"""`bench report`: a run's page and tables."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from bench.analyse.run import Run


class Format(StrEnum):
    """What can be written."""

    html = "html"
    md = "md"
    csv = "csv"
    parquet = "parquet"


class TableName(StrEnum):
    """Which table goes into a CSV or Parquet file."""

    summary = "summary"
    launches = "launches"
    requests = "requests"
    samples = "samples"
    phases = "phases"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Runs; a folder of runs stands for its newest.")],
    format_: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.html,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; - for standard output.")] = None,
    table: Annotated[TableName, typer.Option(help="Which table, for csv and parquet.")] = TableName.summary,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Print the table to the terminal; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON; write nothing.")] = False,
) -> None:
    """Write a run's page, tables and figures. Several runs make one page.

    Example: bench report results/quick --open
    """
    from bench.analyse.run import Run

    opened = [Run.open(path) for path in runs]
    if as_json or summary:
        _print(opened, as_json)
        return
    if str(output) == "-":
        if format_ is Format.parquet:
            raise UsageError("Parquet is not text", hint="give a file with -o")
        typer.echo(_text(opened, format_, table), nl=False)
        return
    target = output or _target(opened, format_, table)
    target.parent.mkdir(parents=True, exist_ok=True)
    if format_ is Format.parquet:
        _frame(opened, table).to_parquet(target, index=False)
    else:
        target.write_text(_text(opened, format_, table), encoding="utf-8")
    typer.echo(str(target))
    if open_:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())


def _print(runs: list[Run], as_json: bool) -> None:
    from rich.console import Console

    from bench.report import text

    for run in runs:
        if as_json:
            typer.echo(text.as_json(run))
        else:
            Console().print(text.summary(run))


def _target(runs: list[Run], format_: Format, table: TableName) -> Path:
    manifest = runs[0].manifest
    name = (
        f"{manifest.scenario}-{manifest.run_id}" if len(runs) == 1 else f"{manifest.scenario}-and-{len(runs) - 1}-more"
    )
    suffix = f"-{table.value}" if format_ in (Format.csv, Format.parquet) else ""
    return Path("reports") / f"{name}{suffix}.{format_.value}"


def _text(runs: list[Run], format_: Format, table: TableName) -> str:
    from bench.report import html, markdown

    if format_ is Format.csv:
        return _frame(runs, table).to_csv(index=False)
    return html.render(runs) if format_ is Format.html else markdown.render(runs)


def _frame(runs: list[Run], table: TableName) -> pd.DataFrame:
    """One table over all runs; with several, the first column says which run a row is of."""
    import pandas as pd

    frames = {run.manifest.run_id: _one(run, table) for run in runs}
    if len(frames) == 1:
        return next(iter(frames.values()))
    return pd.concat([frame.assign(run=run_id) for run_id, frame in frames.items()], ignore_index=True)


def _one(run: Run, table: TableName) -> pd.DataFrame:
    match table:
        case TableName.summary:
            return run.summary()
        case TableName.launches:
            return run.per_launch
        case TableName.requests:
            return run.requests
        case TableName.samples:
            return run.samples
        case TableName.phases:
            return run.phases
