"""`bench export` and `bench import`: other tools' formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

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
        # Several files become one object by file name, which `bench import` reads back.
        print_json(documents if len(documents) > 1 else next(iter(documents.values())))
        return
    for name, document in documents.items():
        write(out / name, as_json(document))
        typer.echo(out / name)


def import_(
    file: Annotated[Path, typer.Argument(help="a result file of vLLM, SGLang, GuideLLM or AIPerf")],
    format: Annotated[str | None, typer.Option(help="vllm, sglang, guidellm or aiperf; default: by its looks")] = None,  # noqa: A002
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Read another tool's result, its metrics under our names.

    What shares a name with us and means something else is renamed: docs/metrics.md has the table.

    Example: bench import vllm-result.json
    """
    from bench.errors import RecordError
    from bench.formats import importer
    from bench.formats.figures import documents

    found = documents(file)
    names, rows, empty = [], [], 0
    for number, document in enumerate(found):
        name, reader = importer(document, format)
        try:
            read = reader.read(document)
        except RecordError as error:
            raise RecordError(f"{file}: {_place(found, number)}{error.message}", hint=error.hint) from error
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise RecordError(f"{file} is not a result of {name} that we know: {error!r}") from error
        names.append(name)
        empty += not read
        rows += [{"result": number, **row} for row in read] if len(found) > 1 else read
    tools = ", ".join(dict.fromkeys(names))
    if json:
        print_json({"format": tools, "results": len(found), "without_figures": empty, "metrics": rows})
        return
    typer.echo(f"{file}: {tools}" + (f", {len(found)} results" if len(found) > 1 else ""))
    for row in rows:
        place = "".join(f"#{row[key]} " for key in ("result", "benchmark") if key in row)
        typer.echo(f"  {place}{row['metric']:<22} {row['value']:>12.3f} {row['unit']}")
    if empty:
        which = "it has" if len(found) == 1 else f"{empty} of {len(found)} results have"
        typer.echo(f"  {which} no figures: no request succeeded")


def _place(found: Sequence[Any], number: int) -> str:
    return f"result {number}: " if len(found) > 1 else ""
