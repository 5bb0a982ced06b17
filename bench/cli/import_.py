"""`bench import`: other tools' results under our names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence


def import_(
    file: Annotated[Path, typer.Argument(help="a result file of vLLM, SGLang, GuideLLM or AIPerf")],
    format: Annotated[str | None, typer.Option(help="vllm, sglang, guidellm or aiperf; default: by its looks")] = None,  # noqa: A002
    json: AsJson = False,
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
