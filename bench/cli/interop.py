"""`bench export` and `bench import`: other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.output import as_json, print_json, write


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    run: Annotated[Path, typer.Argument(help="a run's folder, or a folder of runs (the newest is taken)")],
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
        if len(documents) > 1:
            raise UsageError(f"{format} makes {len(documents)} files of this run", hint="name a folder with --out")
        print_json(next(iter(documents.values())))
        return
    for name, document in documents.items():
        write(out / name, as_json(document))
        typer.echo(out / name)


def import_(
    file: Annotated[Path, typer.Argument(help="a result file of vLLM, GuideLLM or AIPerf")],
    format: Annotated[str | None, typer.Option(help="vllm, guidellm or aiperf; told by its looks by default")] = None,  # noqa: A002
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Read another tool's result, its metrics under our names.

    What shares a name with us and means something else is renamed: docs/metrics.md has the table.

    Example: bench import vllm-result.json
    """
    import json as documents

    from bench.errors import RecordError
    from bench.formats import importer

    try:
        document = documents.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{file} does not exist") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{file} cannot be read as JSON: {error}") from error
    name, reader = importer(document, format)
    try:
        rows = reader.read(document)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise RecordError(f"{file} is not a result of {name} that we know: {error!r}") from error
    if json:
        print_json({"format": name, "metrics": rows})
        return
    typer.echo(f"{file}: {name}")
    for row in rows:
        number = f"#{row['benchmark']} " if "benchmark" in row else ""
        typer.echo(f"  {number}{row['metric']:<22} {row['value']:>12.3f} {row['unit']}")
