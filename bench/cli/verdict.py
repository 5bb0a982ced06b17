"""`bench compare`, `gate` and `history`: verdicts over recorded runs. Nothing is started here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import baselines as kept
from bench.cli import selftest
from bench.cli.baselines import STORE, AsJson, Baselines
from bench.cli.output import as_json, margins, print_json, write

if TYPE_CHECKING:
    from bench.analyse.run import Run
    from bench.judge.gate import Gate


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    app.command()(gate)
    app.command()(history)
    app.add_typer(kept.store, name="baseline")
    selftest.register(app)


def compare(
    run: Annotated[Path, typer.Argument(help="a run's folder, or a folder of runs (the newest is taken)")],
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
    from bench.report.verdicts import data, terminal

    first = Run.open(run)
    second = Run.open(other) if other else None
    left, right = _sides(first, second, a, b)
    compared = Comparison.of(first, left, right, other=second, margins=margins(margin or ()), metrics=metric)
    if json:
        print_json(data.compared(compared))
    else:
        typer.echo("\n".join(terminal.compared(compared)))
    if compared.verdict is not None:
        raise typer.Exit(EXITS[compared.verdict])


def gate(
    run: Annotated[Path, typer.Argument(help="a run's folder, or a folder of runs (the newest is taken)")],
    stored: Annotated[bool, typer.Option(help="judge against stored sessions, not against the run's baseline")] = False,
    variant: Annotated[str | None, typer.Option(help="with --stored: the variant to judge")] = None,
    baselines: Baselines = STORE,
    enforce: Annotated[bool, typer.Option(help="let the verdict bind although no A/A study stands behind it")] = False,
    markdown: Annotated[Path | None, typer.Option(help="write Markdown there; - is standard output")] = None,
    junit: Annotated[Path | None, typer.Option(help="write JUnit XML there")] = None,
    summary: Annotated[Path | None, typer.Option("--json-file", help="write JSON there")] = None,
    annotations: Annotated[bool | None, typer.Option(help="print GitHub annotations; on by default there")] = None,
    json: AsJson = False,
) -> None:
    """Judge a run against its scenario's margins; the exit code is the verdict.

    0 pass (or advice only), 1 regression, 2 inconclusive, 3 invalid or not comparable, 4 usage. In a GitHub job the
    Markdown also goes to the job summary.

    Example: bench gate results/quick --junit gate.xml --markdown gate.md
    """
    from bench.analyse.run import Run
    from bench.judge.gate import judge, judge_stored
    from bench.report.verdicts import comment as text
    from bench.report.verdicts import data, terminal
    from bench.report.verdicts import junit as xml

    opened = Run.open(run)
    judged = (
        judge_stored(opened, variant=variant, baselines=baselines, enforce=enforce)
        if stored
        else judge(opened, baselines=baselines, enforce=enforce)
    )
    if json:
        print_json(data.render(judged))
    else:
        typer.echo(terminal.render(judged))
    if markdown:
        write(markdown, text.render(judged))
    if junit:
        write(junit, xml.render(judged))
    if summary:
        write(summary, as_json(data.render(judged)))
    _github(judged, annotations, quiet=json)
    raise typer.Exit(judged.exit_code)


def history(
    folder: Annotated[Path, typer.Argument(help="a baseline file, or a folder of runs of one scenario")],
    variant: Annotated[str | None, typer.Option(help="with a folder of runs: the variant to follow")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="metric to follow; may be repeated")] = None,
    json: AsJson = False,
) -> None:
    """Look for lasting changes over stored sessions. Advice only: it ends with 0.

    Example: bench history results/baselines/jetson-orin-nx-16gb/ernie--vllm.json
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


def _github(judged: Gate, wanted: bool | None, *, quiet: bool) -> None:
    """Annotations, and the job summary, where a GitHub job runs us."""
    import os

    from bench.report.verdicts import comment, github

    inside = os.environ.get("GITHUB_ACTIONS") == "true"
    if (inside if wanted is None else wanted) and not quiet:
        typer.echo(github.render(judged))
    if inside and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(comment.render(judged) + "\n")
